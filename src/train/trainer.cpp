#include "train/trainer.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>

namespace rf {

namespace {
double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }
constexpr double denominator_guard = 1e-7;  // train_mlm.py divides by (targets + 1e-7)
}  // namespace

MlmTrainer::MlmTrainer(MlmModel& model, ParallelGrid& grid, const OptimizerConfig& optimizer, int lanes)
    : model_(model),
      grid_(grid),
      lanes_(lanes),
      gradients_(lanes, *grid.data, model.state().padded_size(), accumulator_of(model.dtype())),
      optimizer_(optimizer, model.state(), grid) {
    const Dtype wide = accumulator_of(model.dtype());
    if (grid.data->size() > 1) shard_ = Buffer(model.state().shard_size() * size_of(wide));
    if (grid.data->size() > 1) shard_flat_ = shard_.tensor({model.state().shard_size()}, wide);
}

UpdateStats MlmTrainer::update(const std::vector<PackedBatch>& batches, std::int64_t update, double lr, double alpha) {
    RF_REQUIRE(static_cast<int>(batches.size()) == lane_count(), "one packed batch a lane");
    // Per lane and summed in lane order, so that no bit depends on who worked on which.
    constexpr std::int64_t kinds = 5;
    std::vector<double> lanes(static_cast<std::size_t>(lanes_ * kinds), 0);
    const auto lane = [&](int index) { return lanes.data() + (first_lane() + index) * kinds; };
    for (int i = 0; i < lane_count(); ++i) {
        const PackedBatch& batch = batches[static_cast<std::size_t>(i)];
        const auto count = static_cast<double>(batch.targets.size()), tokens = static_cast<double>(batch.tokens());
        lane(i)[0] = count;
        lane(i)[1] = tokens;
        lane(i)[2] = model_.config().training_flops(tokens, batch.squared_lengths(), count);
    }
    const double begin = seconds();
    double own_count = 0;
    for (int i = 0; i < lane_count(); ++i) own_count += lane(i)[0];
    const double count = grid_.data->sum(own_count);
    const double factor = 1 / (count + denominator_guard);
    double forward = 0, backward = 0;
    gradients_.accumulate(model_.stream(), [&](int index, const Tensor& gradient) {
        const double begin_lane = seconds();
        const MlmSums sums = model_.forward_backward(batches[static_cast<std::size_t>(index - first_lane())], alpha, factor, gradient);
        lane(index - first_lane())[3] = sums.loss;
        lane(index - first_lane())[4] = static_cast<double>(sums.correct);
        backward += sums.backward_seconds;
        forward += seconds() - begin_lane - sums.backward_seconds;
    });
    const double computed = seconds();
    Stream& stream = model_.stream();
    grid_.data->all_reduce(stream, view(lanes.data(), {lanes_ * kinds}), ReduceOp::sum);
    UpdateStats stats;
    double correct = 0;
    for (int i = 0; i < lanes_; ++i) {
        const double* row = lanes.data() + i * kinds;
        stats.targets += static_cast<std::int64_t>(row[0]);
        stats.tokens += static_cast<std::int64_t>(row[1]);
        stats.flops += row[2];
        stats.loss += row[3];
        correct += row[4];
    }
    stats.loss *= factor;
    stats.accuracy = correct * factor;
    const Tensor gradient = gradients_.reduce_scatter(stream, *grid_.data, shard_flat_);
    const double reduced = seconds();
    const Optimizer::Result result = optimizer_.step(stream, gradient, update, lr);
    stats.gradient_norm = result.gradient_norm;
    if (!std::isfinite(stats.loss) || result.not_finite) {
        const int lane_found = find_not_finite(batches, alpha, factor);
        throw NotFinite(message("update ", update, " is not finite: loss ", stats.loss, ", gradient of ", result.not_finite.value_or("no tensor"),
                                lane_found < lanes_ ? message(" (lane ", lane_found, ", on rank ", lane_found / lane_count() * grid_.tensor->size(), ")")
                                                    : " (only the sum over all lanes and ranks)",
                                "; nothing of it was applied (lower optimizer.lr or lengthen the warm-up)"));
    }
    const double optimized = seconds();
    model_.state().publish_weights(stream, *grid_.data);
    times_ = {.forward = forward,
              .backward = backward,
              .lane_sums = computed - begin - forward - backward,
              .communicate = reduced - computed + (seconds() - optimized),
              .optimize = optimized - reduced};
    return stats;
}

int MlmTrainer::find_not_finite(const std::vector<PackedBatch>& batches, double alpha, double factor) {
    // Once a run at most, so the lanes are simply worked on again: the same bits, dropout included.
    const Dtype wide = accumulator_of(model_.dtype());
    const std::int64_t n = model_.state().padded_size();
    const Buffer scratch(n * size_of(wide));
    const Tensor gradient = scratch.tensor({n}, wide);
    const auto finite = [n](const auto* g) { return std::all_of(g, g + n, [](auto x) { return std::isfinite(x); }); };
    int found = lanes_;
    for (int i = 0; i < lane_count(); ++i) {
        std::memset(gradient.data, 0, static_cast<std::size_t>(gradient.bytes()));
        model_.forward_backward(batches[static_cast<std::size_t>(i)], alpha, factor, gradient);
        const bool whole = wide == Dtype::f64 ? finite(gradient.as<double>()) : finite(gradient.as<float>());
        if (!whole) found = std::min(found, first_lane() + i);
    }
    return static_cast<int>(grid_.world.min(found));
}

Evaluation evaluate(MlmModel& model, ParallelGrid& grid, const SampleStream& stream, std::int64_t group, double alpha) {
    const std::int64_t groups = (stream.held_out + group - 1) / group;
    std::vector<double> sums(static_cast<std::size_t>(std::max<std::int64_t>(groups, 1) * 3), 0);
    for (std::int64_t g = grid.data->rank(); g < groups; g += grid.data->size()) {
        const PackedBatch batch = stream.held_out_batch(g * group, std::min(stream.held_out, (g + 1) * group));
        const MlmSums one = model.evaluate(batch, alpha);
        double* row = sums.data() + g * 3;
        row[0] = one.loss;
        row[1] = static_cast<double>(one.count);
        row[2] = static_cast<double>(one.correct);
    }
    grid.data->all_reduce(model.stream(), view(sums.data(), {static_cast<std::int64_t>(sums.size())}), ReduceOp::sum);
    Evaluation result;
    double count = 0;
    for (std::int64_t g = 0; g < groups; ++g) {
        result.loss += sums[static_cast<std::size_t>(g * 3)];
        count += sums[static_cast<std::size_t>(g * 3 + 1)];
        result.accuracy += sums[static_cast<std::size_t>(g * 3 + 2)];
    }
    result.targets = static_cast<std::int64_t>(count);
    if (count > 0) result.loss /= count, result.accuracy /= count;
    result.perplexity = std::exp(result.loss);
    return result;
}

double unigram_cross_entropy(const SampleStream& stream) {
    std::vector<double> counts(static_cast<std::size_t>(stream.vocab_size), 1);
    double total = static_cast<double>(stream.vocab_size);
    for (std::int64_t d = 0; d < stream.corpus.documents(); ++d) {
        for (const std::uint16_t id : stream.corpus.document(d).tokens) {
            counts[id] += 1;
            total += 1;
        }
    }
    double sum = 0, targets = 0;
    constexpr std::int64_t group = 256;
    for (std::int64_t begin = 0; begin < stream.held_out; begin += group) {
        for (const std::int32_t id : stream.held_out_batch(begin, std::min(stream.held_out, begin + group)).targets) {
            sum -= std::log(counts[static_cast<std::size_t>(id)] / total);
            targets += 1;
        }
    }
    return targets > 0 ? sum / targets : 0;
}

}  // namespace rf
