#include "train/mlm_model.hpp"

#include "core/cpu.hpp"
#include "kernels/rotary.hpp"
#include "params/initialise.hpp"

#include <chrono>
#include <cstring>

namespace rf {

Dtype resolve_dtype(const std::string& name, const json::Place& place) {
    if (name == "f32") return Dtype::f32;
    if (name == "bf16") return Dtype::bf16;
    if (name == "auto") return cpu_has_bf16() ? Dtype::bf16 : Dtype::f32;
    fail_usage(place.at("dtype"), ": expected \"auto\", \"f32\" or \"bf16\", found \"", name, "\"");
}

Device resolve_device(const std::string& name, const json::Place& place) {
    if (name == "cpu" || name == "auto") return Device::cpu;
    if (name == "cuda") fail_usage(place.at("device"), ": this build has no CUDA (use \"cpu\" or \"auto\")");
    fail_usage(place.at("device"), ": expected \"auto\", \"cpu\" or \"cuda\", found \"", name, "\"");
}

MlmModel::MlmModel(const ModelConfig& config, ParallelGrid& grid, Dtype dtype, bool training, std::int64_t max_length, std::uint64_t seed)
    : config_(config),
      grid_(grid),
      dtype_(dtype),
      seed_(seed),
      layout_(grid.tensor->rank(), grid.tensor->size()),
      encoder_(config_, layout_),
      head_(config_, encoder_),
      state_(layout_, grid, dtype, training) {
    RF_REQUIRE(layout_.parameter_count() == config_.parameter_count(), "the layout holds ", layout_.parameter_count(),
               " parameters, the formula gives ", config_.parameter_count());
    const Dtype wide = accumulator_of(dtype);
    rotary_ = Buffer(max_length * config_.head_size() * size_of(wide));
    rotary_table_ = rotary_.tensor({max_length, config_.head_size() / 2, 2}, wide);
    rotary_table(rotary_table_);
}

void MlmModel::initialise() {
    rf::initialise(layout_, seed_, config_.initial_gain(), state_.master(), state_.offset());
    state_.publish_weights(stream_, *grid_.data);
}

bool MlmModel::load(const std::filesystem::path& checkpoint) {
    const bool moments = read_checkpoint(checkpoint, layout_, state_);
    state_.publish_weights(stream_, *grid_.data);
    return moments;
}

namespace {
ConstTensor list(const std::vector<std::int32_t>& v) {
    static const std::int32_t none = 0;
    return view(v.empty() ? &none : v.data(), {static_cast<std::int64_t>(v.size())});
}
double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }
MlmTargets targets_of(const PackedBatch& batch) { return {.rows = list(batch.rows), .targets = list(batch.targets)}; }
}  // namespace

StepContext MlmModel::step(const PackedBatch& batch, double alpha, bool training) {
    arena_.reset();
    return {.model = config_,
            .stream = stream_,
            .arena = arena_,
            .tensor = *grid_.tensor,
            .batch = {.ids = list(batch.ids),
                      .segments = {},
                      .cu_seqlens = list(batch.cu_seqlens),
                      .sample = list(batch.sample),
                      .origin = {.sample = list(batch.token_sample), .position = list(batch.position)}},
            .rotary_table = rotary_table_,
            .alpha = config_.residual_mode == "alpha" ? alpha : 1,
            .training = training,
            .seed = seed_};
}

MlmSums MlmModel::forward_backward(const PackedBatch& batch, double alpha, double factor, const Tensor& gradient) {
    if (batch.tokens() == 0) return {};
    const StepContext context = step(batch, alpha, true);
    const ParamView weights = state_.weights(), grads(layout_, gradient);
    Encoder::Saved saved;
    const Tensor x = encoder_.forward(context, weights, saved);
    const Tensor dx = arena_.tensor_like(x);
    MlmSums sums = head_.forward_backward(context, weights, grads, x, targets_of(batch), factor, dx);
    const double begin_backward = seconds();
    encoder_.backward(context, weights, grads, dx, saved);
    sums.backward_seconds += seconds() - begin_backward;
    return sums;
}

MlmSums MlmModel::evaluate(const PackedBatch& batch, double alpha) {
    if (batch.tokens() == 0) return {};
    const StepContext context = step(batch, alpha, false);
    Encoder::Saved saved;
    const Tensor x = encoder_.forward(context, state_.weights(), saved);
    return head_.evaluate(context, state_.weights(), x, targets_of(batch));
}

Tensor MlmModel::encode(const PackedBatch& batch, double alpha) {
    const StepContext context = step(batch, alpha, false);
    Encoder::Saved saved;
    return encoder_.forward(context, state_.weights(), saved);
}

Tensor MlmModel::logits(const PackedBatch& batch, double alpha) {
    const StepContext context = step(batch, alpha, false);
    Encoder::Saved saved;
    const Tensor x = encoder_.forward(context, state_.weights(), saved);
    const Tensor part = head_.logits(context, state_.weights(), x, list(batch.rows));
    if (grid_.tensor->size() == 1) return part;
    // Parts of the vocabulary may differ by one column: padded to the widest, gathered, put in place.
    const std::int64_t m = part.shape[0], v = config_.vocab_size;
    const int ranks = grid_.tensor->size();
    const std::int64_t widest = (v + ranks - 1) / ranks;
    const Tensor padded = arena_.tensor({m, widest}, part.dtype), all = arena_.tensor({ranks, m, widest}, part.dtype);
    const Tensor whole = arena_.tensor({m, v}, part.dtype);
    const std::int64_t item = size_of(part.dtype);
    const auto at = [item](const Tensor& t, std::int64_t index) { return static_cast<char*>(t.data) + index * item; };
    for (std::int64_t i = 0; i < m; ++i)
        std::memcpy(at(padded, i * widest), at(part, i * part.shape[1]), static_cast<std::size_t>(part.shape[1] * item));
    grid_.tensor->all_gather(stream_, padded, all);
    for (int r = 0; r < ranks; ++r) {
        const std::int64_t begin = part_begin(v, r, ranks), width = part_begin(v, r + 1, ranks) - begin;
        for (std::int64_t i = 0; i < m; ++i)
            std::memcpy(at(whole, i * v + begin), at(all, (r * m + i) * widest), static_cast<std::size_t>(width * item));
    }
    return whole;
}

}  // namespace rf
