#pragma once
/// One update: lanes forward and backward, the tree's sum, the optimizer, the new weights; and held-out evaluation.

#include "optim/lane_tree.hpp"
#include "optim/optimizer.hpp"
#include "train/mlm_model.hpp"

namespace rf {

struct UpdateStats {
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
    /// `batches`: this rank's lanes. Collective. `update` counts from 1. Throws NotFinite before anything is applied.
    UpdateStats update(const std::vector<PackedBatch>& batches, std::int64_t update, double lr, double alpha);
    /// Seconds of the last update, which they add up to.
    struct Times {
        double forward = 0;      ///< all lanes: embedding to loss
        double backward = 0;     ///< all lanes
        double lane_sums = 0;    ///< clearing gradients and adding this rank's lanes
        double communicate = 0;  ///< gradients and weights
        double optimize = 0;
    };
    const Times& times() const { return times_; }
    std::int64_t gradient_bytes() const { return gradients_.bytes(); }

private:
    /// The first lane whose gradient alone is not finite, or the number of lanes when only their sum is not. Collective.
    int find_not_finite(const std::vector<PackedBatch>& batches, double alpha, double factor);

    MlmModel& model_;
    ParallelGrid& grid_;
    int lanes_;
    LaneGradients gradients_;
    Buffer shard_;
    Tensor shard_flat_;
    Optimizer optimizer_;
    Times times_;
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
