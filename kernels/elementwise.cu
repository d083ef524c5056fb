#include "kernels/elementwise.hpp"

#include "kernels/nvidia/row.cuh"

namespace rf {

namespace {

using namespace device;

constexpr int threads = 256, pieces = 2, run = threads * pieces * 8;  // elements of a block

/// Calls body(whole, elements before the block's, elements of the block): whole packs, but for the last block of a length that is not a multiple of 8.
template <class Body>
__device__ inline void for_block(std::int64_t n, bool aligned, const Body& body) {
    const std::int64_t begin = std::int64_t{blockIdx.x} * run;
    const int count = static_cast<int>(std::min<std::int64_t>(n - begin, run));
    if (aligned && count % 8 == 0)
        body(std::true_type{}, begin, count);
    else
        body(std::false_type{}, begin, count);
}

/// One thread for twice eight elements, a block for 4096; any n.
template <class T>
__global__ void __launch_bounds__(threads) add_kernel(const T* x, T* y, std::int64_t n, bool aligned) {
    for_block(n, aligned, [&](auto whole, std::int64_t begin, int count) {
        constexpr bool is_whole = decltype(whole)::value;
        Eight<T> a[pieces], b[pieces];
#pragma unroll
        for (int p = 0; p < pieces; ++p) {
            const int e = static_cast<int>(threadIdx.x) + p * threads;
            a[p] = load_eight<is_whole>(x + begin, e, count);
            b[p] = load_eight<is_whole>(y + begin, e, count);
        }
#pragma unroll
        for (int p = 0; p < pieces; ++p) {
            float sum[8];
#pragma unroll
            for (int k = 0; k < 8; ++k) sum[k] = b[p][k] + a[p][k];
            store_eight<is_whole>(y + begin, static_cast<int>(threadIdx.x) + p * threads, count, sum);
        }
    });
}

/// The split of add_kernel.
template <class T>
__global__ void __launch_bounds__(threads) add_scaled_kernel(const T* x, T* y, ScalarArgument factor, ScalarArgument divisor, std::int64_t n, bool aligned) {
    const float by = divisor.read();
    if (by == 0) return;
    const float scale = factor.read() / by;
    for_block(n, aligned, [&](auto whole, std::int64_t begin, int count) {
        constexpr bool is_whole = decltype(whole)::value;
#pragma unroll
        for (int p = 0; p < pieces; ++p) {
            const int e = static_cast<int>(threadIdx.x) + p * threads;
            const Eight<T> a = load_eight<is_whole>(x + begin, e, count), b = load_eight<is_whole>(y + begin, e, count);
            float sum[8];
#pragma unroll
            for (int k = 0; k < 8; ++k) sum[k] = b[k] + a[k] * scale;
            store_eight<is_whole>(y + begin, e, count, sum);
        }
    });
}

/// The split of add_kernel.
template <class From, class To>
__global__ void __launch_bounds__(threads) cast_kernel(const From* x, To* y, std::int64_t n, bool aligned) {
    for_block(n, aligned, [&](auto whole, std::int64_t begin, int count) {
        constexpr bool is_whole = decltype(whole)::value;
        Eight<From> a[pieces];
#pragma unroll
        for (int p = 0; p < pieces; ++p) a[p] = load_eight<is_whole>(x + begin, static_cast<int>(threadIdx.x) + p * threads, count);
#pragma unroll
        for (int p = 0; p < pieces; ++p) {
            float same[8];
#pragma unroll
            for (int k = 0; k < 8; ++k) same[k] = a[p][k];
            store_eight<is_whole>(y + begin, static_cast<int>(threadIdx.x) + p * threads, count, same);
        }
    });
}

Launch flat(Stream& stream, const char* name, std::int64_t n) {
    return {.name = name, .grid = dim3(blocks_for(n, run)), .block = dim3(threads), .stream = stream.handle()};
}

}  // namespace

namespace cuda {

void add(Stream& stream, const Add& a) {
    const std::int64_t n = a.y.count();
    device::dispatch(a.y.dtype, [&](auto type) {
        using T = decltype(type);
        launch(flat(stream, "add", n), add_kernel<T>, a.x.as<T>(), a.y.as<T>(), n, whole_packs(0, {a.x.data, a.y.data}));
    });
}

void add_scaled(Stream& stream, const AddScaled& a) {
    const std::int64_t n = a.y.count();
    device::dispatch(a.y.dtype, [&](auto type) {
        using T = decltype(type);
        launch(flat(stream, "add_scaled", n), add_scaled_kernel<T>, a.x.as<T>(), a.y.as<T>(), argument(a.factor), argument(a.divisor), n,
               whole_packs(0, {a.x.data, a.y.data}));
    });
}

void cast(Stream& stream, const Cast& a) {
    const std::int64_t n = a.y.count();
    device::dispatch(a.x.dtype, [&](auto from) {
        device::dispatch(a.y.dtype, [&](auto to) {
            using From = decltype(from);
            using To = decltype(to);
            launch(flat(stream, "cast", n), cast_kernel<From, To>, a.x.as<From>(), a.y.as<To>(), n, whole_packs(0, {a.x.data, a.y.data}));
        });
    });
}

}  // namespace cuda

}  // namespace rf
