#include "kernels/position.hpp"

#include "kernels/nvidia/row.cuh"

namespace rf {

namespace {

using namespace device;

constexpr int warps = 8;

/// One warp a token, 8 tokens a block; any c, 256 channels a round.
template <class T, bool Whole>
__global__ void __launch_bounds__(32 * warps) add_position_kernel(const std::int32_t* position, const T* table, T* y, int tokens, int c) {
    const int token = static_cast<int>(blockIdx.x) * warps + warp();
    if (token >= tokens) return;
    const T* from = table + std::int64_t{load(position + token)} * c;
    T* row = y + std::int64_t{token} * c;
    for (int first = 0; 8 * first < c; first += 32) {
        const int e = first + lane();
        const Eight<T> a = load_eight<Whole>(row, e, c), b = load_eight<Whole>(from, e, c);
        float sum[8];
#pragma unroll
        for (int k = 0; k < 8; ++k) sum[k] = a[k] + b[k];
        store_eight<Whole>(row, e, c, sum);
    }
}

/// One block a position and 1024 channels, eight channels a thread: the sequences in order.
template <class T, bool Whole>
__global__ void __launch_bounds__(128) add_position_backward_kernel(const std::int32_t* bounds, int sequences, const T* dy, float* d_table, int c) {
    const int p = static_cast<int>(blockIdx.x), e = static_cast<int>(blockIdx.y) * 128 + static_cast<int>(threadIdx.x);
    float sum[8] = {};
    bool any = false;
    for (int s = 0; s < sequences; ++s) {
        const int begin = load(bounds + s);
        if (p >= load(bounds + s + 1) - begin) continue;
        any = true;
        const Eight<T> row = load_eight<Whole>(dy + (std::int64_t{begin} + p) * c, e, c);
#pragma unroll
        for (int k = 0; k < 8; ++k) sum[k] += row[k];
    }
    if (!any) return;
    float* to = d_table + std::int64_t{p} * c;
    const Eight<float> before = load_eight<Whole>(to, e, c);
#pragma unroll
    for (int k = 0; k < 8; ++k) sum[k] += before[k];
    store_eight<Whole>(to, e, c, sum);
}

}  // namespace

namespace cuda {

void add_position(Stream& stream, const AddPosition& a) {
    device::dispatch(a.y.dtype, [&](auto type) {
        using T = decltype(type);
        const int tokens = narrow(a.y.shape[0], "T"), c = narrow(a.y.shape[1], "C");
        launch({.name = "add_position", .grid = dim3(blocks_for(tokens, warps)), .block = dim3(32 * warps), .stream = stream.handle()},
               whole_packs(c, {a.table.data, a.y.data}) ? add_position_kernel<T, true> : add_position_kernel<T, false>, a.position.as<std::int32_t>(), a.table.as<T>(),
               a.y.as<T>(), tokens, c);
    });
}

void add_position_backward(Stream& stream, const AddPositionBackward& a) {
    device::dispatch(a.dy.dtype, [&](auto type) {
        using T = decltype(type);
        const int positions = narrow(a.d_table.shape[0], "P"), c = narrow(a.dy.shape[1], "C"), sequences = narrow(a.cu_seqlens.shape[0] - 1, "S");
        launch({.name = "add_position_backward", .grid = dim3(static_cast<unsigned>(positions), blocks_for(c, 1024)), .block = dim3(128), .stream = stream.handle()},
               whole_packs(c, {a.dy.data, a.d_table.data}) ? add_position_backward_kernel<T, true> : add_position_backward_kernel<T, false>, a.cu_seqlens.as<std::int32_t>(),
               sequences, a.dy.as<T>(), a.d_table.as<float>(), c);
    });
}

}  // namespace cuda

}  // namespace rf
