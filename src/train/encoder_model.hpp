#pragma once
/// An encoder with the heads behind it and the numbers it works on, on one rank: what training, evaluation, encoding, filling masks
/// and supervised tasks share. The heads' parameters stand behind the encoder's in the same flat layout.

#include "params/checkpoint.hpp"
#include "train/device_batch.hpp"

#include <functional>
#include <map>
#include <memory>
#include <tuple>

namespace rf {

/// f32, or bf16 where "auto" finds a processor that multiplies it. Throws UsageError for anything else.
Dtype resolve_dtype(const std::string& name, const json::Place& place);

/// Sums over what a batch's head is judged by: predicted positions, examples, or sequences.
struct HeadSums {
    double loss = 0;           ///< in nats; squares of a regression
    std::int64_t count = 0;
    std::int64_t correct = 0;  ///< answered rightly
};

class EncoderModel {
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
    /// Heads are made from the tasks, in their order, after the encoder.
    struct Head {
        tasks::Task task;
        std::int64_t choices = 0;  ///< tasks::choices_of
    };
    EncoderModel(const ModelConfig& config, ParallelGrid& grid, const Options& options, std::vector<Head> heads = {});

    /// Truncated normal weights of config.init_mode from the seed.
    void initialise();
    /// Weights (and moments, when both sides have them; returned) of a checkpoint. Heads that it has not begin fresh, where `new_heads`
    /// allows it: then everything is drawn from the seed first, which takes longer than reading.
    /// Throws Damage, on every rank alike, where a file is not what its digest says; the state is then undefined.
    bool load(const std::filesystem::path& checkpoint, bool new_heads = false);
    /// Moments of zero: a new run begins.
    void clear_moments();

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
    /// Where a gradient goes: it is added to what the flat tensor holds, or takes the place of it (`fresh`), which saves clearing it.
    struct GradientSum {
        GradientSum(const Tensor& flat, bool fresh = false) : flat(flat), fresh(fresh) {}
        Tensor flat;
        bool fresh;
    };
    /// Forward and backward of one packed batch: `gradient` gets that of factor * sum(loss), and { loss, correct } are added to `sums` [2] f64. In stream order; alpha and
    /// factor are read when the work runs. `complete` may be empty; it is not called for the last buckets to be complete.
    void forward_backward(const tasks::LaneBatch& batch, const Scalar& alpha, const Scalar& factor, const GradientSum& gradient, const Tensor& sums,
                          const Complete& complete = {});
    /// Forward and loss without dropout; nothing is counted where the head has no loss for such examples. Of a task `outputs` (where given)
    /// gets what its head says.
    HeadSums evaluate(const tasks::LaneBatch& batch, double alpha, tasks::Outputs* outputs = nullptr);
    /// Trust-ratio groups of what all heads share: the encoder's.
    std::int64_t shared_groups() const { return shared_groups_; }
    const std::vector<Head>& heads() const { return head_tasks_; }
    /// Last hidden states [T, C] without dropout, on the host.
    std::vector<float> encode(const tasks::LaneBatch& batch, double alpha);
    /// Logits [M, V] of the batch's rows, whole, without dropout, on the host.
    std::vector<float> logits(const tasks::LaneBatch& batch, double alpha);

private:
    /// A step that was captured, cut where buckets of its gradient are complete.
    struct Captured {
        CapturedWork work;
        std::vector<int> complete;  ///< from which bucket on, after each piece but the last
    };
    /// Steps of one bucket of sizes: their batch, and the captured work for each gradient buffer, whole and cut, added to and fresh.
    struct Bucket {
        DeviceBatch batch;
        std::map<std::tuple<void*, bool, bool>, Captured> captured;
        bool ran = false;
    };
    StepContext context(const DeviceBatch& batch, const Scalar& alpha, bool training);
    /// Clears what a fresh step adds to.
    void clear_sums(const Tensor& gradient);
    void run(const DeviceBatch& batch, const Scalar& alpha, const Scalar& factor, const GradientSum& gradient, const Tensor& sums,
             const Complete& complete);
    /// Loads a batch of its own sizes and empties the arena.
    const DeviceBatch& load_exact(const tasks::LaneBatch& batch);
    /// The batch's labels, with the angles of its head.
    tasks::HeadLabels labels_of(const DeviceBatch& batch) const;
    void reset_arena();
    void add_rotary(std::int64_t head_size);
    Tensor rotary(std::int64_t head_size) const;
    std::vector<float> to_host(const Tensor& t);

    ModelConfig config_;
    ParallelGrid& grid_;
    Options options_;
    Stream stream_;
    Staging staging_;
    Arena arena_;
    ParamLayout layout_;
    Encoder encoder_;
    std::int64_t shared_groups_;
    MlmHead mlm_;
    std::vector<Head> head_tasks_;
    std::vector<std::unique_ptr<tasks::TaskHead>> heads_;
    ParamState state_;
    Buffer sums_;
    std::map<std::int64_t, Buffer> rotary_;  ///< by head size
    DeviceBatch batch_;
    Stopwatch backward_;
    std::map<BatchSizes, Bucket> buckets_;
};

}  // namespace rf
