#include "train/encoder_model.hpp"

#include "core/cpu.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/rotary.hpp"
#include "params/initialise.hpp"

#include <algorithm>
#include <set>
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

void check_count(const ParamLayout& layout, const ModelConfig& config) {
    RF_REQUIRE(layout.parameter_count() == config.parameter_count(), "the layout holds ", layout.parameter_count(), " parameters, the formula gives ",
               config.parameter_count());
}

std::vector<std::unique_ptr<tasks::TaskHead>> make_heads(const ModelConfig& config, const std::vector<EncoderModel::Head>& heads, ParamLayout& layout) {
    std::vector<std::unique_ptr<tasks::TaskHead>> made;
    for (const EncoderModel::Head& head : heads) made.push_back(tasks::make_head(config, head.task, head.choices, layout));
    return made;
}
}  // namespace

EncoderModel::EncoderModel(const ModelConfig& config, ParallelGrid& grid, const Options& options, std::vector<Head> heads)
    : config_(config),
      grid_(grid),
      options_(options),
      stream_(options.device),
      staging_(options.device, staging_pieces),
      arena_(options.device),
      layout_(grid.tensor->rank(), grid.tensor->size()),
      encoder_(config_, layout_),
      shared_groups_(layout_.group_count()),
      mlm_(config_, encoder_, layout_),
      head_tasks_((check_count(layout_, config_), std::move(heads))),
      heads_(make_heads(config_, head_tasks_, layout_)),
      state_(layout_, grid, options.device, options.dtype, options.training, options.bucket),
      sums_(2 * 8, options.device) {
    const bool learned = config_.style().learned_positions;
    if (learned && options_.max_length > config_.max_position_embeddings)
        fail_usage("model.max_position_embeddings: ", config_.max_position_embeddings, " learned positions are too few for sequences of ", options_.max_length, " tokens");
    if (!learned) add_rotary(config_.head_size());
    for (const auto& head : heads_)
        if (head->rotary_size() > 0) add_rotary(head->rotary_size());
}

void EncoderModel::add_rotary(std::int64_t head_size) {
    const Dtype wide = accumulator_of(options_.dtype);
    const Shape shape{options_.max_length, head_size / 2, 2};
    const Buffer host(shape.count() * size_of(wide));
    rotary_table(host.tensor(shape, wide));
    Buffer& table = rotary_[head_size] = Buffer(host.size(), options_.device);
    upload(stream_, host.data(), table.tensor(shape, wide));
}

Tensor EncoderModel::rotary(std::int64_t head_size) const {
    return rotary_.at(head_size).tensor({options_.max_length, head_size / 2, 2}, accumulator_of(options_.dtype));
}

tasks::HeadLabels EncoderModel::labels_of(const DeviceBatch& batch) const {
    tasks::HeadLabels labels = batch.labels();
    if (const std::int64_t size = heads_[static_cast<std::size_t>(batch.head())]->rotary_size(); size > 0) labels.rotary = rotary(size);
    return labels;
}

void EncoderModel::initialise() {
    const Tensor& master = state_.master();
    const Buffer host(master.bytes());
    const Tensor values = host.tensor(master.shape, master.dtype);
    const InitialScale scale(config_.initial_gain(), config_.init_mode == "fixed" ? config_.initializer_range : 0);
    rf::initialise(layout_, options_.seed, scale, values, state_.shards(), state_.data_rank());
    upload(stream_, values.data, master);
    state_.publish_weights(stream_, *grid_.data);
}

bool EncoderModel::load(const std::filesystem::path& checkpoint, bool new_heads) {
    if (new_heads) {
        std::set<std::string> there;
        for (const auto& [name, shape] : list_checkpoint(checkpoint)) there.insert(name);
        if (std::ranges::any_of(layout_.entries(), [&](const ParamEntry& entry) { return !there.contains(entry.spec.name); })) initialise();
    }
    bool moments = false;
    std::string damage;  // each rank reads, and so checks, what it needs
    try {
        moments = read_checkpoint(checkpoint, stream_, layout_, state_, new_heads ? std::string(tasks::head_prefix) : std::string());
    } catch (const Damage& e) {
        damage = e.what();
    }
    if (damage = grid_.world.first_text(damage); !damage.empty()) throw Damage(damage);
    state_.publish_weights(stream_, *grid_.data);
    return moments;
}

void EncoderModel::clear_moments() {
    for (const Tensor& moment : {state_.m(), state_.v()}) fill_zero(stream_, moment);
}

StepContext EncoderModel::context(const DeviceBatch& batch, const Scalar& alpha, bool training) {
    StepContext step{.model = config_,
            .stream = stream_,
            .arena = arena_,
            .tensor = *grid_.tensor,
            .batch = batch.view(),
            .rotary_table = config_.style().learned_positions ? Tensor{} : rotary(config_.head_size()),
            .alpha = config_.residual_mode == "alpha" ? alpha : Scalar(1),
            .training = training,
            .keeps = training,
            .seed = options_.seed,
            .backward = &backward_};
    if (batch.head() != tasks::mlm_head && heads_[static_cast<std::size_t>(batch.head())]->reads_every_token()) step.batch.read = {};
    return step;
}

void EncoderModel::clear_sums(const Tensor& gradient) {
    std::int64_t from = 0;
    const auto clear_to = [&](std::int64_t end) {
        if (from < end) fill_zero(stream_, gradient.part(from, {end - from}));
    };
    for (const ParamId id : encoder_.overwritten()) {  // in the order of the layout
        const ParamEntry& entry = layout_[id];
        clear_to(entry.offset);
        from = entry.offset + entry.local.count();
    }
    clear_to(gradient.count());
}

void EncoderModel::run(const DeviceBatch& batch, const Scalar& alpha, const Scalar& factor, const GradientSum& gradient, const Tensor& sums,
                   const Complete& complete) {
    StepContext step = context(batch, alpha, true);
    step.fresh = gradient.fresh;
    int first = state_.shards().buckets();  // from it on they are complete
    if (complete) {
        step.complete = [&](std::int64_t element) {
            const int now = state_.shards().first_behind(element);
            if (now < first) complete(first = now);
        };
    }
    const ParamView weights = state_.weights(), grads(layout_, gradient.flat);
    Encoder::Saved saved;
    const Tensor x = encoder_.forward(step, weights, saved);
    const Tensor dx = arena_.tensor_like(x);
    if (batch.head() == tasks::mlm_head) mlm_.forward_backward(step, weights, grads, x, batch.targets(), factor, dx, sums);
    else heads_[static_cast<std::size_t>(batch.head())]->forward_backward(step, weights, grads, x, labels_of(batch), factor, dx, sums);
    const Timed backward(step.backward, stream_);
    encoder_.backward(step, weights, grads, dx, saved);
}

void EncoderModel::reset_arena() {
    if (!arena_.reset()) return;
    for (auto& [sizes, bucket] : buckets_) bucket.captured.clear();  // they hold the old addresses
}

void EncoderModel::forward_backward(const tasks::LaneBatch& batch, const Scalar& alpha, const Scalar& factor, const GradientSum& gradient, const Tensor& sums,
                                const Complete& complete) {
    if (batch.packed.tokens() == 0) {
        if (gradient.fresh) fill_zero(stream_, gradient.flat);
        return;
    }
    if (gradient.fresh) clear_sums(gradient.flat);
    IdGroups groups = group_by_id(batch.packed.ids);
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
    const std::tuple key(gradient.flat.data, complete != nullptr, gradient.fresh);
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

const DeviceBatch& EncoderModel::load_exact(const tasks::LaneBatch& batch) {
    IdGroups groups = group_by_id(batch.packed.ids);
    const BatchSizes sizes = BatchSizes::of(batch, groups);
    batch_.load(stream_, staging_, batch, sizes, std::move(groups));
    reset_arena();
    return batch_;
}

HeadSums EncoderModel::evaluate(const tasks::LaneBatch& batch, double alpha, tasks::Outputs* outputs) {
    if (batch.packed.tokens() == 0) return {};
    const StepContext step = context(load_exact(batch), alpha, false);
    Encoder::Saved saved;
    const Tensor x = encoder_.forward(step, state_.weights(), saved), sums = sums_.tensor({2}, Dtype::f64);
    fill_zero(stream_, sums);
    std::int64_t counted = batch.counted();
    if (batch.head == tasks::mlm_head) {
        mlm_.evaluate(step, state_.weights(), x, batch_.targets(), sums);
    } else {
        const tasks::TaskHead& head = *heads_[static_cast<std::size_t>(batch.head)];
        const tasks::HeadLabels labels = labels_of(batch_);
        if (head.fits(x, labels)) head.evaluate(step, state_.weights(), x, labels, sums);
        else counted = 0;
        if (outputs) *outputs = head.outputs(step, state_.weights(), x, labels);
    }
    double host[2];
    download(stream_, sums, host);
    return {.loss = host[0], .count = counted, .correct = static_cast<std::int64_t>(host[1])};
}

std::vector<float> EncoderModel::to_host(const Tensor& t) {
    const Tensor wide = arena_.tensor(t.shape, Dtype::f32);
    cast(stream_, {.x = t, .y = wide});
    std::vector<float> host(static_cast<std::size_t>(t.count()));
    download(stream_, wide, host.data());
    return host;
}

std::vector<float> EncoderModel::encode(const tasks::LaneBatch& batch, double alpha) {
    StepContext step = context(load_exact(batch), alpha, false);
    step.batch.read = {};  // every token
    Encoder::Saved saved;
    return to_host(encoder_.forward(step, state_.weights(), saved));
}

std::vector<float> EncoderModel::logits(const tasks::LaneBatch& batch, double alpha) {
    const StepContext step = context(load_exact(batch), alpha, false);
    Encoder::Saved saved;
    const Tensor x = encoder_.forward(step, state_.weights(), saved);
    const std::vector<float> part = to_host(mlm_.logits(step, state_.weights(), x));
    if (grid_.tensor->size() == 1) return part;
    // Parts of the vocabulary may differ by one column: padded to the widest, gathered, put in place.
    const std::int64_t m = static_cast<std::int64_t>(batch.packed.rows.size()), v = config_.vocab_size;
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
