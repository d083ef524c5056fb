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
    const std::int64_t begin = state.offset(), end = begin + state.shard_size(), groups = layout.group_count();
    std::vector<Segment> own;
    std::vector<std::int32_t> group_begin;
    std::int64_t first = 0, number = 0;
    for (const Segment& segment : layout.segments()) {
        if (segment.group == static_cast<std::int64_t>(group_begin.size())) group_begin.push_back(static_cast<std::int32_t>(number));
        if (segment.begin >= begin && segment.begin < end) {
            if (own.empty()) first = number;
            own.push_back(segment);
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
    own_ = sums_.tensor({static_cast<std::int64_t>(own.size()), sum_columns}, Dtype::f64, first * sum_columns * 8);
    control_ = control_memory_.tensor({control_slots}, Dtype::f64);
}

void Optimizer::join(Stream& stream) {
    const std::int64_t groups = state_.layout().group_count();
    const Tensor all = sums_.tensor({sums_.size() / (sum_columns * 8), sum_columns}, Dtype::f64);
    const Tensor totals = groups_.tensor({groups, sum_columns}, Dtype::f64);
    if (grid_.data->size() > 1) {
        // Every other rank's rows are zero here, so the sum over the data group only puts the pieces together.
        const auto rows = [&](std::int64_t from, std::int64_t to) { return all.rows(from, to); };
        const std::int64_t first = (static_cast<const double*>(own_.data) - static_cast<const double*>(all.data)) / sum_columns;
        fill_zero(stream, rows(0, first));
        fill_zero(stream, rows(first + own_.shape[0], all.shape[0]));
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
    const OptimizerShard shard{.weight = state_.master(), .m = state_.m(), .v = state_.v(), .gradient = gradient, .offset = state_.offset(),
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
