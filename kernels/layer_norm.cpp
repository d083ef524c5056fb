#include "kernels/layer_norm.hpp"

#include "core/op_log.hpp"
#include "kernels/dispatch.hpp"

#include <algorithm>
#include <vector>

namespace rf {

namespace cpu {

template <class T>
void layer_norm(const LayerNorm& a) {
    using R = simd::Real<T>;
    const std::int64_t tokens = a.f.shape[0], c = a.f.shape[1];
    const double alpha = a.alpha.read();
#pragma omp parallel
    {
        std::vector<R> z(static_cast<std::size_t>(c));
#pragma omp for schedule(static)
        for (std::int64_t t = 0; t < tokens; ++t)
            raw<R>(a.inv_std)[t] = rows_of<T>().layer_norm({.x = a.x ? raw<T>(a.x) + t * c : nullptr,
                                                            .f = raw<T>(a.f) + t * c,
                                                            .gain = a.gain ? raw<T>(a.gain) : nullptr,
                                                            .bias = a.bias ? raw<T>(a.bias) : nullptr,
                                                            .normalised = raw<T>(a.normalised) + t * c,
                                                            .y = raw<T>(a.y) + t * c,
                                                            .z = z.data(),
                                                            .n = c,
                                                            .alpha = alpha,
                                                            .epsilon = a.epsilon,
                                                            .centre = a.centre},
                                                           drop_row(a.dropout, a.origin, t));
    }
}

/// Columns that one thread sums over all tokens.
constexpr std::int64_t column_block = 64;

template <class T>
void sum_columns(const LayerNormBackward& a) {
    using R = simd::Real<T>;
    const std::int64_t tokens = a.dy.shape[0], c = a.dy.shape[1];
#pragma omp parallel for schedule(static)
    for (std::int64_t begin = 0; begin < c; begin += column_block) {
        const std::int64_t n = std::min(column_block, c - begin);
        for (std::int64_t t = 0; t < tokens; ++t) {
            const T* dy = raw<T>(a.dy) + t * c + begin;
            if (a.d_gain) rows_of<T>().accumulate_product(dy, raw<T>(a.normalised) + t * c + begin, raw<R>(a.d_gain) + begin, n);
            if (a.d_bias) rows_of<T>().accumulate(dy, raw<R>(a.d_bias) + begin, n);
        }
    }
}

template <class T>
void layer_norm_backward(const LayerNormBackward& a) {
    using R = simd::Real<T>;
    const std::int64_t tokens = a.dy.shape[0], c = a.dy.shape[1];
    const double alpha = a.dx ? a.alpha.read() : 1;
    if (a.d_gain || a.d_bias) sum_columns<T>(a);  // before dx takes the place of dy
#pragma omp parallel for schedule(static)
    for (std::int64_t t = 0; t < tokens; ++t)
        rows_of<T>().layer_norm_backward({.dy = raw<T>(a.dy) + t * c,
                                          .normalised = raw<T>(a.normalised) + t * c,
                                          .gain = a.gain ? raw<T>(a.gain) : nullptr,
                                          .dx = a.dx ? raw<T>(a.dx) + t * c : nullptr,
                                          .df = raw<T>(a.df) + t * c,
                                          .n = c,
                                          .inv_std = raw<R>(a.inv_std)[t],
                                          .alpha = alpha,
                                          .centre = a.centre},
                                         drop_row(a.dropout, a.origin, t));
}

}  // namespace cpu

void layer_norm(Stream& stream, const LayerNorm& a) {
    RF_REQUIRE(a.f.shape.rank == 2 && a.y.shape == a.f.shape && a.normalised.shape == a.f.shape && (!a.x || a.x.shape == a.f.shape),
               "x, f, normalised and y must be one [T, C]");
    const std::int64_t tokens = a.f.shape[0], c = a.f.shape[1];
    RF_REQUIRE((!a.gain || a.gain.shape == Shape{c}) && (!a.bias || a.bias.shape == Shape{c}) && a.inv_std.shape == Shape{tokens},
               "gain and bias must be [C] and inv_std [T]");
    RF_REQUIRE(a.y.data != a.normalised.data || (!a.gain && !a.bias) || tokens == 0, "with a gain or a bias, y needs a place of its own");
    require_origin(a.dropout, a.origin, tokens);
    if constexpr (has_cuda)
        if (stream.device() == Device::cuda) return cuda::layer_norm(stream, a);
    const OpScope scope(stream, {.name = "layer_norm", .bytes = bytes_of(a.x, a.f, a.normalised, a.y)});
    dispatch(a.f.dtype, [&](auto type) { cpu::layer_norm<decltype(type)>(a); });
}

void layer_norm_backward(Stream& stream, const LayerNormBackward& a) {
    RF_REQUIRE(a.dy.shape.rank == 2 && a.df.shape == a.dy.shape && a.normalised.shape == a.dy.shape && (!a.dx || a.dx.shape == a.dy.shape),
               "dy, normalised, dx and df must be one [T, C]");
    const std::int64_t tokens = a.dy.shape[0], c = a.dy.shape[1];
    RF_REQUIRE((!a.gain || a.gain.shape == Shape{c}) && a.inv_std.shape == Shape{tokens}, "gain must be [C] and inv_std [T]");
    for (const Tensor& sum : {a.d_gain, a.d_bias})
        RF_REQUIRE(!sum || (sum.shape == Shape{c} && sum.dtype == accumulator_of(a.dy.dtype)), "d_gain and d_bias must be [C] of the accumulator dtype");
    require_origin(a.dropout, a.origin, tokens);
    if constexpr (has_cuda)
        if (stream.device() == Device::cuda) return cuda::layer_norm_backward(stream, a);
    const OpScope scope(stream, {.name = "layer_norm_backward", .bytes = bytes_of(a.dy, a.normalised, a.dx, a.df)});
    dispatch(a.dy.dtype, [&](auto type) { cpu::layer_norm_backward<decltype(type)>(a); });
}

}  // namespace rf
