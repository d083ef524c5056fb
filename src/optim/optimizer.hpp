#pragma once

#include "io/json.hpp"
#include "params/state.hpp"

#include <boost/describe.hpp>

#include <optional>
#include <vector>

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
/// number of data ranks.
class Optimizer {
public:
    Optimizer(const OptimizerConfig& config, const ParamState& state, ParallelGrid& grid);

    struct Result {
        double gradient_norm = 0;
        /// First tensor (in layout order) whose gradient is not finite; nothing has been applied then.
        std::optional<std::string> not_finite;
    };
    /// `gradient` [shard], update number from 1, learning rate of this update.
    Result step(Stream& stream, const Tensor& gradient, std::int64_t update, double lr);

private:
    /// Totals per trust-ratio group from this shard's segment sums, over data and tensor ranks.
    std::vector<SegmentSums> join(Stream& stream, std::span<const SegmentSums> own);

    OptimizerConfig config_;
    const ParamState& state_;
    ParallelGrid& grid_;
    std::size_t first_segment_ = 0;
    std::vector<Segment> segments_;  ///< of this shard
};

}  // namespace rf
