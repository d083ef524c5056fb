#pragma once
/// An encoder with its MLM head and the numbers it works on, on one rank: what training, evaluation, encoding and
/// filling masks share.

#include "data/batch.hpp"
#include "model/mlm_head.hpp"
#include "params/checkpoint.hpp"

namespace rf {

/// f32, or bf16 where "auto" finds a processor that multiplies it. Throws UsageError for anything else.
Dtype resolve_dtype(const std::string& name, const json::Place& place);
/// "cpu" and "auto" are the CPU in this build; "cuda" is a UsageError that says so.
Device resolve_device(const std::string& name, const json::Place& place);

class MlmModel {
public:
    MlmModel(const ModelConfig& config, ParallelGrid& grid, Dtype dtype, bool training, std::int64_t max_length, std::uint64_t seed);

    /// Truncated normal weights of config.init_mode from the seed.
    void initialise();
    /// Weights (and moments, when both sides have them; returned) of a checkpoint.
    bool load(const std::filesystem::path& checkpoint);

    const ModelConfig& config() const { return config_; }
    const ParamLayout& layout() const { return layout_; }
    const ParamState& state() const { return state_; }
    Dtype dtype() const { return dtype_; }
    Stream& stream() { return stream_; }
    Arena& arena() { return arena_; }

    /// Forward and backward of one packed batch: the gradient of factor * sum(loss) is added to `gradient` (flat).
    MlmSums forward_backward(const PackedBatch& batch, double alpha, double factor, const Tensor& gradient);
    /// Forward and loss without dropout.
    MlmSums evaluate(const PackedBatch& batch, double alpha);
    /// Last hidden states [T, C] without dropout, in the arena: valid until the next call.
    Tensor encode(const PackedBatch& batch, double alpha);
    /// Logits [M, V] of the batch's rows, whole, f32, without dropout; in the arena.
    Tensor logits(const PackedBatch& batch, double alpha);

private:
    StepContext step(const PackedBatch& batch, double alpha, bool training);

    ModelConfig config_;
    ParallelGrid& grid_;
    Dtype dtype_;
    std::uint64_t seed_;
    Stream stream_;
    Arena arena_;
    ParamLayout layout_;
    Encoder encoder_;
    MlmHead head_;
    ParamState state_;
    Buffer rotary_;
    Tensor rotary_table_;
};

}  // namespace rf
