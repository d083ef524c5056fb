#include "kernels/cross_entropy.hpp"

#include "core/op_log.hpp"
#include "kernels/dispatch.hpp"

#include <cmath>

namespace rf {

void softmax_stats(Stream& stream, const SoftmaxStats& a) {
    const std::int64_t m = a.logits.shape[0], v = a.logits.shape[1];
    RF_REQUIRE(v > 0 && a.targets.shape == Shape{m} && (a.stats.shape == Shape{4, m}), "stats must be [4, M]");
    RF_REQUIRE(a.logits.dtype != Dtype::bf16, "logits are f32 or f64");
    if constexpr (has_cuda)
        if (stream.device() == Device::cuda) return cuda::softmax_stats(stream, a);
    const OpScope scope(stream, {.name = "softmax_stats", .bytes = bytes_of(a.logits)});
    const std::int32_t* targets = indices(a.targets);
    dispatch(a.logits.dtype, [&](auto type) {
        using R = simd::Real<decltype(type)>;
#pragma omp parallel for schedule(static)
        for (std::int64_t i = 0; i < m; ++i) {
            const R* row = raw<R>(a.logits) + i * v;
            R* stats = raw<R>(a.stats) + i;
            R maximum = 0;
            const std::int64_t best = reals_of<R>().largest(row, v, &maximum);
            const std::int64_t target = targets[i] - a.first_id;
            stats[0] = maximum;
            stats[m] = reals_of<R>().exp_sum(row, v, maximum);
            stats[2 * m] = target >= 0 && target < v ? row[target] : R{0};
            stats[3 * m] = static_cast<R>(best + a.first_id);
        }
    });
}

void join_softmax_stats(Stream& stream, const JoinSoftmaxStats& a) {
    const std::int64_t ranks = a.parts.shape[0], m = a.parts.shape[2];
    RF_REQUIRE((a.whole.shape == Shape{4, m}), "whole must be [4, M]");
    if constexpr (has_cuda)
        if (stream.device() == Device::cuda) return cuda::join_softmax_stats(stream, a);
    const OpScope scope(stream, {.name = "join_softmax_stats", .bytes = bytes_of(a.parts, a.whole)});
    dispatch(a.parts.dtype, [&](auto type) {
        using R = simd::Real<decltype(type)>;
        for (std::int64_t i = 0; i < m; ++i) {
            const auto part = [&](std::int64_t rank, std::int64_t what) { return raw<R>(a.parts)[(rank * 4 + what) * m + i]; };
            R maximum = part(0, 0), id = part(0, 3), sum = 0, target = 0;
            for (std::int64_t r = 1; r < ranks; ++r)
                if (part(r, 0) > maximum) maximum = part(r, 0), id = part(r, 3);
            for (std::int64_t r = 0; r < ranks; ++r) {
                sum += part(r, 1) * std::exp(part(r, 0) - maximum);
                target += part(r, 2);
            }
            const R whole[4] = {maximum, sum, target, id};
            for (std::int64_t k = 0; k < 4; ++k) raw<R>(a.whole)[k * m + i] = whole[k];
        }
    });
}

void cross_entropy_sums(Stream& stream, const CrossEntropySums& a) {
    const std::int64_t m = a.targets.shape[0];
    RF_REQUIRE((a.whole_stats.shape == Shape{4, m}) && a.sums.shape == Shape{2} && a.sums.dtype == Dtype::f64, "sums must be [2] f64 and whole_stats [4, M]");
    if constexpr (has_cuda)
        if (stream.device() == Device::cuda) return cuda::cross_entropy_sums(stream, a);
    const OpScope scope(stream, {.name = "cross_entropy_sums", .bytes = bytes_of(a.whole_stats, a.targets)});
    double* sums = a.sums.as<double>();
    const std::int32_t* targets = indices(a.targets);
    dispatch(a.whole_stats.dtype, [&](auto type) {
        using R = simd::Real<decltype(type)>;
        const R* stats = raw<R>(a.whole_stats);
        for (std::int64_t i = 0; i < m; ++i) {
            if (targets[i] < 0) continue;
            sums[0] += std::log(static_cast<double>(stats[m + i])) + static_cast<double>(stats[i]) - static_cast<double>(stats[2 * m + i]);
            sums[1] += stats[3 * m + i] == static_cast<R>(targets[i]);
        }
    });
}

void cross_entropy_backward(Stream& stream, const CrossEntropyBackward& a) {
    const std::int64_t m = a.logits.shape[0], v = a.logits.shape[1];
    RF_REQUIRE(a.d_logits.shape == a.logits.shape && (a.whole_stats.shape == Shape{4, m}), "d_logits must be [M, v] and whole_stats [4, M]");
    RF_REQUIRE(a.logits.dtype == accumulator_of(a.d_logits.dtype), "logits must have the accumulator dtype of d_logits");
    if constexpr (has_cuda)
        if (stream.device() == Device::cuda) return cuda::cross_entropy_backward(stream, a);
    const OpScope scope(stream, {.name = "cross_entropy_backward", .bytes = bytes_of(a.logits, a.d_logits)});
    const double factor = a.factor.read();
    const std::int32_t* targets = indices(a.targets);
    dispatch(a.d_logits.dtype, [&](auto type) {
        using T = decltype(type);
        using R = simd::Real<T>;
        const R* stats = raw<R>(a.whole_stats);
#pragma omp parallel for schedule(static)
        for (std::int64_t i = 0; i < m; ++i)
            rows_of<T>().softmax_gradient(raw<R>(a.logits) + i * v, raw<T>(a.d_logits) + i * v, v, {.maximum = stats[i], .sum = stats[m + i]},
                                          targets[i] - a.first_id, static_cast<R>(targets[i] < 0 ? 0 : factor));
    });
}

}  // namespace rf
