#pragma once
/// One update: micro-steps of lanes forward and backward, the tree's sum of each, their mixture, the optimizer, the new weights; and
/// held-out evaluation. On a GPU an update is put on the stream and its numbers are read when the next one is already under way.

#include "optim/gradient_mix.hpp"
#include "optim/lane_tree.hpp"
#include "optim/optimizer.hpp"
#include "train/encoder_model.hpp"

#include <deque>

namespace rf {

/// What one micro-step learnt from: one task, over all ranks.
struct StepStats {
    int head = tasks::mlm_head;
    double loss = 0;           ///< mean over what its head counts: predicted tokens (nats), examples or sequences
    double accuracy = 0;       ///< share of them answered rightly
    std::int64_t counted = 0;
    double gradient_norm = 0;  ///< of its mean loss, over what TrainerOptions::normalise names; with one plain micro-step not measured: 0
    double weight = 1;         ///< its gradient's, after normalisation
    double cosine = 0;         ///< between its gradient and the mixture, over the shared tensors; NaN where not measured
};

struct UpdateStats {
    std::int64_t update = 0;   ///< number, from 1
    double loss = 0;           ///< mean over the micro-steps
    double accuracy = 0;       ///< likewise
    double gradient_norm = 0;  ///< global, before clipping
    std::int64_t targets = 0;  ///< what the losses were counted over
    std::int64_t tokens = 0;   ///< real tokens, [CLS] and [SEP] included
    double flops = 0;          ///< model FLOPs of the update over all ranks
    std::string not_finite;    ///< why it was skipped (tensor, lane, rank), or empty: it was applied
    std::vector<StepStats> steps;
};

/// Loss or gradient were not finite once more than a run may skip: step, rank and tensor are in the message.
class NotFinite : public Error {
    using Error::Error;
};

/// Lanes of this rank, and what they learn together.
using MicroStep = std::vector<tasks::LaneBatch>;

struct TrainerOptions {
    int lanes = 1;        ///< of a micro-step
    int micro_steps = 1;  ///< of an update, each of one head
    Normalise normalise = Normalise::none;
    bool min_norm = false;  ///< weights of least norm (optim/gradient_mix.hpp) in place of equal ones
    std::int64_t skips_allowed = 0;  ///< updates in a row whose loss or gradient is not finite and that are left out
    std::int64_t cosine_every = 0;  ///< updates between those whose cosines are measured; 0: none. They cost micro_steps² passes over a shard
};

class Trainer {
public:
    Trainer(EncoderModel& model, ParallelGrid& grid, const OptimizerConfig& optimizer, const TrainerOptions& options);

    int first_lane() const { return gradients_.first_lane(); }
    int lane_count() const { return gradients_.lane_count(); }
    /// Starts an update; each micro-step holds this rank's lanes, `update` counts from 1. The gradient applied is the mean of the
    /// micro-steps' gradients, each divided by its norm where `normalise` says so. Collective.
    void launch(std::vector<MicroStep> steps, std::int64_t update, double lr, double alpha);
    /// The same with one micro-step of masked language modelling.
    void launch(const std::vector<PackedBatch>& lanes, std::int64_t update, double lr, double alpha);
    /// Updates started and not waited for.
    int in_flight() const { return static_cast<int>(pending_.size()); }
    /// How many of them keep the device busy while the host prepares the next one: 0 on the CPU, 1 on a GPU.
    int depth() const { return model_.stream().device() == Device::cpu ? 0 : 1; }
    /// The oldest update's numbers. Collective. Where loss or gradient were not finite nothing was applied, on any rank, and
    /// `not_finite` says what was met; after more than `skips_allowed` of these in a row it throws NotFinite, and nothing after
    /// them was applied either.
    UpdateStats wait();
    /// Of one tensor in the last update: |gradient| before clipping, |weights| before it and |change| of the weights.
    struct TensorNorms {
        std::string name;
        double gradient = 0, weights = 0, change = 0;
    };
    /// Of every tensor, in layout order. `before`: this rank's master weights before that update, which are overwritten. Only when nothing is in
    /// flight. Collective.
    std::vector<TensorNorms> tensor_norms(const Tensor& before);
    /// Works on a lane of this rank twice and compares the bits, and the weights with those of the other data ranks; says what differs,
    /// or nothing. Then memory or a processor cannot be trusted. Collective; changes nothing.
    std::string find_faults(const tasks::LaneBatch& lane, double alpha);
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
        std::vector<MicroStep> steps;
        std::vector<double> factors;  ///< 1 / counted, of each
        double alpha = 1;
        std::size_t slot = 0;
    };
    /// What all ranks will work on, summed in lane order.
    void count(Pending& pending);
    void upload_numbers(const Pending& pending, double lr);
    Tensor scalar(std::int64_t at) const { return scalars_.tensor({1}, Dtype::f64, at * 8); }
    /// The micro-step's gradient, summed over lanes and ranks: this rank's shard.
    Tensor gradient_of(const Pending& pending, int step);
    /// The mixture of all micro-steps' gradients.
    Tensor mix(Pending& pending);
    void mix_with_gram(Pending& pending, const Tensor& total);
    bool keeps_gradients(std::int64_t update) const { return options_.min_norm || (options_.cosine_every > 0 && update % options_.cosine_every == 0); }
    bool plain() const { return options_.micro_steps == 1 && options_.normalise == Normalise::none; }
    /// The first lane, counted over all micro-steps, whose gradient alone is not finite, or the number of all when only their sum is not.
    /// Collective.
    int find_not_finite(const Pending& update);
    /// gradient = that of factor * the lane's loss, outside any update.
    void work_aside(const tasks::LaneBatch& lane, double alpha, double factor, const Tensor& gradient);
    std::string describe_not_finite(const Pending& update, double loss, const double* control, bool alone);
    double phase_end();
    bool overlaps() const;

    EncoderModel& model_;
    ParallelGrid& grid_;
    TrainerOptions options_;
    LaneGradients gradients_;
    Optimizer optimizer_;
    GradientMix mix_;
    Buffer scalars_, lane_sums_, all_sums_, norms_, total_;
    std::vector<Buffer> kept_;     ///< gradients of the micro-steps, where all are needed at once
    std::vector<Buffer> results_;  ///< pinned; all lanes' sums, then norms, then control
    std::vector<Event> done_;
    std::deque<Pending> pending_;
    Times times_;
    double lanes_time_ = 0, lane_sums_time_ = 0;
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
Evaluation evaluate(EncoderModel& model, ParallelGrid& grid, const SampleStream& stream, std::int64_t group, double alpha);

/// Cross-entropy (nats) of the held-out targets under the corpus' token frequencies (add-one): what a model that sees
/// no context can reach.
double unigram_cross_entropy(const SampleStream& stream);

}  // namespace rf
