#include "train/trainer.hpp"

#include "io/files.hpp"
#include "kernels/elementwise.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <utility>

namespace rf {

namespace {
double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }
constexpr double denominator_guard = 1e-7;  // train_mlm.py divides by (targets + 1e-7)
}  // namespace

namespace {
/// Where the scalars of a step stand in device memory; after them the factors of all micro-steps, then their weights. Steps read the
/// current factor at one place, since a captured step holds its address.
enum StepScalar { scalar_alpha, scalar_factor, step_scalars };
}  // namespace

Trainer::Trainer(EncoderModel& model, ParallelGrid& grid, const OptimizerConfig& optimizer, const TrainerOptions& options)
    : model_(model),
      grid_(grid),
      options_(options),
      gradients_(options.lanes, *grid.data, model.state().shards(), model.stream().device(), accumulator_of(model.dtype())),
      optimizer_(optimizer, model.state(), grid, model.stream()),
      mix_(model.state(), grid, model.shared_groups(), model.stream()) {
    RF_REQUIRE(options.micro_steps >= 1, "an update has at least one micro-step");
    const Device device = model.stream().device();
    const std::int64_t sums = std::int64_t{options.micro_steps} * options.lanes * 2;
    scalars_ = Buffer((step_scalars + 2 * options.micro_steps) * 8, device);
    lane_sums_ = Buffer(2 * 8, device);
    all_sums_ = Buffer(sums * 8, device);
    norms_ = Buffer(options.micro_steps * 8, device);
    if (!plain()) total_ = Buffer(model.state().shard_size() * size_of(accumulator_of(model.dtype())), device);
    for (int i = 0; i <= depth(); ++i) {
        results_.push_back(Buffer::staging((sums + options.micro_steps + control_slots) * 8, device));
        done_.emplace_back(device);
    }
}

double Trainer::phase_end() {
    if (measure_) model_.stream().synchronise();
    return seconds();
}

/// Whether gradients travel while backward goes on. Not on the CPU, where nothing runs beside anything. Not with tensor ranks:
/// NCCL promises nothing where two groups of one GPU, here theirs and the data ranks', communicate at once.
bool Trainer::overlaps() const { return model_.stream().device() != Device::cpu && grid_.data->size() > 1 && grid_.tensor->size() == 1; }

void Trainer::launch(const std::vector<PackedBatch>& lanes, std::int64_t update, double lr, double alpha) {
    launch(std::vector<MicroStep>{MicroStep(lanes.begin(), lanes.end())}, update, lr, alpha);
}

void Trainer::count(Pending& pending) {
    // Per lane and summed in lane order, so that no bit depends on who worked on which.
    constexpr std::int64_t kinds = 3;
    const std::int64_t all = options_.micro_steps * std::int64_t{options_.lanes};
    std::vector<double> lanes(static_cast<std::size_t>(all * kinds), 0);
    for (int k = 0; k < options_.micro_steps; ++k)
        for (int i = 0; i < lane_count(); ++i) {
            const tasks::LaneBatch& batch = pending.steps[static_cast<std::size_t>(k)][static_cast<std::size_t>(i)];
            double* row = lanes.data() + (std::int64_t{k} * options_.lanes + first_lane() + i) * kinds;
            row[0] = static_cast<double>(batch.counted());
            row[1] = static_cast<double>(batch.packed.tokens());
            row[2] = model_.config().training_flops(row[1], batch.packed.squared_lengths(), static_cast<double>(batch.packed.targets.size()));
        }
    Stream host;
    grid_.data->all_reduce(host, view(lanes.data(), {all * kinds}), ReduceOp::sum);
    for (int k = 0; k < options_.micro_steps; ++k) {
        StepStats step{.head = pending.steps[static_cast<std::size_t>(k)].front().head, .cosine = std::numeric_limits<double>::quiet_NaN()};
        for (int i = 0; i < options_.lanes; ++i) {
            const double* row = lanes.data() + (std::int64_t{k} * options_.lanes + i) * kinds;
            step.counted += static_cast<std::int64_t>(row[0]);
            pending.stats.tokens += static_cast<std::int64_t>(row[1]);
            pending.stats.flops += row[2];
        }
        step.weight = 1.0 / options_.micro_steps;
        pending.stats.targets += step.counted;
        pending.factors.push_back(1 / (static_cast<double>(step.counted) + (step.head == tasks::mlm_head ? denominator_guard : 0)));
        pending.stats.steps.push_back(step);
    }
}

void Trainer::upload_numbers(const Pending& pending, double lr) {
    // The step reads them when it runs, so a captured one can be replayed.
    Stream& stream = model_.stream();
    const Optimizer::Numbers numbers = optimizer_.numbers(pending.stats.update, lr);
    std::vector<double> given{pending.alpha, 0};
    given.insert(given.end(), pending.factors.begin(), pending.factors.end());
    for (const StepStats& step : pending.stats.steps) given.push_back(step.weight);
    const auto scalars = static_cast<std::int64_t>(given.size());
    given.insert(given.end(), {numbers.lr, numbers.correction1, numbers.correction2});
    model_.staging().pass(stream, static_cast<std::int64_t>(given.size()) * 8, [&](std::byte* piece) {
        auto* staged = reinterpret_cast<double*>(piece);
        std::copy(given.begin(), given.end(), staged);
        copy(stream, view(std::as_const(staged), {scalars}), scalars_.tensor({scalars}, Dtype::f64));
        copy(stream, view(std::as_const(staged) + scalars, {3}), optimizer_.control().part(control_lr, {3}));
    });
}

Tensor Trainer::gradient_of(const Pending& pending, int step) {
    Stream& stream = model_.stream();
    const double begin = phase_end();
    const MicroStep& lanes = pending.steps[static_cast<std::size_t>(step)];
    const Tensor sums = all_sums_.tensor({options_.lanes, 2}, Dtype::f64, std::int64_t{step} * options_.lanes * 2 * 8), one = lane_sums_.tensor({2}, Dtype::f64);
    copy(stream, scalar(step_scalars + step), scalar(scalar_factor));
    const double lanes_before = lanes_time_;
    const int last_lane = first_lane() + lane_count() - 1;
    const EncoderModel::Complete complete = [&](int bucket) { gradients_.complete(stream, bucket); };
    gradients_.accumulate(stream, [&](int index, const Tensor& gradient) {
        fill_zero(stream, one);
        const double begin_lane = phase_end();
        model_.forward_backward(lanes[static_cast<std::size_t>(index - first_lane())], scalar(scalar_alpha), scalar(scalar_factor), {gradient, true}, one,
                                index == last_lane && overlaps() ? complete : EncoderModel::Complete{});
        lanes_time_ += phase_end() - begin_lane;
        copy(stream, one, sums.part(std::int64_t{index} * 2, {2}));
    });
    lane_sums_time_ += phase_end() - begin - (lanes_time_ - lanes_before);
    return gradients_.reduce_scatter(stream);
}

Tensor Trainer::mix(Pending& pending) {
    Stream& stream = model_.stream();
    const Tensor total = total_.tensor({model_.state().shard_size()}, accumulator_of(model_.dtype()));
    const bool keep = keeps_gradients(pending.stats.update);
    if (keep && kept_.empty())
        for (int k = 0; k < options_.micro_steps; ++k) kept_.emplace_back(total_.size(), stream.device());
    fill_zero(stream, total);
    for (int k = 0; k < options_.micro_steps; ++k) {
        const Tensor gradient = gradient_of(pending, k), norm = norms_.tensor({1}, Dtype::f64, k * 8);
        mix_.norm(stream, gradient, options_.normalise, norm);
        if (keep) copy(stream, gradient, kept_[static_cast<std::size_t>(k)].tensor(total.shape, total.dtype));
        if (!options_.min_norm) GradientMix::add(stream, gradient, scalar(step_scalars + options_.micro_steps + k), options_.normalise, norm, total);
    }
    if (keep) mix_with_gram(pending, total);
    return total;
}

void Trainer::mix_with_gram(Pending& pending, const Tensor& total) {
    Stream& stream = model_.stream();
    const auto k = static_cast<std::size_t>(options_.micro_steps);
    std::vector<Tensor> gradients;
    for (const Buffer& kept : kept_) gradients.push_back(kept.tensor(total.shape, total.dtype));
    std::vector<double> gram = mix_.gram(stream, gradients), norms(k);
    download(stream, norms_.tensor({options_.micro_steps}, Dtype::f64), norms.data());
    // Of what is mixed: gradients divided by their norms, where they are.
    std::vector<double> scale(k, 1);
    for (std::size_t a = 0; a < k; ++a)
        if (options_.normalise != Normalise::none) scale[a] = norms[a] > 0 ? 1 / norms[a] : 0;
    for (std::size_t a = 0; a < k; ++a)
        for (std::size_t b = 0; b < k; ++b) gram[a * k + b] *= scale[a] * scale[b];
    std::vector<StepStats>& steps = pending.stats.steps;
    const bool finite = std::all_of(gram.begin(), gram.end(), [](double x) { return std::isfinite(x); });
    if (options_.min_norm) {
        // A gradient that is not finite reaches the optimizer, which judges it.
        const std::vector<double> weights = finite ? min_norm_weights(gram) : std::vector<double>(k, 1.0 / static_cast<double>(k));
        for (std::size_t a = 0; a < k; ++a) {
            steps[a].weight = weights[a];
            GradientMix::add(stream, gradients[a], weights[a], options_.normalise, norms_.tensor({1}, Dtype::f64, static_cast<std::int64_t>(a) * 8), total);
        }
    }
    const auto with_total = [&](std::size_t a) {
        double sum = 0;
        for (std::size_t b = 0; b < k; ++b) sum += steps[b].weight * gram[a * k + b];
        return sum;
    };
    double square = 0;
    for (std::size_t a = 0; a < k; ++a) square += steps[a].weight * with_total(a);
    for (std::size_t a = 0; a < k; ++a) steps[a].cosine = with_total(a) / std::sqrt(square * gram[a * k + a]);
}

void Trainer::launch(std::vector<MicroStep> steps, std::int64_t update, double lr, double alpha) {
    RF_REQUIRE(static_cast<int>(steps.size()) == options_.micro_steps, options_.micro_steps, " micro-steps an update, not ", steps.size());
    for (const MicroStep& step : steps) RF_REQUIRE(static_cast<int>(step.size()) == lane_count(), "one packed batch a lane");
    RF_REQUIRE(in_flight() <= depth(), "an update must be waited for before the next is started");
    const double begin = seconds();
    Stream& stream = model_.stream();
    Pending& pending = pending_.emplace_back();
    pending.stats.update = update;
    pending.steps = std::move(steps);
    pending.alpha = alpha;
    pending.slot = static_cast<std::size_t>(update) % results_.size();
    count(pending);
    upload_numbers(pending, lr);
    const std::int64_t sums = std::int64_t{options_.micro_steps} * options_.lanes * 2;
    const Tensor all = all_sums_.tensor({sums}, Dtype::f64), norms = norms_.tensor({options_.micro_steps}, Dtype::f64);
    fill_zero(stream, all);
    model_.backward_time().seconds = lanes_time_ = lane_sums_time_ = 0;
    if (plain()) fill_zero(stream, norms);
    const Tensor gradient = plain() ? gradient_of(pending, 0) : mix(pending);
    grid_.data->all_reduce(stream, all, ReduceOp::sum);
    const double reduced = phase_end();
    optimizer_.step(stream, gradient, all, options_.skips_allowed);
    const double optimized = phase_end();
    model_.state().publish_weights(stream, *grid_.data);
    const Buffer& result = results_[pending.slot];
    copy(stream, all, result.tensor({sums}, Dtype::f64));
    copy(stream, norms, result.tensor({options_.micro_steps}, Dtype::f64, sums * 8));
    copy(stream, optimizer_.control(), result.tensor({control_slots}, Dtype::f64, (sums + options_.micro_steps) * 8));
    done_[pending.slot].record(stream);
    const double backward = model_.backward_time().seconds;
    times_ = {.forward = lanes_time_ - backward,
              .backward = backward,
              .lane_sums = lane_sums_time_,
              .communicate = reduced - begin - lanes_time_ - lane_sums_time_ + (phase_end() - optimized),
              .optimize = optimized - reduced};
}

UpdateStats Trainer::wait() {
    RF_REQUIRE(!pending_.empty(), "no update is under way");
    const Pending pending = pending_.front();
    pending_.pop_front();
    done_[pending.slot].wait();
    const auto* sums = reinterpret_cast<const double*>(results_[pending.slot].data());
    const double* norms = sums + std::int64_t{options_.micro_steps} * options_.lanes * 2;
    const double* control = norms + options_.micro_steps;
    UpdateStats stats = pending.stats;
    for (int k = 0; k < options_.micro_steps; ++k) {
        StepStats& step = stats.steps[static_cast<std::size_t>(k)];
        for (int i = 0; i < options_.lanes; ++i) {
            step.loss += sums[(k * options_.lanes + i) * 2];
            step.accuracy += sums[(k * options_.lanes + i) * 2 + 1];
        }
        step.loss *= pending.factors[static_cast<std::size_t>(k)];
        step.accuracy *= pending.factors[static_cast<std::size_t>(k)];
        step.gradient_norm = norms[k];
        stats.loss += step.loss / options_.micro_steps;
        stats.accuracy += step.accuracy / options_.micro_steps;
    }
    stats.gradient_norm = control[control_gradient_norm];
    if (control[control_apply] != 0) return stats;
    const bool over = control[control_skipped] > static_cast<double>(options_.skips_allowed);
    stats.not_finite = describe_not_finite(pending, stats.loss, control, over || in_flight() == 0);
    if (!over) return stats;
    throw NotFinite(message("update ", stats.update, " is not finite: ", stats.not_finite, "; nothing of it was applied",
                            options_.skips_allowed > 0 ? message(", nor of the ", options_.skips_allowed, " before it (skips_allowed)") : "",
                            " (lower optimizer.lr or lengthen the warm-up)"));
}

std::string Trainer::describe_not_finite(const Pending& update, double loss, const double* control, bool alone) {
    const auto group = static_cast<std::int32_t>(control[control_not_finite]);
    const std::string what = message("loss ", loss, ", gradient of ", group < 0 ? "no tensor" : model_.layout().group_name(group));
    // An update on its way has other weights by now.
    if (!alone) return what;
    const int at = find_not_finite(update), lane = at % options_.lanes;
    if (at == options_.micro_steps * options_.lanes) return what + " (only the sum over all lanes and ranks)";
    const std::string task = options_.micro_steps > 1 ? message("micro-step ", at / options_.lanes, ", ") : "";
    return message(what, " (", task, "lane ", lane, ", on rank ", lane / lane_count() * grid_.tensor->size(), ")");
}

UpdateStats Trainer::update(const std::vector<PackedBatch>& batches, std::int64_t update, double lr, double alpha) {
    launch(batches, update, lr, alpha);
    return wait();
}

std::vector<Trainer::TensorNorms> Trainer::tensor_norms(const Tensor& before) {
    RF_REQUIRE(in_flight() == 0, "an update is under way");
    Stream& stream = model_.stream();
    const ParamState& state = model_.state();
    const auto norms_of = [&](const ConstTensor& groups, SumColumn column) {
        std::vector<double> rows(static_cast<std::size_t>(groups.count())), norms;
        download(stream, groups, rows.data());
        for (std::int64_t g = 0; g < groups.shape[0]; ++g) norms.push_back(std::sqrt(rows[static_cast<std::size_t>(g * sum_columns + column)]));
        return norms;
    };
    const std::vector<double> gradient = norms_of(optimizer_.groups(), gradient_sum);
    TensorSums sums(state, grid_, stream);
    OptimizerShard shard = sums.shard(state);
    shard.gradient = before;
    gradient_sums(stream, shard, sums.own());
    sums.join(stream);
    const std::vector<double> weights = norms_of(sums.totals(), gradient_sum);
    add_scaled(stream, {.x = state.master(), .y = before, .factor = -1});
    gradient_sums(stream, shard, sums.own());
    sums.join(stream);
    const std::vector<double> change = norms_of(sums.totals(), gradient_sum);
    std::vector<TensorNorms> result;
    for (std::size_t g = 0; g < change.size(); ++g) result.push_back({model_.layout().group_name(static_cast<std::int32_t>(g)), gradient[g], weights[g], change[g]});
    return result;
}

void Trainer::work_aside(const tasks::LaneBatch& lane, double alpha, double factor, const Tensor& gradient) {
    // A captured step would keep these numbers and the address of memory that is soon another's.
    const bool waits = std::exchange(model_.backward_time().waits, true);
    model_.forward_backward(lane, alpha, factor, {gradient, true}, lane_sums_.tensor({2}, Dtype::f64));
    model_.backward_time().waits = waits;
}

std::string Trainer::find_faults(const tasks::LaneBatch& lane, double alpha) {
    RF_REQUIRE(in_flight() == 0, "an update is under way");
    Stream& stream = model_.stream();
    const Dtype wide = accumulator_of(model_.dtype());
    const std::int64_t n = model_.state().padded_size();
    const Buffer scratch(n * size_of(wide), stream.device());
    const Tensor gradient = scratch.tensor({n}, wide);
    const auto digest_of = [&](const ConstTensor& t) {
        std::vector<char> host(static_cast<std::size_t>(t.bytes()));
        download(stream, t, host.data());
        return digest(host.data(), t.bytes());
    };
    const auto worked_on = [&] {
        work_aside(lane, alpha, 1, gradient);
        return digest_of(gradient);
    };
    const bool repeats = worked_on() == worked_on();
    const std::string weights = digest_of(model_.state().weights().flat());
    // The first sixty bits are enough to tell ranks apart.
    const std::vector<std::int64_t> all = grid_.data->gather(std::stoll(weights.substr(0, 15), nullptr, 16));
    const std::int64_t mine = all[static_cast<std::size_t>(grid_.data->rank())];
    const auto like = std::count(all.begin(), all.end(), mine);
    const bool minority = std::any_of(all.begin(), all.end(), [&](std::int64_t other) { return other != mine && std::count(all.begin(), all.end(), other) >= like; });
    if (!repeats) return "worked on a lane twice and found other bits: its memory or processor cannot be trusted";
    if (minority) return message("holds other weights than ", std::ssize(all) - like, " of ", all.size(), " data ranks: its memory or processor cannot be trusted");
    return {};
}

int Trainer::find_not_finite(const Pending& update) {
    // Seldom, so the lanes are simply worked on again: the same weights and bits, dropout included.
    Stream& stream = model_.stream();
    const Dtype wide = accumulator_of(model_.dtype());
    const std::int64_t n = model_.state().padded_size();
    const Buffer scratch(n * size_of(wide), stream.device()), host(n * size_of(wide));
    const Tensor gradient = scratch.tensor({n}, wide), values = host.tensor({n}, wide);
    const auto finite = [n](const auto* g) { return std::all_of(g, g + n, [](auto x) { return std::isfinite(x); }); };
    int found = options_.micro_steps * options_.lanes;
    for (int at = 0; at < options_.micro_steps * lane_count(); ++at) {
        const auto k = static_cast<std::size_t>(at / lane_count()), i = static_cast<std::size_t>(at % lane_count());
        work_aside(update.steps[k][i], update.alpha, update.factors[k], gradient);
        download(stream, gradient, values.data);
        const bool whole = wide == Dtype::f64 ? finite(values.as<double>()) : finite(values.as<float>());
        if (!whole) found = std::min(found, static_cast<int>(k) * options_.lanes + first_lane() + static_cast<int>(i));
    }
    return static_cast<int>(grid_.world.min(found));
}

Evaluation evaluate(EncoderModel& model, ParallelGrid& grid, const SampleStream& stream, std::int64_t group, double alpha) {
    const std::int64_t groups = (stream.held_out + group - 1) / group;
    std::vector<double> sums(static_cast<std::size_t>(std::max<std::int64_t>(groups, 1) * 3), 0);
    for (std::int64_t g = grid.data->rank(); g < groups; g += grid.data->size()) {
        const PackedBatch batch = stream.held_out_batch(g * group, std::min(stream.held_out, (g + 1) * group));
        const HeadSums one = model.evaluate(tasks::LaneBatch(batch), alpha);
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
