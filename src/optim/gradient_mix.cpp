#include "optim/gradient_mix.hpp"

#include "kernels/elementwise.hpp"

#include <algorithm>
#include <cmath>

namespace rf {

GradientMix::GradientMix(const ParamState& state, ParallelGrid& grid, std::int64_t shared_groups, Stream& stream)
    : state_(state), sums_(state, grid, stream), shared_groups_(shared_groups), judgement_(control_slots * 8, stream.device()) {
    RF_REQUIRE(shared_groups > 0 && shared_groups <= sums_.group_count(), shared_groups, " shared tensors of ", sums_.group_count());
}

void GradientMix::join(Stream& stream, const Tensor& gradient, const Tensor& other) {
    OptimizerShard shard = sums_.shard(state_);
    shard.gradient = gradient;
    gradient_sums(stream, shard, sums_.own(), other);
    sums_.join(stream);
}

void GradientMix::norm(Stream& stream, const Tensor& gradient, Normalise rule, const Tensor& norm) {
    join(stream, gradient, {});
    const Tensor judgement = judgement_.tensor({control_slots}, Dtype::f64);
    judge_gradient(stream, {.groups = sums_.totals().rows(0, rule == Normalise::all ? sums_.group_count() : shared_groups_), .control = judgement});
    copy(stream, judgement.part(control_gradient_norm, {1}), norm);
}

void GradientMix::add(Stream& stream, const Tensor& gradient, const Scalar& weight, Normalise rule, const Tensor& norm, const Tensor& total) {
    add_scaled(stream, {.x = gradient, .y = total, .factor = weight, .divisor = rule == Normalise::none ? Scalar(1) : Scalar(norm)});
}

std::vector<double> GradientMix::gram(Stream& stream, std::span<const Tensor> gradients) {
    const std::size_t k = gradients.size();
    std::vector<double> gram(k * k), groups(static_cast<std::size_t>(sums_.totals().count()));
    for (std::size_t a = 0; a < k; ++a)
        for (std::size_t b = 0; b <= a; ++b) {
            join(stream, gradients[a], gradients[b]);
            download(stream, sums_.totals(), groups.data());
            double sum = 0;
            for (std::int64_t g = 0; g < shared_groups_; ++g) sum += groups[static_cast<std::size_t>(g * sum_columns + gradient_sum)];
            gram[a * k + b] = gram[b * k + a] = sum;
        }
    return gram;
}

std::vector<double> min_norm_weights(std::span<const double> gram) {
    const auto k = static_cast<std::size_t>(std::lround(std::sqrt(static_cast<double>(gram.size()))));
    RF_REQUIRE(k > 0 && k * k == gram.size(), "a Gram matrix is square; this one has ", gram.size(), " elements");
    double largest = 0;
    for (std::size_t i = 0; i < k; ++i) largest = std::max(largest, gram[i * k + i]);
    RF_REQUIRE(std::isfinite(largest), "a gradient is not finite");
    std::vector<double> weights(k, 1 / static_cast<double>(k)), along(k);  // along: inner products with the mixture
    constexpr int most_steps = 10000;  // the gap falls as 1 / step at worst
    for (int step = 0; step < most_steps; ++step) {
        double square = 0;
        for (std::size_t i = 0; i < k; ++i) {
            along[i] = 0;
            for (std::size_t j = 0; j < k; ++j) along[i] += gram[i * k + j] * weights[j];
            square += weights[i] * along[i];
        }
        const auto best = static_cast<std::size_t>(std::min_element(along.begin(), along.end()) - along.begin());
        const double gap = square - along[best], length = square - 2 * along[best] + gram[best * k + best];
        if (gap <= 1e-9 * largest || length <= 0) break;
        const double c = std::min(1.0, gap / length);
        for (double& w : weights) w *= 1 - c;
        weights[best] += c;
    }
    return weights;
}

}  // namespace rf
