#include "kernels/relu_mask.hpp"

#include "device.cuh"

namespace rf::cuda {

namespace {

using device::Pack;

constexpr int block_threads = 256;
constexpr int columns = 8;  ///< of one thread: a byte of the mask

/// Columns [column, column + 8) of a row into x, as far as they exist; `packed`: rows are whole packs.
template <class T>
__device__ void load_columns(const T* row, std::int64_t column, std::int64_t n, bool packed, T (&x)[columns]) {
    constexpr int width = 16 / sizeof(T);
    if (packed) {
        for (int p = 0; p < columns; p += width) {
            const auto pack = device::load(reinterpret_cast<const Pack<T, width>*>(row + column + p));
            for (int i = 0; i < width; ++i) x[p + i] = pack.v[i];
        }
    } else {
        for (int i = 0; i < columns; ++i) x[i] = column + i < n ? device::load(row + column + i) : device::from_float<T>(0.0F);
    }
}
template <class T>
__device__ void store_columns(T* row, std::int64_t column, std::int64_t n, bool packed, const T (&x)[columns]) {
    constexpr int width = 16 / sizeof(T);
    if (packed) {
        for (int p = 0; p < columns; p += width) {
            Pack<T, width> pack;
            for (int i = 0; i < width; ++i) pack.v[i] = x[p + i];
            device::store(reinterpret_cast<Pack<T, width>*>(row + column + p), pack);
        }
    } else {
        for (int i = 0; i < columns; ++i)
            if (column + i < n) device::store(row + column + i, x[i]);
    }
}

// One thread per byte of the mask, that is 8 columns of a row; the bytes past column n become 0. Any m and n.
template <class T>
__global__ void __launch_bounds__(block_threads) relu_to_mask_kernel(T* c, std::uint8_t* mask, std::int64_t m, std::int64_t n, std::int64_t mask_bytes, bool packed) {
    const std::int64_t at = std::int64_t{blockIdx.x} * block_threads + threadIdx.x;
    if (at >= m * mask_bytes) return;
    const std::int64_t row = at / mask_bytes, column = at % mask_bytes * columns;
    unsigned bits = 0;
    if (column < n) {
        T x[columns];
        load_columns(c + row * n, column, n, packed, x);
        for (int i = 0; i < columns; ++i) {
            if (device::to_float(x[i]) > 0)
                bits |= 1U << i;
            else if (device::to_float(x[i]) <= 0)  // what is not a number stays visible
                x[i] = device::from_float<T>(0.0F);
        }
        store_columns(c + row * n, column, n, packed, x);
    }
    device::store(mask + at, static_cast<std::uint8_t>(bits));
}

// One thread per byte of the mask as above.
template <class T>
__global__ void __launch_bounds__(block_threads) relu_by_mask_kernel(T* c, const std::uint8_t* mask, std::int64_t m, std::int64_t n, std::int64_t mask_bytes, bool packed) {
    const std::int64_t at = std::int64_t{blockIdx.x} * block_threads + threadIdx.x;
    if (at >= m * mask_bytes) return;
    const std::int64_t row = at / mask_bytes, column = at % mask_bytes * columns;
    if (column >= n) return;
    const unsigned bits = device::load(mask + at);
    T x[columns];
    load_columns(c + row * n, column, n, packed, x);
    for (int i = 0; i < columns; ++i)
        if (!(bits >> i & 1U)) x[i] = device::from_float<T>(0.0F);
    store_columns(c + row * n, column, n, packed, x);
}

template <class T>
bool whole_packs(const Tensor& c) {
    return c.shape[1] % columns == 0 && reinterpret_cast<std::uintptr_t>(c.data) % 16 == 0;
}

unsigned blocks(std::int64_t threads) { return static_cast<unsigned>((threads + block_threads - 1) / block_threads); }

template <class T>
void to_mask(Stream& stream, const Tensor& c, const Tensor& mask) {
    const std::int64_t m = c.shape[0], bytes = relu_mask_bytes(c.shape[1]);
    device::launch({.name = "relu_to_mask", .grid = blocks(m * bytes), .block = block_threads, .stream = stream.handle()}, relu_to_mask_kernel<T>,
                   static_cast<T*>(c.data), static_cast<std::uint8_t*>(mask.data), m, c.shape[1], bytes, whole_packs<T>(c));
}
template <class T>
void by_mask(Stream& stream, const Tensor& c, const ConstTensor& mask) {
    const std::int64_t m = c.shape[0], bytes = relu_mask_bytes(c.shape[1]);
    device::launch({.name = "relu_by_mask", .grid = blocks(m * bytes), .block = block_threads, .stream = stream.handle()}, relu_by_mask_kernel<T>,
                   static_cast<T*>(c.data), static_cast<const std::uint8_t*>(mask.data), m, c.shape[1], bytes, whole_packs<T>(c));
}

}  // namespace

void relu_to_mask(Stream& stream, const Tensor& c, const Tensor& mask) {
    if (c.dtype == Dtype::f32) return to_mask<float>(stream, c, mask);
    to_mask<bfloat16>(stream, c, mask);
}

void relu_by_mask(Stream& stream, const Tensor& c, const ConstTensor& mask) {
    if (c.dtype == Dtype::f32) return by_mask<float>(stream, c, mask);
    by_mask<bfloat16>(stream, c, mask);
}

}  // namespace rf::cuda
