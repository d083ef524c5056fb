#include "kernels/activation.hpp"

#include "core/op_log.hpp"
#include "kernels/dispatch.hpp"

namespace rf {

void bias_activation(Stream& stream, const BiasActivation& a) {
    RF_REQUIRE(a.x.shape.rank == 2 && (!a.bias || (a.bias.shape == Shape{a.x.shape[1]} && a.bias.dtype == a.x.dtype)), "bias must be [L] and x [M, L] of one dtype");
    RF_REQUIRE((a.activation == Activation::none) == !a.y && (!a.y || (a.y.shape == a.x.shape && a.y.dtype == a.x.dtype)),
               "y must be [M, L] like x, and absent without an activation");
    if constexpr (has_cuda)
        if (stream.device() == Device::cuda) return cuda::bias_activation(stream, a);
    const OpScope scope(stream, {.name = "bias_activation", .bytes = bytes_of(a.x, a.x, a.y)});
    const std::int64_t m = a.x.shape[0], l = a.x.shape[1];
    dispatch(a.x.dtype, [&](auto type) {
        using T = decltype(type);
#pragma omp parallel for schedule(static)
        for (std::int64_t i = 0; i < m; ++i) {
            T* x = raw<T>(a.x) + i * l;
            if (a.bias) rows_of<T>().add(raw<T>(a.bias), x, l);
            if (a.activation == Activation::relu) rows_of<T>().positive(x, raw<T>(a.y) + i * l, l);
            if (a.activation == Activation::gelu) rows_of<T>().gelu(x, raw<T>(a.y) + i * l, l);
        }
    });
}

void activation_backward(Stream& stream, const ActivationBackward& a) {
    RF_REQUIRE(a.x.shape.rank == 2 && a.dy.shape == a.x.shape && a.dx.shape == a.x.shape && a.dy.dtype == a.x.dtype && a.dx.dtype == a.x.dtype,
               "x, dy and dx must be [M, L] of one dtype");
    RF_REQUIRE(a.activation != Activation::none, "no activation has no backward pass of its own");
    if constexpr (has_cuda)
        if (stream.device() == Device::cuda) return cuda::activation_backward(stream, a);
    const OpScope scope(stream, {.name = "activation_backward", .bytes = bytes_of(a.x, a.dy, a.dx)});
    const std::int64_t m = a.x.shape[0], l = a.x.shape[1];
    dispatch(a.x.dtype, [&](auto type) {
        using T = decltype(type);
        const auto row_function = a.activation == Activation::relu ? rows_of<T>().positive_backward : rows_of<T>().gelu_backward;
#pragma omp parallel for schedule(static)
        for (std::int64_t i = 0; i < m; ++i) row_function(raw<T>(a.x) + i * l, raw<T>(a.dy) + i * l, raw<T>(a.dx) + i * l, l);
    });
}

}  // namespace rf
