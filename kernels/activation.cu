#include "kernels/activation.hpp"

#include "kernels/nvidia/row.cuh"

#include <cmath>

namespace rf {

namespace {

using namespace device;

constexpr int threads = 256;

template <class T>
struct Rows {
    const T* bias;  // null where absent
    T *x, *y;       // y: null without an activation
    std::int64_t eights;  ///< pieces of eight elements, of all rows; those at a row's end may be short
    int l, per_row;
    Activation activation;
};

/// Phi(x) of the normal distribution.
__device__ inline float below(float x) { return 0.5F * erfcf(x * -0.70710678118654752F); }

/// Two lanes a pair of pieces (load_eight), one piece a lane; rows are walked as one list of pieces, an even number a row.
template <class T, bool Whole>
__global__ void __launch_bounds__(threads) bias_activation_kernel(Rows<T> a) {
    const std::int64_t piece = std::int64_t{blockIdx.x} * threads + threadIdx.x;
    const std::int64_t row = piece / a.per_row;
    const int e = static_cast<int>(piece % a.per_row), n = piece < a.eights ? a.l : 0;
    T* at = a.x + (n > 0 ? row : 0) * a.l;
    const Eight<T> x = load_eight<Whole>(at, e, n);
    Eight<T> bias{};
    if (a.bias) bias = load_eight<Whole>(a.bias, e, n);
    float v[8];
#pragma unroll
    for (int k = 0; k < 8; ++k) v[k] = x[k] + bias[k];
    if (a.bias) store_eight<Whole>(at, e, n, v);
    if (a.activation == Activation::none) return;
    const Eight<T> kept = make_eight<T>(v);  // what backward will read
#pragma unroll
    for (int k = 0; k < 8; ++k) v[k] = a.activation == Activation::gelu ? kept[k] * below(kept[k]) : kept[k] < 0 ? 0.0F : kept[k];
    store_eight<Whole>(a.y + (n > 0 ? row : 0) * a.l, e, n, v);
}

/// The split of bias_activation_kernel over one flat list.
template <class T, bool Whole>
__global__ void __launch_bounds__(threads) activation_backward_kernel(const T* x, const T* dy, T* dx, std::int64_t count, Activation activation) {
    constexpr std::int64_t block_elements = 8 * threads;
    const std::int64_t first = std::int64_t{blockIdx.x} * block_elements;
    const int n = static_cast<int>(count - first < block_elements ? count - first : block_elements), e = static_cast<int>(threadIdx.x);
    const Eight<T> at = load_eight<Whole>(x + first, e, n), given = load_eight<Whole>(dy + first, e, n);
    float v[8];
#pragma unroll
    for (int k = 0; k < 8; ++k)
        v[k] = activation == Activation::gelu ? given[k] * (below(at[k]) + at[k] * 0.39894228040143268F * expf(at[k] * at[k] * -0.5F)) : at[k] > 0 ? given[k] : 0.0F;
    store_eight<Whole>(dx + first, e, n, v);
}

}  // namespace

namespace cuda {

void bias_activation(Stream& stream, const BiasActivation& a) {
    const std::int64_t m = a.x.shape[0], l = a.x.shape[1];
    const int per_row = static_cast<int>((l + 15) / 16) * 2;
    device::dispatch(a.x.dtype, [&](auto type) {
        using T = decltype(type);
        const Rows<T> rows{.bias = a.bias ? a.bias.as<T>() : nullptr, .x = a.x.as<T>(), .y = a.y ? a.y.as<T>() : nullptr, .eights = m * per_row,
                           .l = narrow(l, "L"), .per_row = per_row, .activation = a.activation};
        launch({.name = "bias_activation", .grid = dim3(blocks_for(rows.eights, threads)), .block = dim3(threads), .stream = stream.handle()},
               whole_packs(l, {rows.bias, rows.x, rows.y}) ? bias_activation_kernel<T, true> : bias_activation_kernel<T, false>, rows);
    });
}

void activation_backward(Stream& stream, const ActivationBackward& a) {
    device::dispatch(a.x.dtype, [&](auto type) {
        using T = decltype(type);
        const T *x = a.x.as<T>(), *dy = a.dy.as<T>();
        T* dx = a.dx.as<T>();
        launch({.name = "activation_backward", .grid = dim3(blocks_for(a.x.count(), 8 * threads)), .block = dim3(threads), .stream = stream.handle()},
               whole_packs(a.x.count(), {x, dy, dx}) ? activation_backward_kernel<T, true> : activation_backward_kernel<T, false>, x, dy, dx, a.x.count(), a.activation);
    });
}

}  // namespace cuda

}  // namespace rf
