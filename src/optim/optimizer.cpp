#include "optim/optimizer.hpp"

#include <cmath>
#include <vector>

namespace rf {

void OptimizerConfig::check(const json::Place& place) const {
    const json::Requirements require{place};
    require(name == "lamb" || name == "adamw" || name == "adafactor", "name", "expected \"lamb\", \"adamw\" or \"adafactor\", found \"", name, "\"");
    require(lr >= 0, "lr", "expected a learning rate >= 0, found ", lr);
    require(beta1 >= 0 && beta1 < 1, "beta1", "expected 0 <= beta1 < 1, found ", beta1);
    require(beta2 >= 0 && beta2 < 1, "beta2", "expected 0 <= beta2 < 1, found ", beta2);
    require(epsilon > 0, "epsilon", "expected epsilon > 0, found ", epsilon);
    require(weight_decay >= 0, "weight_decay", "expected weight_decay >= 0, found ", weight_decay);
    require(max_gradient_norm >= 0, "max_gradient_norm", "expected 0 (off) or a norm, found ", max_gradient_norm);
}

Optimizer::Optimizer(const OptimizerConfig& config, const ParamState& state, ParallelGrid& grid, Stream& stream)
    : config_(config), state_(state), sums_(state, grid, stream) {
    std::vector<double> sizes;
    for (const ParamEntry& entry : state.layout().entries())
        sizes.insert(sizes.end(), static_cast<std::size_t>(entry.spec.tensors), static_cast<double>(entry.spec.shape.count() / entry.spec.tensors));
    sizes_ = on_device(stream, sizes);
    rates_ = Buffer(sums_.group_count() * 2 * 8, stream.device());
    control_memory_ = Buffer(control_slots * 8, stream.device());
    control_ = control_memory_.tensor({control_slots}, Dtype::f64);
}

Optimizer::Numbers Optimizer::numbers(std::int64_t update, double lr) const {
    const auto t = static_cast<double>(update);
    if (config_.name == "lamb") return {lr, 1, 1};
    if (config_.name == "adafactor") return {lr, 1, std::pow(t, -0.8)};
    return {lr, 1 - std::pow(config_.beta1, t), 1 - std::pow(config_.beta2, t)};
}

void Optimizer::step(Stream& stream, const Tensor& gradient, const ConstTensor& losses, std::int64_t skips_allowed) {
    OptimizerShard shard = sums_.shard(state_);
    shard.gradient = gradient;
    gradient_sums(stream, shard, sums_.own());
    sums_.join(stream);
    judge_gradient(stream, {.groups = sums_.totals(), .control = control_, .max_norm = config_.max_gradient_norm, .losses = losses, .skips_allowed = skips_allowed});
    if (config_.name == "adafactor") return step_adafactor(stream, shard);
    const MomentRule rule{.beta1 = config_.beta1, .beta2 = config_.beta2, .epsilon = config_.epsilon, .decay = config_.weight_decay};
    const Tensor rates = rates_.tensor({sums_.group_count()}, Dtype::f64);
    update_moments(stream, shard, rule, control_, sums_.own());
    sums_.join(stream);
    update_rates(stream, {.groups = sums_.totals(), .control = control_, .rates = rates, .lamb = config_.name == "lamb",
                          .skip_zero_gradient = config_.skip_zero_gradient});
    apply_update(stream, shard, rule, control_, rates);
}

void Optimizer::step_adafactor(Stream& stream, const OptimizerShard& shard) {
    const std::int64_t groups = sums_.group_count();
    const Tensor rates = rates_.tensor({groups, 2}, Dtype::f64);
    adafactor_moments(stream, shard, control_, sums_.own());
    sums_.join(stream);
    adafactor_rates(stream, {.groups = sums_.totals(), .sizes = sizes_.tensor({groups}, Dtype::f64), .control = control_, .rates = rates,
                             .skip_zero_gradient = config_.skip_zero_gradient});
    apply_adafactor(stream, shard, config_.beta1, control_, rates);
}

}  // namespace rf
