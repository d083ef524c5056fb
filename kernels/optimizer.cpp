#include "kernels/optimizer.hpp"

#include "core/op_log.hpp"
#include "kernels/dispatch.hpp"

#include <algorithm>
#include <cmath>

namespace rf {

namespace {

template <class R>
simd::MomentRule<R> convert(const MomentRule& u, const Segment& segment, const double* control) {
    return {.beta1 = static_cast<R>(u.beta1), .rest1 = static_cast<R>(1 - u.beta1), .beta2 = static_cast<R>(u.beta2),
            .rest2 = static_cast<R>(1 - u.beta2), .epsilon = static_cast<R>(u.epsilon), .decay = static_cast<R>(segment.decays != 0 ? u.decay : 0),
            .correction1 = static_cast<R>(control[control_correction1]), .correction2 = static_cast<R>(control[control_correction2]),
            .gradient_factor = static_cast<R>(control[control_gradient_factor])};
}

template <class R>
simd::MomentRun<R> run_of(const OptimizerShard& s, const Segment& segment) {
    const std::int64_t at = segment.begin - s.offset;
    return {raw<R>(s.weight) + at, s.m ? raw<R>(s.m) + at : nullptr, s.v ? raw<R>(s.v) + at : nullptr, raw<R>(s.gradient) + at,
            segment.end - segment.begin};
}

std::int64_t segment_count(const OptimizerShard& shard) { return shard.segments.count() / static_cast<std::int64_t>(sizeof(Segment)); }

void check_shard(const OptimizerShard& shard) {
    RF_REQUIRE(shard.weight.dtype == Dtype::f32 || shard.weight.dtype == Dtype::f64, "optimizer state is f32 or f64");
    RF_REQUIRE(shard.segments.count() % static_cast<std::int64_t>(sizeof(Segment)) == 0, "segments hold whole Segments");
}
void check_sums(const OptimizerShard& shard, const Tensor& sums) {
    check_shard(shard);
    RF_REQUIRE((sums.shape == Shape{segment_count(shard), sum_columns}) && sums.dtype == Dtype::f64, "sums must be [", segment_count(shard), ", 3] f64");
}
void check_control(const ConstTensor& control) {
    RF_REQUIRE(control.shape == Shape{control_slots} && control.dtype == Dtype::f64, "control must be [", int{control_slots}, "] f64");
}

/// body(R{}, segment, number) over all segments, spread over threads; each touches only its own elements.
template <class Body>
void for_segments(const OptimizerShard& shard, const Body& body) {
    const auto* segments = static_cast<const Segment*>(shard.segments.data);
    dispatch(shard.weight.dtype, [&](auto type) {
        using R = simd::Real<decltype(type)>;
#pragma omp parallel for schedule(static)
        for (std::int64_t i = 0; i < segment_count(shard); ++i) body(R{}, segments[i], i);
    });
}

}  // namespace

void gradient_sums(Stream& stream, const OptimizerShard& shard, const Tensor& sums, const ConstTensor& other) {
    check_sums(shard, sums);
    RF_REQUIRE(!other || (other.count() == shard.gradient.count() && other.dtype == shard.gradient.dtype), "other must be like the gradient, ",
               shard.gradient.shape, ", not ", other.shape);
    if constexpr (has_cuda)
        if (stream.device() == Device::cuda) return cuda::gradient_sums(stream, shard, sums, other);
    const OpScope scope(stream, {.name = "gradient_sums", .bytes = bytes_of(shard.gradient, other)});
    for_segments(shard, [&](auto type, const Segment& segment, std::int64_t i) {
        using R = decltype(type);
        const auto run = run_of<R>(shard, segment);
        double* row = sums.as<double>() + i * sum_columns;
        row[weight_sum] = row[update_sum] = 0;
        const R* second = other ? raw<R>(other) + (segment.begin - shard.offset) : run.gradient;
        row[gradient_sum] = reals_of<R>().product_sum(run.gradient, second, run.n);
    });
}

void join_sums(Stream& stream, const JoinSums& a) {
    const std::int64_t groups = a.groups.shape[0];
    RF_REQUIRE(a.group_begin.shape == Shape{groups + 1} && a.counted.shape == Shape{groups}, "group_begin must be [G+1] and counted [G]");
    if constexpr (has_cuda)
        if (stream.device() == Device::cuda) return cuda::join_sums(stream, a);
    const OpScope scope(stream, {.name = "join_sums", .bytes = bytes_of(a.sums)});
    const auto* counted = static_cast<const std::uint8_t*>(a.counted.data);
    for (std::int64_t g = 0; g < groups; ++g) {
        double* total = a.groups.as<double>() + g * sum_columns;
        std::fill_n(total, int{sum_columns}, 0.0);
        if (!counted[g]) continue;
        for (std::int64_t i = indices(a.group_begin)[g]; i < indices(a.group_begin)[g + 1]; ++i)
            for (int column = 0; column < sum_columns; ++column) total[column] += a.sums.as<double>()[i * sum_columns + column];
    }
}

void judge_gradient(Stream& stream, const JudgeGradient& a) {
    check_control(a.control);
    RF_REQUIRE(!a.losses || a.losses.dtype == Dtype::f64, "losses must be f64");
    if constexpr (has_cuda)
        if (stream.device() == Device::cuda) return cuda::judge_gradient(stream, a);
    const OpScope scope(stream, {.name = "judge_gradient", .bytes = bytes_of(a.groups)});
    double square = 0, *control = a.control.as<double>();
    control[control_not_finite] = -1;
    for (std::int64_t g = 0; g < a.groups.shape[0]; ++g) {
        const double one = a.groups.as<double>()[g * sum_columns + gradient_sum];
        square += one;
        if (!std::isfinite(one)) control[control_not_finite] = static_cast<double>(g);
    }
    const double norm = std::sqrt(square);
    control[control_gradient_norm] = norm;
    control[control_gradient_factor] = a.max_norm > 0 && norm > a.max_norm ? a.max_norm / norm : 1;
    bool skip = control[control_not_finite] >= 0 || control[control_skipped] > static_cast<double>(a.skips_allowed);
    if (a.losses) skip = skip || !std::all_of(raw<double>(a.losses), raw<double>(a.losses) + a.losses.count(), [](double x) { return std::isfinite(x); });
    control[control_skipped] = skip ? control[control_skipped] + 1 : 0;
    control[control_apply] = skip ? 0 : 1;
}

void update_moments(Stream& stream, const OptimizerShard& shard, const MomentRule& rule, const ConstTensor& control, const Tensor& sums) {
    check_sums(shard, sums);
    check_control(control);
    if constexpr (has_cuda)
        if (stream.device() == Device::cuda) return cuda::update_moments(stream, shard, rule, control, sums);
    const OpScope scope(stream, {.name = "update_moments", .bytes = bytes_of(shard.weight, shard.gradient, shard.m, shard.m, shard.v, shard.v)});
    if (control.as<double>()[control_apply] == 0) return;
    for_segments(shard, [&](auto type, const Segment& segment, std::int64_t i) {
        using R = decltype(type);
        const simd::SquareSums s = reals_of<R>().update_moments(run_of<R>(shard, segment), convert<R>(rule, segment, control.as<double>()));
        double* row = sums.as<double>() + i * sum_columns;
        row[weight_sum] = s.weight;
        row[update_sum] = s.update;
        row[gradient_sum] = s.gradient;
    });
}

void update_rates(Stream& stream, const UpdateRates& a) {
    check_control(a.control);
    RF_REQUIRE(a.rates.shape == Shape{a.groups.shape[0]} && a.rates.dtype == Dtype::f64, "rates must be [G] f64");
    if constexpr (has_cuda)
        if (stream.device() == Device::cuda) return cuda::update_rates(stream, a);
    const OpScope scope(stream, {.name = "update_rates", .bytes = bytes_of(a.groups)});
    const double *control = a.control.as<double>(), lr = control[control_lr];
    for (std::int64_t g = 0; g < a.groups.shape[0]; ++g) {
        const double* sums = a.groups.as<double>() + g * sum_columns;
        double& rate = a.rates.as<double>()[g];
        rate = lr;
        if (control[control_apply] == 0 || (a.skip_zero_gradient && sums[gradient_sum] == 0)) {
            rate = 0;
        } else if (a.lamb) {
            // r = |p| / |delta / max(lr, 1e-7)| with delta = lr u; 1 where either norm is 0.
            const double weight = std::sqrt(sums[weight_sum]), delta = std::sqrt(sums[update_sum]) * (lr / std::max(lr, 1e-7));
            if (weight > 0 && delta > 0) rate = lr * weight / delta;
        }
    }
}

void apply_update(Stream& stream, const OptimizerShard& shard, const MomentRule& rule, const ConstTensor& control, const ConstTensor& rates) {
    check_shard(shard);
    check_control(control);
    if constexpr (has_cuda)
        if (stream.device() == Device::cuda) return cuda::apply_update(stream, shard, rule, control, rates);
    const OpScope scope(stream, {.name = "apply_update", .bytes = bytes_of(shard.weight, shard.weight, shard.m, shard.v)});
    for_segments(shard, [&](auto type, const Segment& segment, std::int64_t) {
        using R = decltype(type);
        const double rate = rates.as<double>()[segment.group];
        if (rate != 0) reals_of<R>().apply_update(run_of<R>(shard, segment), convert<R>(rule, segment, control.as<double>()), static_cast<R>(rate));
    });
}

namespace {
template <class R>
simd::MomentRule<R> adafactor_rule(double beta1, const double* control) {
    const double fresh = control[control_correction2];
    return {.beta1 = static_cast<R>(beta1), .rest1 = static_cast<R>(1 - beta1), .beta2 = static_cast<R>(1 - fresh), .rest2 = static_cast<R>(fresh),
            .epsilon = static_cast<R>(adafactor_tiny), .decay = 0, .correction1 = 1, .correction2 = 1,
            .gradient_factor = static_cast<R>(control[control_gradient_factor])};
}
}  // namespace

void adafactor_moments(Stream& stream, const OptimizerShard& shard, const ConstTensor& control, const Tensor& sums) {
    check_sums(shard, sums);
    check_control(control);
    if constexpr (has_cuda)
        if (stream.device() == Device::cuda) return cuda::adafactor_moments(stream, shard, control, sums);
    const OpScope scope(stream, {.name = "adafactor_moments", .bytes = bytes_of(shard.weight, shard.gradient, shard.v, shard.v)});
    if (control.as<double>()[control_apply] == 0) return;
    for_segments(shard, [&](auto type, const Segment& segment, std::int64_t i) {
        using R = decltype(type);
        const simd::SquareSums s = reals_of<R>().adafactor_moments(run_of<R>(shard, segment), adafactor_rule<R>(0, control.as<double>()));
        double* row = sums.as<double>() + i * sum_columns;
        row[weight_sum] = s.weight;
        row[update_sum] = s.update;
        row[gradient_sum] = s.gradient;
    });
}

void adafactor_rates(Stream& stream, const AdaFactorRates& a) {
    const std::int64_t groups = a.groups.shape[0];
    check_control(a.control);
    RF_REQUIRE((a.rates.shape == Shape{groups, 2}) && a.sizes.shape == Shape{groups}, "rates must be [G, 2] f64 and sizes [G] f64");
    if constexpr (has_cuda)
        if (stream.device() == Device::cuda) return cuda::adafactor_rates(stream, a);
    const OpScope scope(stream, {.name = "adafactor_rates", .bytes = bytes_of(a.groups)});
    const double* control = a.control.as<double>();
    for (std::int64_t g = 0; g < groups; ++g) {
        const double *sums = a.groups.as<double>() + g * sum_columns, size = a.sizes.as<double>()[g];
        double* rates = a.rates.as<double>() + g * 2;
        const bool untouched = control[control_apply] == 0 || (a.skip_zero_gradient && sums[gradient_sum] == 0);
        rates[0] = untouched ? 0 : control[control_lr] * std::max(std::sqrt(sums[weight_sum] / size), adafactor_least_scale);
        rates[1] = 1 / std::max(1.0, std::sqrt(sums[update_sum] / size));
    }
}

void apply_adafactor(Stream& stream, const OptimizerShard& shard, double beta1, const ConstTensor& control, const ConstTensor& rates) {
    check_shard(shard);
    check_control(control);
    if constexpr (has_cuda)
        if (stream.device() == Device::cuda) return cuda::apply_adafactor(stream, shard, beta1, control, rates);
    const OpScope scope(stream, {.name = "apply_adafactor", .bytes = bytes_of(shard.weight, shard.weight, shard.m, shard.m, shard.v, shard.gradient)});
    for_segments(shard, [&](auto type, const Segment& segment, std::int64_t) {
        using R = decltype(type);
        const double* rate = rates.as<double>() + segment.group * 2;
        if (rate[0] != 0)
            reals_of<R>().apply_adafactor(run_of<R>(shard, segment), adafactor_rule<R>(beta1, control.as<double>()), static_cast<R>(rate[0]),
                                          static_cast<R>(rate[1]));
    });
}

}  // namespace rf
