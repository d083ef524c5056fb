#include "kernels/bias.hpp"

#include "kernels/nvidia/row.cuh"

namespace rf {

namespace {

using namespace device;

constexpr int threads = 256, sum_warps = 32;

/// One thread an element.
template <class T>
__global__ void __launch_bounds__(threads) add_bias_kernel(const T* bias, float* y, std::int64_t n, int l) {
    const std::int64_t i = std::int64_t{blockIdx.x} * threads + threadIdx.x;
    if (i < n) store(y + i, load(y + i) + to_float(load(bias + i % l)));
}

struct ColumnSums {
    float of[sum_warps][32];
};

/// One block 32 columns: a lane a column, a warp every 32nd row in order, then the warps in order.
template <class T>
__global__ void __launch_bounds__(32 * sum_warps) add_bias_backward_kernel(const T* dy, float* d_bias, int m, int l) {
    ColumnSums& sums = shared_memory<ColumnSums>();
    const int column = static_cast<int>(blockIdx.x) * 32 + lane();
    float mine = 0;
    if (column < l)
        for (int row = warp(); row < m; row += sum_warps) mine += to_float(load(dy + std::int64_t{row} * l + column));
    store_shared(&sums.of[warp()][lane()], mine);
    block_barrier();
    if (warp() != 0 || column >= l) return;
    for (int w = 1; w < sum_warps; ++w) mine += load_shared(&sums.of[w][lane()]);
    store(d_bias + column, load(d_bias + column) + mine);
}

}  // namespace

namespace cuda {

void add_bias(Stream& stream, const AddBias& a) {
    const std::int64_t n = a.y.count();
    device::dispatch(a.bias.dtype, [&](auto type) {
        using T = decltype(type);
        launch({.name = "add_bias", .grid = dim3(blocks_for(n, threads)), .block = dim3(threads), .stream = stream.handle()}, add_bias_kernel<T>,
               a.bias.as<T>(), a.y.as<float>(), n, narrow(a.y.shape[1], "L"));
    });
}

void add_bias_backward(Stream& stream, const AddBiasBackward& a) {
    const int m = narrow(a.dy.shape[0], "M"), l = narrow(a.dy.shape[1], "L");
    device::dispatch(a.dy.dtype, [&](auto type) {
        using T = decltype(type);
        launch({.name = "add_bias_backward", .grid = dim3(blocks_for(l, 32)), .block = dim3(32 * sum_warps), .shared = sizeof(ColumnSums),
                .stream = stream.handle()},
               add_bias_backward_kernel<T>, a.dy.as<T>(), a.d_bias.as<float>(), m, l);
    });
}

}  // namespace cuda

}  // namespace rf
