#include "kernels/relu.hpp"

#include "kernels/dispatch.hpp"

#include <algorithm>

namespace rf {

namespace {
constexpr std::int64_t run = 1 << 14;

/// body(begin, length) over [0, n) in runs, spread over threads.
template <class Body>
void for_runs(std::int64_t n, const Body& body) {
#pragma omp parallel for schedule(static)
    for (std::int64_t begin = 0; begin < n; begin += run) body(begin, std::min(run, n - begin));
}
}  // namespace

void relu(Stream& stream, const Relu& a) {
    require_cpu(stream);
    RF_REQUIRE(a.x.shape == a.y.shape && a.x.dtype == a.y.dtype, "relu of ", a.x.shape, " into ", a.y.shape);
    dispatch(a.x.dtype, [&](auto type) {
        using T = decltype(type);
        for_runs(a.x.count(), [&](std::int64_t i, std::int64_t n) { rows_of<T>().relu(raw<T>(a.x) + i, raw<T>(a.y) + i, n); });
    });
}

void relu_backward(Stream& stream, const ReluBackward& a) {
    require_cpu(stream);
    RF_REQUIRE(a.y.shape == a.dy.shape && a.dy.shape == a.dx.shape, "y, dy and dx must have one shape");
    dispatch(a.y.dtype, [&](auto type) {
        using T = decltype(type);
        for_runs(a.y.count(), [&](std::int64_t i, std::int64_t n) {
            rows_of<T>().relu_backward(raw<T>(a.y) + i, raw<T>(a.dy) + i, raw<T>(a.dx) + i, n);
        });
    });
}

}  // namespace rf
