#include "optim/optimizer.hpp"

#include <cmath>

namespace rf {

void OptimizerConfig::check(const json::Place& place) const {
    const auto require = [&](bool ok, const char* key, const auto&... what) {
        if (!ok) fail_usage(place.at(key), ": ", what...);
    };
    require(name == "lamb" || name == "adamw", "name", "expected \"lamb\" or \"adamw\", found \"", name, "\"");
    require(lr >= 0, "lr", "expected a learning rate >= 0, found ", lr);
    require(beta1 >= 0 && beta1 < 1, "beta1", "expected 0 <= beta1 < 1, found ", beta1);
    require(beta2 >= 0 && beta2 < 1, "beta2", "expected 0 <= beta2 < 1, found ", beta2);
    require(epsilon > 0, "epsilon", "expected epsilon > 0, found ", epsilon);
    require(weight_decay >= 0, "weight_decay", "expected weight_decay >= 0, found ", weight_decay);
    require(max_gradient_norm >= 0, "max_gradient_norm", "expected 0 (off) or a norm, found ", max_gradient_norm);
}

Optimizer::Optimizer(const OptimizerConfig& config, const ParamState& state, ParallelGrid& grid)
    : config_(config), state_(state), grid_(grid) {
    const auto& all = state.layout().segments();
    const std::int64_t begin = state.offset(), end = begin + state.shard_size();
    for (std::size_t i = 0; i < all.size(); ++i) {
        if (all[i].begin < begin || all[i].begin >= end) continue;
        if (segments_.empty()) first_segment_ = i;
        segments_.push_back(all[i]);
    }
}

std::vector<SegmentSums> Optimizer::join(Stream& stream, std::span<const SegmentSums> own) {
    const auto& all = state_.layout().segments();
    // Every other rank's entries are zero here, so the sum over the data group only puts the pieces together.
    std::vector<SegmentSums> sums(all.size());
    std::copy(own.begin(), own.end(), sums.begin() + static_cast<std::ptrdiff_t>(first_segment_));
    grid_.data->all_reduce(stream, {sums.data(), {static_cast<std::int64_t>(3 * sums.size())}, Dtype::f64}, ReduceOp::sum);
    std::vector<SegmentSums> groups(static_cast<std::size_t>(state_.layout().group_count()));
    for (std::size_t i = 0; i < all.size(); ++i) {
        SegmentSums& group = groups[static_cast<std::size_t>(all[i].group)];
        group.weight += sums[i].weight;
        group.update += sums[i].update;
        group.gradient += sums[i].gradient;
    }
    // A tensor held whole by every tensor rank counts once.
    if (grid_.tensor->rank() != 0)
        for (const ParamEntry& entry : state_.layout().entries())
            if (entry.spec.split_axis < 0)
                for (std::int64_t g = 0; g < entry.spec.tensors; ++g) groups[static_cast<std::size_t>(entry.first_group + g)] = {};
    grid_.tensor->all_reduce(stream, {groups.data(), {static_cast<std::int64_t>(3 * groups.size())}, Dtype::f64}, ReduceOp::sum);
    return groups;
}

Optimizer::Result Optimizer::step(Stream& stream, const Tensor& gradient, std::int64_t update, double lr) {
    const OptimizerShard shard{state_.master(), state_.m(), state_.v(), gradient, state_.offset()};
    std::vector<SegmentSums> own(segments_.size());
    Result result;
    gradient_sums(stream, shard, segments_, own);
    double square = 0;
    const std::vector<SegmentSums> before = join(stream, own);
    for (std::size_t g = 0; g < before.size(); ++g) {
        square += before[g].gradient;
        if (!std::isfinite(before[g].gradient) && !result.not_finite) result.not_finite = state_.layout().group_name(static_cast<std::int32_t>(g));
    }
    result.gradient_norm = std::sqrt(square);
    if (result.not_finite) return result;

    MomentUpdate rule{.beta1 = config_.beta1, .beta2 = config_.beta2, .epsilon = config_.epsilon, .decay = config_.weight_decay};
    const bool lamb = config_.name == "lamb";
    if (!lamb) {
        rule.correction1 = 1 - std::pow(config_.beta1, static_cast<double>(update));
        rule.correction2 = 1 - std::pow(config_.beta2, static_cast<double>(update));
    }
    if (config_.max_gradient_norm > 0 && result.gradient_norm > config_.max_gradient_norm)
        rule.gradient_factor = config_.max_gradient_norm / result.gradient_norm;
    update_moments(stream, shard, rule, segments_, own);
    const std::vector<SegmentSums> sums = join(stream, own);
    std::vector<double> rate(sums.size(), lr);
    for (std::size_t g = 0; g < sums.size(); ++g) {
        if (config_.skip_zero_gradient && sums[g].gradient == 0) {
            rate[g] = 0;
        } else if (lamb) {
            // r = |p| / |delta / max(lr, 1e-7)| with delta = lr u; 1 where either norm is 0.
            const double weight = std::sqrt(sums[g].weight), delta = std::sqrt(sums[g].update) * (lr / std::max(lr, 1e-7));
            if (weight > 0 && delta > 0) rate[g] = lr * weight / delta;
        }
    }
    apply_update(stream, shard, rule, segments_, rate);
    return result;
}

}  // namespace rf
