#pragma once

#include <cstdint>
#include <vector>

namespace rf {

/// Which task each micro-step learns: an independent draw by weight, a pure function of (seed, micro-step), the same on every rank.
class TaskMix {
public:
    TaskMix(std::vector<double> weights, std::uint64_t seed);
    int task_of(std::int64_t micro_step) const;
    /// Micro-steps before this one that learnt its task: where it goes on in the task's rows. Cheap when asked for in rising order.
    std::int64_t earlier(std::int64_t micro_step);

private:
    std::vector<double> rising_;  ///< sums of the weights, the last is 1
    std::uint64_t seed_;
    std::int64_t at_ = 0;
    std::vector<std::int64_t> drawn_;  ///< of micro-steps before at_
};

}  // namespace rf
