#pragma once
/// Gradients of several tasks made one. Each is a shard, already summed over the data ranks; what the tasks share stands first in the
/// layout, their heads behind it.

#include "optim/tensor_sums.hpp"

#include <span>
#include <vector>

namespace rf {

/// Over what a task's gradient has norm 1 before it is weighted and added (Su, "Multi-task learning (1): in the name of the loss", 2022:
/// sum of g_k / |g_k|, which neither scales nor shifts of the losses change). Its head's part is divided by the same number.
enum class Normalise {
    none,
    shared,  ///< the tensors that all tasks share
    all,     ///< these and the task's head
};

class GradientMix {
public:
    /// The first `shared_groups` trust-ratio groups of the layout are shared. `state` and `grid` outlive this.
    GradientMix(const ParamState& state, ParallelGrid& grid, std::int64_t shared_groups, Stream& stream);

    /// norm [1] f64 (of the stream's device) = |gradient| over what `rule` names; for `none`, over the shared tensors. Bits do not
    /// depend on the number of data ranks.
    void norm(Stream& stream, const Tensor& gradient, Normalise rule, const Tensor& norm);
    /// total += weight * gradient / norm, or weight * gradient for `none`. A gradient of norm 0 adds nothing; one that is not finite
    /// makes the total not finite, which the optimizer judges.
    static void add(Stream& stream, const Tensor& gradient, const Scalar& weight, Normalise rule, const Tensor& norm, const Tensor& total);

    /// [K, K] inner products of K gradients over the shared tensors. Waits for the stream.
    std::vector<double> gram(Stream& stream, std::span<const Tensor> gradients);

private:
    void join(Stream& stream, const Tensor& gradient, const Tensor& other);

    const ParamState& state_;
    TensorSums sums_;
    std::int64_t shared_groups_;
    Buffer judgement_;  ///< what judge_gradient writes its norm to
};

/// Weights a >= 0 with sum 1 that make |sum a_k g_k| smallest, from the Gram matrix [K, K] of the g_k: the direction in which every loss
/// falls (Sener & Koltun 2018), by Frank-Wolfe steps a <- (1 - c) a + c e_k towards the gradient with the smallest inner product, each with
/// the best c. Two gradients take one step. It stops where no mixture's square can be smaller by more than 1e-9 of the largest square.
std::vector<double> min_norm_weights(std::span<const double> gram);

}  // namespace rf
