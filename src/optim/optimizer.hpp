#pragma once

#include "io/json.hpp"
#include "optim/tensor_sums.hpp"

#include <boost/describe.hpp>

namespace rf {

/// LAMB as the article's recipe runs it (section "Optimiser algebra" of bert4keras' wrappers: no bias correction, decay on
/// every tensor, trust ratio |p| / |update| per tensor without limits; You et al. 2020), AdamW (Loshchilov & Hutter 2019), or AdaFactor as
/// fine-tuning runs it (kernels/optimizer.hpp), which reads of these lr, beta1, max_gradient_norm and skip_zero_gradient alone.
struct OptimizerConfig {
    std::string name = "lamb";      ///< lamb, adamw or adafactor
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

/// Steps the shard of a ParamState. Everything stays in memory of the state's device: nothing is read back inside a step.
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
    /// Sums of squares of all tensors, [G, 3] f64 (kernels/optimizer.hpp), as the last step left them.
    ConstTensor groups() const { return sums_.totals(); }
    /// `gradient` [shard]. When it or one of `losses` ([n] f64, the same on all ranks, or absent) is not finite nothing is applied, and
    /// control() names the tensor's group; after more than `skips_allowed` such updates in a row no later one is applied either.
    void step(Stream& stream, const Tensor& gradient, const ConstTensor& losses = {}, std::int64_t skips_allowed = 0);

private:
    void step_adafactor(Stream& stream, const OptimizerShard& shard);

    OptimizerConfig config_;
    const ParamState& state_;
    TensorSums sums_;
    Buffer sizes_;  ///< [G] f64 elements of the whole tensors
    Buffer rates_, control_memory_;
    Tensor control_;
};

}  // namespace rf
