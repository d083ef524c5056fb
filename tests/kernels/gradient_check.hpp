#pragma once
/// Numbers to try ops on, and backward passes against differences of the forward pass.

#include "core/cpu.hpp"
#include "core/dtype.hpp"
#include "core/philox.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace rf::test {

/// n numbers in [-1, 1), a fixed function of `stream`.
inline std::vector<double> numbers(std::int64_t n, std::uint32_t stream) {
    std::vector<double> out(static_cast<std::size_t>(n));
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = 2 * uniform(philox({static_cast<std::uint32_t>(i), stream, 0, 0}, {1, 1})[0]) - 1;
    return out;
}

/// The same as a dtype holds them: what a reference in f64 must start from.
inline std::vector<double> rounded(std::vector<double> x, Dtype dtype) {
    for (double& v : x) v = dtype == Dtype::f64 ? v : dtype == Dtype::f32 ? static_cast<float>(v) : static_cast<float>(bfloat16(static_cast<float>(v)));
    return x;
}

inline double dot(const std::vector<double>& a, const std::vector<double>& b) {
    double sum = 0;
    for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
    return sum;
}

/// Acceptance bound of f64 gradients against central differences, relative to the largest element of the gradient.
constexpr double gradient_bound = 1e-7;

/// Largest difference between the gradient `exact` of f at x and fourth-order central differences, relative to its largest
/// element. With h = 1e-3 truncation (h^4) and rounding (2^-53 / h) both stay near 1e-12. Every `stride`-th element is tried.
/// The thousands of tiny ops run on one thread: starting more would take longer than their work.
template <class F>
double worst_difference(std::vector<double> x, const std::vector<double>& exact, const F& f, std::size_t stride = 1) {
    constexpr double h = 1e-3;
    const int threads = thread_count();
    set_thread_count(1);
    double worst = 0, scale = 0;
    for (const double g : exact) scale = std::max(scale, std::abs(g));
    for (std::size_t i = 0; i < x.size(); i += stride) {
        const double kept = x[i];
        const auto at = [&](double d) {
            x[i] = kept + d;
            return f(x);
        };
        const double numeric = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h);
        x[i] = kept;
        worst = std::max(worst, std::abs(numeric - exact[i]) / scale);
    }
    set_thread_count(threads);
    return worst;
}

}  // namespace rf::test
