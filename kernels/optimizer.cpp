#include "kernels/optimizer.hpp"

#include "kernels/dispatch.hpp"

namespace rf {

namespace {

template <class R>
simd::MomentRule<R> convert(const MomentUpdate& u) {
    return {.beta1 = static_cast<R>(u.beta1), .rest1 = static_cast<R>(1 - u.beta1), .beta2 = static_cast<R>(u.beta2),
            .rest2 = static_cast<R>(1 - u.beta2), .epsilon = static_cast<R>(u.epsilon), .decay = static_cast<R>(u.decay),
            .correction1 = static_cast<R>(u.correction1), .correction2 = static_cast<R>(u.correction2),
            .gradient_factor = static_cast<R>(u.gradient_factor)};
}

template <class R>
simd::MomentRun<R> run_of(const OptimizerShard& s, const Segment& segment) {
    const std::int64_t at = segment.begin - s.offset;
    return {raw<R>(s.weight) + at, s.m ? raw<R>(s.m) + at : nullptr, s.v ? raw<R>(s.v) + at : nullptr, raw<R>(s.gradient) + at,
            segment.end - segment.begin};
}

/// body(R{}, segment number) over all segments, spread over threads; each touches only its own elements.
template <class Body>
void for_segments(const OptimizerShard& shard, std::span<const Segment> segments, const Body& body) {
    RF_REQUIRE(shard.weight.dtype == Dtype::f32 || shard.weight.dtype == Dtype::f64, "optimizer state is f32 or f64");
    dispatch(shard.weight.dtype, [&](auto type) {
        using R = simd::Real<decltype(type)>;
#pragma omp parallel for schedule(static)
        for (std::size_t i = 0; i < segments.size(); ++i) body(R{}, i);
    });
}

}  // namespace

void gradient_sums(Stream& stream, const OptimizerShard& shard, std::span<const Segment> segments, std::span<SegmentSums> sums) {
    require_cpu(stream);
    for_segments(shard, segments, [&](auto type, std::size_t i) {
        using R = decltype(type);
        const auto run = run_of<R>(shard, segments[i]);
        sums[i] = {.weight = 0, .update = 0, .gradient = reals_of<R>().square_sum(run.gradient, run.n)};
    });
}

void update_moments(Stream& stream, const OptimizerShard& shard, const MomentUpdate& rule, std::span<const Segment> segments,
                    std::span<SegmentSums> sums) {
    require_cpu(stream);
    for_segments(shard, segments, [&](auto type, std::size_t i) {
        using R = decltype(type);
        const simd::SquareSums s = reals_of<R>().update_moments(run_of<R>(shard, segments[i]), convert<R>(rule));
        sums[i] = {.weight = s.weight, .update = s.update, .gradient = s.gradient};
    });
}

void apply_update(Stream& stream, const OptimizerShard& shard, const MomentUpdate& rule, std::span<const Segment> segments,
                  std::span<const double> rate) {
    require_cpu(stream);
    for_segments(shard, segments, [&](auto type, std::size_t i) {
        using R = decltype(type);
        const double r = rate[static_cast<std::size_t>(segments[i].group)];
        if (r != 0) reals_of<R>().apply_update(run_of<R>(shard, segments[i]), convert<R>(rule), static_cast<R>(r));
    });
}

}  // namespace rf
