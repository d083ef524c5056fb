#include "train/trainer.hpp"

#include "kernels/elementwise.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

namespace rf {

namespace {
double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }
constexpr double denominator_guard = 1e-7;  // train_mlm.py divides by (targets + 1e-7)
}  // namespace

namespace {
/// Where the scalars of a step stand in device memory.
enum StepScalar { scalar_alpha, scalar_factor, step_scalars };
}  // namespace

MlmTrainer::MlmTrainer(MlmModel& model, ParallelGrid& grid, const OptimizerConfig& optimizer, int lanes)
    : model_(model),
      grid_(grid),
      lanes_(lanes),
      gradients_(lanes, *grid.data, model.state().shards(), model.stream().device(), accumulator_of(model.dtype())),
      optimizer_(optimizer, model.state(), grid, model.stream()) {
    const Device device = model.stream().device();
    scalars_ = Buffer(step_scalars * 8, device);
    lane_sums_ = Buffer(2 * 8, device);
    all_sums_ = Buffer(lanes * 2 * 8, device);
    for (int i = 0; i <= depth(); ++i) {
        results_.push_back(Buffer::staging((lanes * 2 + control_slots) * 8, device));
        done_.emplace_back(device);
    }
}

double MlmTrainer::phase_end() {
    if (measure_) model_.stream().synchronise();
    return seconds();
}

/// Whether gradients travel while backward goes on. Not on the CPU, where nothing runs beside anything. Not with tensor ranks:
/// NCCL promises nothing where two groups of one GPU, here theirs and the data ranks', communicate at once.
bool MlmTrainer::overlaps() const { return model_.stream().device() != Device::cpu && grid_.data->size() > 1 && grid_.tensor->size() == 1; }

void MlmTrainer::launch(const std::vector<PackedBatch>& batches, std::int64_t update, double lr, double alpha) {
    RF_REQUIRE(static_cast<int>(batches.size()) == lane_count(), "one packed batch a lane");
    RF_REQUIRE(in_flight() <= depth(), "an update must be waited for before the next is started");
    const double begin = seconds();
    Stream& stream = model_.stream();
    Stream host;
    // Per lane and summed in lane order, so that no bit depends on who worked on which.
    constexpr std::int64_t kinds = 3;
    std::vector<double> lanes(static_cast<std::size_t>(lanes_ * kinds), 0);
    for (int i = 0; i < lane_count(); ++i) {
        const PackedBatch& batch = batches[static_cast<std::size_t>(i)];
        double* row = lanes.data() + (first_lane() + i) * kinds;
        row[0] = static_cast<double>(batch.targets.size());
        row[1] = static_cast<double>(batch.tokens());
        row[2] = model_.config().training_flops(row[1], batch.squared_lengths(), row[0]);
    }
    grid_.data->all_reduce(host, view(lanes.data(), {lanes_ * kinds}), ReduceOp::sum);
    Pending& pending = pending_.emplace_back();
    pending.stats.update = update;
    pending.batches = batches;
    pending.alpha = alpha;
    pending.slot = static_cast<std::size_t>(update) % results_.size();
    for (int i = 0; i < lanes_; ++i) {
        const double* row = lanes.data() + i * kinds;
        pending.stats.targets += static_cast<std::int64_t>(row[0]);
        pending.stats.tokens += static_cast<std::int64_t>(row[1]);
        pending.stats.flops += row[2];
    }
    pending.factor = 1 / (static_cast<double>(pending.stats.targets) + denominator_guard);

    // This update's numbers to the device: the step reads them when it runs, so a captured one can be replayed.
    const Optimizer::Numbers numbers = optimizer_.numbers(update, lr);
    const double given[step_scalars + 3] = {alpha, pending.factor, numbers.lr, numbers.correction1, numbers.correction2};
    const Tensor scalars = scalars_.tensor({step_scalars}, Dtype::f64);
    model_.staging().pass(stream, sizeof given, [&](std::byte* piece) {
        auto* staged = reinterpret_cast<double*>(piece);
        std::copy(std::begin(given), std::end(given), staged);
        copy(stream, view(std::as_const(staged), {step_scalars}), scalars);
        copy(stream, view(std::as_const(staged) + step_scalars, {3}), optimizer_.control().part(control_lr, {3}));
    });

    const Tensor all = all_sums_.tensor({lanes_, 2}, Dtype::f64), one = lane_sums_.tensor({2}, Dtype::f64);
    fill_zero(stream, all);
    model_.backward_time().seconds = 0;
    double lanes_time = 0;
    const int last_lane = first_lane() + lane_count() - 1;
    const MlmModel::Complete complete = [&](int bucket) { gradients_.complete(stream, bucket); };
    gradients_.accumulate(stream, [&](int index, const Tensor& gradient) {
        fill_zero(stream, one);
        const double begin_lane = phase_end();
        const PackedBatch& batch = batches[static_cast<std::size_t>(index - first_lane())];
        model_.forward_backward(batch, scalars.part(scalar_alpha, {1}), scalars.part(scalar_factor, {1}), gradient, one,
                                index == last_lane && overlaps() ? complete : MlmModel::Complete{});
        lanes_time += phase_end() - begin_lane;
        copy(stream, one, all.part(index * 2, {2}));
    });
    const double computed = phase_end();
    const Tensor gradient = gradients_.reduce_scatter(stream);
    grid_.data->all_reduce(stream, all, ReduceOp::sum);
    const double reduced = phase_end();
    optimizer_.step(stream, gradient);
    const double optimized = phase_end();
    model_.state().publish_weights(stream, *grid_.data);
    const Buffer& result = results_[pending.slot];
    copy(stream, all, result.tensor({lanes_, 2}, Dtype::f64));
    copy(stream, optimizer_.control(), result.tensor({control_slots}, Dtype::f64, lanes_ * 2 * 8));
    done_[pending.slot].record(stream);
    const double backward = model_.backward_time().seconds;
    times_ = {.forward = lanes_time - backward,
              .backward = backward,
              .lane_sums = computed - begin - lanes_time,
              .communicate = reduced - computed + (phase_end() - optimized),
              .optimize = optimized - reduced};
}

UpdateStats MlmTrainer::wait() {
    RF_REQUIRE(!pending_.empty(), "no update is under way");
    const Pending pending = pending_.front();
    pending_.pop_front();
    done_[pending.slot].wait();
    const auto* sums = reinterpret_cast<const double*>(results_[pending.slot].data());
    const double* control = sums + lanes_ * 2;
    UpdateStats stats = pending.stats;
    for (int i = 0; i < lanes_; ++i) {
        stats.loss += sums[i * 2];
        stats.accuracy += sums[i * 2 + 1];
    }
    stats.loss *= pending.factor;
    stats.accuracy *= pending.factor;
    stats.gradient_norm = control[control_gradient_norm];
    if (std::isfinite(stats.loss) && control[control_apply] != 0) return stats;
    const auto group = static_cast<std::int32_t>(control[control_not_finite]);
    const std::string tensor = group < 0 ? "no tensor" : model_.layout().group_name(group);
    const int lane = find_not_finite(pending);
    throw NotFinite(message("update ", stats.update, " is not finite: loss ", stats.loss, ", gradient of ", tensor,
                            lane < lanes_ ? message(" (lane ", lane, ", on rank ", lane / lane_count() * grid_.tensor->size(), ")")
                                          : " (only the sum over all lanes and ranks)",
                            control[control_apply] == 0 ? "; nothing of it was applied" : "", " (lower optimizer.lr or lengthen the warm-up)"));
}

UpdateStats MlmTrainer::update(const std::vector<PackedBatch>& batches, std::int64_t update, double lr, double alpha) {
    launch(batches, update, lr, alpha);
    return wait();
}

int MlmTrainer::find_not_finite(const Pending& update) {
    // Once a run at most, so the lanes are simply worked on again: the same weights and bits, dropout included.
    Stream& stream = model_.stream();
    const Dtype wide = accumulator_of(model_.dtype());
    const std::int64_t n = model_.state().padded_size();
    const Buffer scratch(n * size_of(wide), stream.device()), host(n * size_of(wide));
    const Tensor gradient = scratch.tensor({n}, wide), values = host.tensor({n}, wide);
    const auto finite = [n](const auto* g) { return std::all_of(g, g + n, [](auto x) { return std::isfinite(x); }); };
    int found = lanes_;
    for (int i = 0; i < lane_count(); ++i) {
        fill_zero(stream, gradient);
        model_.forward_backward(update.batches[static_cast<std::size_t>(i)], update.alpha, update.factor, gradient, lane_sums_.tensor({2}, Dtype::f64));
        download(stream, gradient, values.data);
        const bool whole = wide == Dtype::f64 ? finite(values.as<double>()) : finite(values.as<float>());
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
    Stream host;
    grid.data->all_reduce(host, view(sums.data(), {static_cast<std::int64_t>(sums.size())}), ReduceOp::sum);
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
