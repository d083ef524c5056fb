#include "kernels/add_norm.hpp"

#include "core/op_log.hpp"
#include "kernels/dispatch.hpp"

#include <algorithm>
#include <vector>

namespace rf {

namespace cpu {

template <class T>
void add_norm(const AddNorm& a) {
    using R = simd::Real<T>;
    const std::int64_t tokens = a.f.shape[0], c = a.f.shape[1];
    const auto row_function = rows_of<T>().add_norm;
    const double alpha = a.alpha.read();
#pragma omp parallel
    {
        std::vector<R> z(static_cast<std::size_t>(c));
#pragma omp for schedule(static)
        for (std::int64_t t = 0; t < tokens; ++t) {
            const R inv_rms = row_function({.x = a.x ? raw<T>(a.x) + t * c : nullptr,
                                            .f = raw<T>(a.f) + t * c,
                                            .y = raw<T>(a.y) + t * c,
                                            .z = z.data(),
                                            .n = c,
                                            .alpha = alpha,
                                            .epsilon = a.epsilon,
                                            .normalise = a.normalise},
                                           drop_row(a.dropout, a.origin, t));
            if (a.inv_rms) raw<R>(a.inv_rms)[t] = inv_rms;
        }
    }
}

/// Tokens are summed in blocks of this many, blocks in order: the sum does not depend on the threads.
constexpr std::int64_t alpha_block = 64;

template <class T>
void add_norm_backward(const AddNormBackward& a) {
    using R = simd::Real<T>;
    const std::int64_t tokens = a.dy.shape[0], c = a.dy.shape[1];
    const std::int64_t blocks = (tokens + alpha_block - 1) / alpha_block;
    const auto row_function = rows_of<T>().add_norm_backward;
    const double alpha = a.dx ? a.alpha.read() : 1;
    std::vector<R> sums(static_cast<std::size_t>(blocks), 0);
#pragma omp parallel for schedule(static)
    for (std::int64_t b = 0; b < blocks; ++b) {
        for (std::int64_t t = b * alpha_block; t < std::min(tokens, (b + 1) * alpha_block); ++t) {
            sums[static_cast<std::size_t>(b)] += row_function({.dy = raw<T>(a.dy) + t * c,
                                                               .y = a.y ? raw<T>(a.y) + t * c : nullptr,
                                                               .f = a.d_alpha ? raw<T>(a.f) + t * c : nullptr,
                                                               .dx = a.dx ? raw<T>(a.dx) + t * c : nullptr,
                                                               .df = raw<T>(a.df) + t * c,
                                                               .n = c,
                                                               .inv_rms = a.normalise ? raw<R>(a.inv_rms)[t] : R{1},
                                                               .alpha = alpha,
                                                               .normalise = a.normalise},
                                                              drop_row(a.dropout, a.origin, t));
        }
    }
    if (a.d_alpha)
        for (const R sum : sums) *raw<R>(a.d_alpha) += sum;
}

}  // namespace cpu

void add_norm(Stream& stream, const AddNorm& a) {
    RF_REQUIRE(a.f.shape.rank == 2 && a.y.shape == a.f.shape && (!a.x || a.x.shape == a.f.shape), "x, f and y must be one [T, C]");
    RF_REQUIRE(!a.normalise || a.inv_rms.shape == Shape{a.f.shape[0]}, "inv_rms must be [T]");
    require_origin(a.dropout, a.origin, a.f.shape[0]);
    if constexpr (has_cuda)
        if (stream.device() == Device::cuda) return cuda::add_norm(stream, a);
    const OpScope scope(stream, {.name = "add_norm", .bytes = bytes_of(a.x, a.f, a.y)});
    dispatch(a.f.dtype, [&](auto type) { cpu::add_norm<decltype(type)>(a); });
}

void add_norm_backward(Stream& stream, const AddNormBackward& a) {
    RF_REQUIRE(a.dy.shape.rank == 2 && a.df.shape == a.dy.shape, "dy and df must be one [T, C]");
    RF_REQUIRE(!a.normalise || (a.y.shape == a.dy.shape && a.inv_rms.shape == Shape{a.dy.shape[0]}), "y must be [T, C] and inv_rms [T]");
    RF_REQUIRE(!a.d_alpha || a.f.shape == a.dy.shape, "d_alpha needs f [T, C]");
    require_origin(a.dropout, a.origin, a.dy.shape[0]);
    if constexpr (has_cuda)
        if (stream.device() == Device::cuda) return cuda::add_norm_backward(stream, a);
    const OpScope scope(stream, {.name = "add_norm_backward", .bytes = bytes_of(a.dy, a.y, a.dx, a.df)});
    dispatch(a.dy.dtype, [&](auto type) { cpu::add_norm_backward<decltype(type)>(a); });
}

}  // namespace rf
