#pragma once
/// One update: lanes forward and backward, the tree's sum, the optimizer, the new weights; and held-out evaluation.
/// On a GPU an update is put on the stream and its numbers are read when the next one is already under way.

#include "optim/lane_tree.hpp"
#include "optim/optimizer.hpp"
#include "train/mlm_model.hpp"

#include <deque>

namespace rf {

struct UpdateStats {
    std::int64_t update = 0;   ///< number, from 1
    double loss = 0;           ///< mean cross-entropy over the predicted positions of the whole global batch, nats
    double accuracy = 0;       ///< share of them whose largest logit is the target's
    double gradient_norm = 0;  ///< global, before clipping
    std::int64_t targets = 0;
    std::int64_t tokens = 0;   ///< real tokens, [CLS] and [SEP] included
    double flops = 0;          ///< model FLOPs of the update over all ranks
};

/// What an update or an evaluation met that must stop a run: step, rank and tensor are in the message.
class NotFinite : public Error {
    using Error::Error;
};

class MlmTrainer {
public:
    MlmTrainer(MlmModel& model, ParallelGrid& grid, const OptimizerConfig& optimizer, int lanes);

    int first_lane() const { return gradients_.first_lane(); }
    int lane_count() const { return gradients_.lane_count(); }
    /// Starts an update; `batches` are this rank's lanes, `update` counts from 1. Collective.
    void launch(const std::vector<PackedBatch>& batches, std::int64_t update, double lr, double alpha);
    /// Updates started and not waited for.
    int in_flight() const { return static_cast<int>(pending_.size()); }
    /// How many of them keep the device busy while the host prepares the next one: 0 on the CPU, 1 on a GPU.
    int depth() const { return model_.stream().device() == Device::cpu ? 0 : 1; }
    /// The oldest update's numbers. Collective. Throws NotFinite where loss or gradient were not finite; that update (and
    /// none after it) was not applied.
    UpdateStats wait();
    /// launch and wait.
    UpdateStats update(const std::vector<PackedBatch>& batches, std::int64_t update, double lr, double alpha);

    /// Seconds of the last update, which they add up to. On a GPU only when `measure_phases` is set: it then waits for the
    /// device after each (and captures nothing).
    struct Times {
        double forward = 0;      ///< all lanes: embedding to loss
        double backward = 0;     ///< all lanes
        double lane_sums = 0;    ///< clearing gradients and adding this rank's lanes
        double communicate = 0;  ///< gradients and weights, as far as no lane was worked on meanwhile
        double optimize = 0;
    };
    const Times& times() const { return times_; }
    void measure_phases(bool on) { model_.backward_time().waits = measure_ = on; }
    std::int64_t gradient_bytes() const { return gradients_.bytes(); }

private:
    /// Host and device memory of the numbers of one update in flight.
    struct Pending {
        UpdateStats stats;
        std::vector<PackedBatch> batches;
        double alpha = 1, factor = 0;
        std::size_t slot = 0;
    };
    /// The first lane whose gradient alone is not finite, or the number of lanes when only their sum is not. Collective.
    int find_not_finite(const Pending& update);
    double phase_end();
    bool overlaps() const;

    MlmModel& model_;
    ParallelGrid& grid_;
    int lanes_;
    LaneGradients gradients_;
    Optimizer optimizer_;
    Buffer scalars_, lane_sums_, all_sums_;
    std::vector<Buffer> results_;  ///< pinned; all lanes' sums, then control
    std::vector<Event> done_;
    std::deque<Pending> pending_;
    Times times_;
    bool measure_ = false;
};

struct Evaluation {
    double loss = 0;        ///< nats per predicted token
    double accuracy = 0;
    double perplexity = 0;  ///< exp(loss)
    std::int64_t targets = 0;
};
/// Over the stream's held-out documents in groups of `group`, spread over the data ranks. Collective; the result does not
/// depend on their number.
Evaluation evaluate(MlmModel& model, ParallelGrid& grid, const SampleStream& stream, std::int64_t group, double alpha);

/// Cross-entropy (nats) of the held-out targets under the corpus' token frequencies (add-one): what a model that sees
/// no context can reach.
double unigram_cross_entropy(const SampleStream& stream);

}  // namespace rf
