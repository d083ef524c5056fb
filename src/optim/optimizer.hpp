#pragma once

#include "core/buffer.hpp"
#include "io/json.hpp"
#include "params/state.hpp"

#include <boost/describe.hpp>

namespace rf {

/// LAMB as the article's recipe runs it (section "Optimiser algebra" of bert4keras' wrappers: no bias correction, decay on
/// every tensor, trust ratio |p| / |update| per tensor without limits; You et al. 2020) or AdamW (Loshchilov & Hutter 2019).
struct OptimizerConfig {
    std::string name = "lamb";
    double lr = 1.76e-3;            ///< times schedule.lr
    double beta1 = 0.9;
    double beta2 = 0.999;
    double epsilon = 1e-6;
    double weight_decay = 0.01;
    double max_gradient_norm = 0;   ///< clip to this global norm; 0: off, as in the recipe
    /// A tensor whose gradient is exactly zero is left alone. Otherwise LAMB would normalise its decay to full size
    /// (trust ratio 1 / weight_decay) while alpha is small or ReZero's scales are still 0.
    bool skip_zero_gradient = true;

    void check(const json::Place& place) const;
};
BOOST_DESCRIBE_STRUCT(OptimizerConfig, (),
                      (name, lr, beta1, beta2, epsilon, weight_decay, max_gradient_norm, skip_zero_gradient))

/// Steps the shard of a ParamState. Norms are joined in the fixed order of the layout's segments: no bit depends on the
/// number of data ranks. Everything stays in memory of the state's device: nothing is read back inside a step.
class Optimizer {
public:
    Optimizer(const OptimizerConfig& config, const ParamState& state, ParallelGrid& grid, Stream& stream);

    /// What the host decides of update number `update` (from 1): the first slots of `control()`.
    struct Numbers {
        double lr = 0, correction1 = 1, correction2 = 1;
    };
    Numbers numbers(std::int64_t update, double lr) const;
    /// [control_slots] f64: the caller puts the Numbers in front before `step`, and reads the rest when the stream is done.
    const Tensor& control() const { return control_; }
    /// `gradient` [shard]. When it is not finite nothing is applied, and control() names the first tensor's group.
    void step(Stream& stream, const Tensor& gradient);

private:
    /// Totals per trust-ratio group from this shard's segment sums, over data and tensor ranks, in groups_.
    void join(Stream& stream);

    OptimizerConfig config_;
    const ParamState& state_;
    ParallelGrid& grid_;
    /// Rows of own_ that stand one after the other in sums_ too.
    struct Run {
        std::int64_t own = 0, all = 0, count = 0;
    };
    Buffer segments_;     ///< Segments of this shard, numbered by their place in it
    Buffer sums_;         ///< [all segments, 3] f64
    Buffer own_memory_;   ///< of own_ where other ranks have segments too
    Buffer group_begin_, counted_, groups_, rates_, control_memory_;
    std::vector<Run> runs_;  ///< one a bucket
    Tensor own_, control_;   ///< own_: [segments of this shard, 3]
};

}  // namespace rf
