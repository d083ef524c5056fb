#include "kernels/bias.hpp"

#include "core/op_log.hpp"
#include "kernels/dispatch.hpp"

#include <vector>

namespace rf {

void add_bias(Stream& stream, const AddBias& a) {
    RF_REQUIRE(a.y.shape.rank == 2 && a.bias.shape == Shape{a.y.shape[1]}, "bias must be [L] and y [M, L], not ", a.bias.shape, " and ", a.y.shape);
    RF_REQUIRE(a.y.dtype == accumulator_of(a.bias.dtype), "y must have the accumulator dtype of the bias");
    if constexpr (has_cuda)
        if (stream.device() == Device::cuda) return cuda::add_bias(stream, a);
    const OpScope scope(stream, {.name = "add_bias"});
    const std::int64_t m = a.y.shape[0], l = a.y.shape[1];
    dispatch(a.bias.dtype, [&](auto type) {
        using T = decltype(type);
        using R = simd::Real<T>;
        std::vector<R> wide(static_cast<std::size_t>(l));
        rows_of<T>().widen(raw<T>(a.bias), wide.data(), l);
#pragma omp parallel for schedule(static)
        for (std::int64_t i = 0; i < m; ++i) rows_of<R>().add(wide.data(), raw<R>(a.y) + i * l, l);
    });
}

void add_bias_backward(Stream& stream, const AddBiasBackward& a) {
    RF_REQUIRE(a.dy.shape.rank == 2 && a.d_bias.shape == Shape{a.dy.shape[1]}, "d_bias must be [L] and dy [M, L], not ", a.d_bias.shape, " and ", a.dy.shape);
    RF_REQUIRE(a.d_bias.dtype == accumulator_of(a.dy.dtype), "d_bias must have the accumulator dtype of dy");
    if constexpr (has_cuda)
        if (stream.device() == Device::cuda) return cuda::add_bias_backward(stream, a);
    const OpScope scope(stream, {.name = "add_bias_backward"});
    const std::int64_t m = a.dy.shape[0], l = a.dy.shape[1];
    dispatch(a.dy.dtype, [&](auto type) {
        using T = decltype(type);
        for (std::int64_t i = 0; i < m; ++i) rows_of<T>().accumulate(raw<T>(a.dy) + i * l, raw<simd::Real<T>>(a.d_bias), l);
    });
}

}  // namespace rf
