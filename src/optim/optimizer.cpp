#include "optim/optimizer.hpp"

#include "kernels/elementwise.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

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

namespace {
template <class T>
Buffer on_device(const Stream& stream, const std::vector<T>& list) {
    const auto bytes = static_cast<std::int64_t>(list.size() * sizeof(T));
    Buffer buffer(bytes, stream.device());
    upload(stream, list.data(), buffer.tensor({bytes}, Dtype::u8));
    return buffer;
}
}  // namespace

Optimizer::Optimizer(const OptimizerConfig& config, const ParamState& state, ParallelGrid& grid, Stream& stream)
    : config_(config), state_(state), grid_(grid) {
    const ParamLayout& layout = state_.layout();
    const Shards& shards = state.shards();
    const std::int64_t groups = layout.group_count();
    std::vector<Segment> own;
    std::vector<std::int32_t> group_begin;
    std::int64_t number = 0;
    for (const Segment& segment : layout.segments()) {
        if (segment.group == static_cast<std::int64_t>(group_begin.size())) group_begin.push_back(static_cast<std::int32_t>(number));
        const std::int64_t at = shards.owned_before(segment.begin, state.data_rank()), end = shards.owned_before(segment.end, state.data_rank());
        if (at < end) {
            const auto before = static_cast<std::int64_t>(own.size());
            if (runs_.empty() || runs_.back().all + runs_.back().count != number) runs_.push_back({.own = before, .all = number});
            ++runs_.back().count;
            own.push_back({at, end, segment.group});
        }
        ++number;
    }
    group_begin.push_back(static_cast<std::int32_t>(number));
    // A tensor held whole by every tensor rank counts on the first one only.
    std::vector<std::uint8_t> counted(static_cast<std::size_t>(groups), 1);
    if (grid_.tensor->rank() != 0)
        for (const ParamEntry& entry : layout.entries())
            if (entry.spec.split_axis < 0)
                for (std::int64_t g = 0; g < entry.spec.tensors; ++g) counted[static_cast<std::size_t>(entry.first_group + g)] = 0;
    const Device device = stream.device();
    segments_ = on_device(stream, own);
    group_begin_ = on_device(stream, group_begin);
    counted_ = on_device(stream, counted);
    sums_ = Buffer(number * sum_columns * 8, device);
    groups_ = Buffer(groups * sum_columns * 8, device);
    rates_ = Buffer(groups * 8, device);
    control_memory_ = Buffer(control_slots * 8, device);
    const Shape own_shape{static_cast<std::int64_t>(own.size()), sum_columns};
    if (shards.ranks() > 1) own_memory_ = Buffer(std::max<std::int64_t>(own_shape.count(), 1) * 8, device);
    own_ = (shards.ranks() > 1 ? own_memory_ : sums_).tensor(own_shape, Dtype::f64);
    control_ = control_memory_.tensor({control_slots}, Dtype::f64);
}

void Optimizer::join(Stream& stream) {
    const std::int64_t groups = state_.layout().group_count();
    const Tensor all = sums_.tensor({sums_.size() / (sum_columns * 8), sum_columns}, Dtype::f64);
    const Tensor totals = groups_.tensor({groups, sum_columns}, Dtype::f64);
    if (grid_.data->size() > 1) {
        // Every other rank's rows are zero here, so the sum over the data group only puts the pieces together.
        fill_zero(stream, all);
        for (const Run& run : runs_) copy(stream, own_.rows(run.own, run.own + run.count), all.rows(run.all, run.all + run.count));
        grid_.data->all_reduce(stream, all, ReduceOp::sum);
    }
    join_sums(stream, {.sums = all,
                       .group_begin = group_begin_.tensor({groups + 1}, Dtype::i32),
                       .counted = counted_.tensor({groups}, Dtype::u8),
                       .groups = totals});
    grid_.tensor->all_reduce(stream, totals, ReduceOp::sum);
}

Optimizer::Numbers Optimizer::numbers(std::int64_t update, double lr) const {
    if (config_.name == "lamb") return {lr, 1, 1};
    const auto t = static_cast<double>(update);
    return {lr, 1 - std::pow(config_.beta1, t), 1 - std::pow(config_.beta2, t)};
}

void Optimizer::step(Stream& stream, const Tensor& gradient) {
    const OptimizerShard shard{.weight = state_.master(), .m = state_.m(), .v = state_.v(), .gradient = gradient,
                               .segments = segments_.tensor({segments_.size()}, Dtype::u8)};
    const MomentRule rule{.beta1 = config_.beta1, .beta2 = config_.beta2, .epsilon = config_.epsilon, .decay = config_.weight_decay};
    const std::int64_t groups = state_.layout().group_count();
    const Tensor totals = groups_.tensor({groups, sum_columns}, Dtype::f64), rates = rates_.tensor({groups}, Dtype::f64);
    gradient_sums(stream, shard, own_);
    join(stream);
    judge_gradient(stream, {.groups = totals, .control = control_, .max_norm = config_.max_gradient_norm});
    update_moments(stream, shard, rule, control_, own_);
    join(stream);
    update_rates(stream, {.groups = totals, .control = control_, .rates = rates, .lamb = config_.name == "lamb",
                          .skip_zero_gradient = config_.skip_zero_gradient});
    apply_update(stream, shard, rule, control_, rates);
}

}  // namespace rf
