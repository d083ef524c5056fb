#pragma once
/// An encoder with its MLM head and the numbers it works on, on one rank: what training, evaluation, encoding and
/// filling masks share.

#include "params/checkpoint.hpp"
#include "train/device_batch.hpp"

#include <functional>
#include <map>

namespace rf {

/// f32, or bf16 where "auto" finds a processor that multiplies it. Throws UsageError for anything else.
Dtype resolve_dtype(const std::string& name, const json::Place& place);

/// Sums over the predicted positions of one packed batch.
struct MlmSums {
    double loss = 0;           ///< sum of cross-entropies, in nats
    std::int64_t count = 0;
    std::int64_t correct = 0;  ///< positions whose largest logit is the target's
};

class MlmModel {
public:
    struct Options {
        Device device = Device::cpu;
        Dtype dtype = Dtype::f32;
        bool training = false;         ///< with moments
        bool graphs = true;            ///< on a GPU: capture a training step once for each bucket of sizes, then replay it
        std::int64_t bucket = 0;       ///< elements of a gradient bucket; 0: the usual number (params/shards.hpp)
        std::int64_t max_length = 512;
        std::uint64_t seed = 1;
    };
    MlmModel(const ModelConfig& config, ParallelGrid& grid, const Options& options);

    /// Truncated normal weights of config.init_mode from the seed.
    void initialise();
    /// Weights (and moments, when both sides have them; returned) of a checkpoint.
    bool load(const std::filesystem::path& checkpoint);

    const ModelConfig& config() const { return config_; }
    const ParamLayout& layout() const { return layout_; }
    const ParamState& state() const { return state_; }
    Dtype dtype() const { return options_.dtype; }
    Stream& stream() { return stream_; }
    Arena& arena() { return arena_; }
    Staging& staging() { return staging_; }
    /// Time of gradients, over all steps; see Stopwatch.
    Stopwatch& backward_time() { return backward_; }

    /// Told while backward is put on the stream: to this bucket of the flat gradient (see Shards) and those behind it nothing more
    /// will be added by what follows there. What it then puts on streams is never captured: collectives of ranks whose batches
    /// have other sizes could not be.
    using Complete = std::function<void(int bucket)>;
    /// Forward and backward of one packed batch: the gradient of factor * sum(loss) is added to `gradient` (flat), and
    /// { loss, correct } to `sums` [2] f64. In stream order; alpha and factor are read when the work runs. `complete` may be empty;
    /// it is not called for the last buckets to be complete.
    void forward_backward(const PackedBatch& batch, const Scalar& alpha, const Scalar& factor, const Tensor& gradient, const Tensor& sums,
                          const Complete& complete = {});
    /// Forward and loss without dropout.
    MlmSums evaluate(const PackedBatch& batch, double alpha);
    /// Last hidden states [T, C] without dropout, on the host.
    std::vector<float> encode(const PackedBatch& batch, double alpha);
    /// Logits [M, V] of the batch's rows, whole, without dropout, on the host.
    std::vector<float> logits(const PackedBatch& batch, double alpha);

private:
    /// A step that was captured, cut where buckets of its gradient are complete.
    struct Captured {
        CapturedWork work;
        std::vector<int> complete;  ///< from which bucket on, after each piece but the last
    };
    /// Steps of one bucket of sizes: their batch, and the captured work for each gradient buffer they add to, whole and cut.
    struct Bucket {
        DeviceBatch batch;
        std::map<std::pair<void*, bool>, Captured> captured;
        bool ran = false;
    };
    StepContext context(const DeviceBatch& batch, const Scalar& alpha, bool training);
    void run(const DeviceBatch& batch, const Scalar& alpha, const Scalar& factor, const Tensor& gradient, const Tensor& sums,
             const Complete& complete);
    /// Loads a batch of its own sizes and empties the arena.
    const DeviceBatch& load_exact(const PackedBatch& batch);
    void reset_arena();
    std::vector<float> to_host(const Tensor& t);

    ModelConfig config_;
    ParallelGrid& grid_;
    Options options_;
    Stream stream_;
    Staging staging_;
    Arena arena_;
    ParamLayout layout_;
    Encoder encoder_;
    MlmHead head_;
    ParamState state_;
    Buffer rotary_, sums_;
    Tensor rotary_table_;
    DeviceBatch batch_;
    Stopwatch backward_;
    std::map<BatchSizes, Bucket> buckets_;
};

}  // namespace rf
