#include "train/mlm_model.hpp"

#include "core/cpu.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/rotary.hpp"
#include "params/initialise.hpp"

#include <algorithm>
#include <utility>

namespace rf {

Dtype resolve_dtype(const std::string& name, const json::Place& place) {
    if (name == "f32") return Dtype::f32;
    if (name == "bf16") return Dtype::bf16;
    if (name == "auto") return cpu_has_bf16() ? Dtype::bf16 : Dtype::f32;
    fail_usage(place.at("dtype"), ": expected \"auto\", \"f32\" or \"bf16\", found \"", name, "\"");
}

namespace {
/// Pieces of staging memory: enough that a step of several lanes never waits for the one before.
constexpr std::size_t staging_pieces = 64;
}  // namespace

MlmModel::MlmModel(const ModelConfig& config, ParallelGrid& grid, const Options& options)
    : config_(config),
      grid_(grid),
      options_(options),
      stream_(options.device),
      staging_(options.device, staging_pieces),
      arena_(options.device),
      layout_(grid.tensor->rank(), grid.tensor->size()),
      encoder_(config_, layout_),
      head_(config_, encoder_),
      state_(layout_, grid, options.device, options.dtype, options.training, options.bucket),
      sums_(2 * 8, options.device) {
    RF_REQUIRE(layout_.parameter_count() == config_.parameter_count(), "the layout holds ", layout_.parameter_count(),
               " parameters, the formula gives ", config_.parameter_count());
    const Dtype wide = accumulator_of(options.dtype);
    const Shape shape{options.max_length, config_.head_size() / 2, 2};
    const Buffer host(shape.count() * size_of(wide));
    rotary_table(host.tensor(shape, wide));
    rotary_ = Buffer(host.size(), options.device);
    rotary_table_ = rotary_.tensor(shape, wide);
    upload(stream_, host.data(), rotary_table_);
}

void MlmModel::initialise() {
    const Tensor& master = state_.master();
    const Buffer host(master.bytes());
    const Tensor values = host.tensor(master.shape, master.dtype);
    rf::initialise(layout_, options_.seed, config_.initial_gain(), values, state_.shards(), state_.data_rank());
    upload(stream_, values.data, master);
    state_.publish_weights(stream_, *grid_.data);
}

bool MlmModel::load(const std::filesystem::path& checkpoint) {
    const bool moments = read_checkpoint(checkpoint, stream_, layout_, state_);
    state_.publish_weights(stream_, *grid_.data);
    return moments;
}

StepContext MlmModel::context(const DeviceBatch& batch, const Scalar& alpha, bool training) {
    return {.model = config_,
            .stream = stream_,
            .arena = arena_,
            .tensor = *grid_.tensor,
            .batch = batch.view(),
            .rotary_table = rotary_table_,
            .alpha = config_.residual_mode == "alpha" ? alpha : Scalar(1),
            .training = training,
            .seed = options_.seed,
            .backward = &backward_};
}

void MlmModel::run(const DeviceBatch& batch, const Scalar& alpha, const Scalar& factor, const Tensor& gradient, const Tensor& sums,
                   const Complete& complete) {
    StepContext step = context(batch, alpha, true);
    int first = state_.shards().buckets();  // from it on they are complete
    if (complete) {
        step.complete = [&](std::int64_t element) {
            const int now = state_.shards().first_behind(element);
            if (now < first) complete(first = now);
        };
    }
    const ParamView weights = state_.weights(), grads(layout_, gradient);
    Encoder::Saved saved;
    const Tensor x = encoder_.forward(step, weights, saved);
    const Tensor dx = arena_.tensor_like(x);
    head_.forward_backward(step, weights, grads, x, batch.targets(), factor, dx, sums);
    const Timed backward(step.backward, stream_);
    encoder_.backward(step, weights, grads, dx, saved);
}

void MlmModel::reset_arena() {
    if (!arena_.reset()) return;
    for (auto& [sizes, bucket] : buckets_) bucket.captured.clear();  // they hold the old addresses
}

void MlmModel::forward_backward(const PackedBatch& batch, const Scalar& alpha, const Scalar& factor, const Tensor& gradient, const Tensor& sums,
                                const Complete& complete) {
    if (batch.tokens() == 0) return;
    IdGroups groups = group_by_id(batch.ids);
    const BatchSizes sizes = BatchSizes::of(batch, groups);
    if (options_.device == Device::cpu) {
        batch_.load(stream_, staging_, batch, sizes, std::move(groups));
        reset_arena();
        return run(batch_, alpha, factor, gradient, sums, complete);
    }
    const BatchSizes rounded = sizes.bucket();
    Bucket& bucket = buckets_[rounded];
    bucket.batch.load(stream_, staging_, batch, rounded, std::move(groups));
    // The first step of a bucket runs as it is: it sizes the arena and lets the matrix library choose its plans.
    const std::pair key(gradient.data, complete != nullptr);
    if (!bucket.captured[key].work) {
        reset_arena();  // may drop what was captured
        const auto work = [&](const Complete& told) { run(bucket.batch, alpha, factor, gradient, sums, told); };
        if (!bucket.ran || !options_.graphs || backward_.waits) {
            bucket.ran = true;
            return work(complete);
        }
        Captured& captured = bucket.captured[key];
        const Complete cut = [&](int first) {
            captured.work.cut(stream_);
            captured.complete.push_back(first);
        };
        captured.work.capture(stream_, [&] { work(complete ? cut : Complete{}); });
    }
    const Captured& captured = bucket.captured[key];
    captured.work.replay(stream_, [&](std::size_t piece) { complete(captured.complete[piece]); });
}

const DeviceBatch& MlmModel::load_exact(const PackedBatch& batch) {
    IdGroups groups = group_by_id(batch.ids);
    const BatchSizes sizes = BatchSizes::of(batch, groups);
    batch_.load(stream_, staging_, batch, sizes, std::move(groups));
    reset_arena();
    return batch_;
}

MlmSums MlmModel::evaluate(const PackedBatch& batch, double alpha) {
    if (batch.tokens() == 0) return {};
    const StepContext step = context(load_exact(batch), alpha, false);
    Encoder::Saved saved;
    const Tensor x = encoder_.forward(step, state_.weights(), saved), sums = sums_.tensor({2}, Dtype::f64);
    fill_zero(stream_, sums);
    head_.evaluate(step, state_.weights(), x, batch_.targets(), sums);
    double host[2];
    download(stream_, sums, host);
    return {.loss = host[0], .count = static_cast<std::int64_t>(batch.targets.size()), .correct = static_cast<std::int64_t>(host[1])};
}

std::vector<float> MlmModel::to_host(const Tensor& t) {
    const Tensor wide = arena_.tensor(t.shape, Dtype::f32);
    cast(stream_, {.x = t, .y = wide});
    std::vector<float> host(static_cast<std::size_t>(t.count()));
    download(stream_, wide, host.data());
    return host;
}

std::vector<float> MlmModel::encode(const PackedBatch& batch, double alpha) {
    const StepContext step = context(load_exact(batch), alpha, false);
    Encoder::Saved saved;
    return to_host(encoder_.forward(step, state_.weights(), saved));
}

std::vector<float> MlmModel::logits(const PackedBatch& batch, double alpha) {
    const StepContext step = context(load_exact(batch), alpha, false);
    Encoder::Saved saved;
    const Tensor x = encoder_.forward(step, state_.weights(), saved);
    const std::vector<float> part = to_host(head_.logits(step, state_.weights(), x, batch_.targets().rows));
    if (grid_.tensor->size() == 1) return part;
    // Parts of the vocabulary may differ by one column: padded to the widest, gathered, put in place.
    const std::int64_t m = static_cast<std::int64_t>(batch.rows.size()), v = config_.vocab_size;
    const int ranks = grid_.tensor->size();
    const std::int64_t widest = (v + ranks - 1) / ranks, own = static_cast<std::int64_t>(part.size()) / std::max<std::int64_t>(m, 1);
    std::vector<float> padded(static_cast<std::size_t>(m * widest)), all(padded.size() * static_cast<std::size_t>(ranks)), whole(static_cast<std::size_t>(m * v));
    for (std::int64_t i = 0; i < m; ++i) std::copy_n(part.begin() + i * own, own, padded.begin() + i * widest);
    Stream host;
    grid_.tensor->all_gather(host, view(std::as_const(padded).data(), {m * widest}), view(all.data(), {ranks * m * widest}));
    for (int r = 0; r < ranks; ++r) {
        const std::int64_t begin = part_begin(v, r, ranks), width = part_begin(v, r + 1, ranks) - begin;
        for (std::int64_t i = 0; i < m; ++i) std::copy_n(all.begin() + (r * m + i) * widest, width, whole.begin() + i * v + begin);
    }
    return whole;
}

}  // namespace rf
