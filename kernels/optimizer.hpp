#pragma once

#include "core/stream.hpp"

#include <cstdint>

namespace rf {

/// A run of elements of a flat buffer that lies in one tensor ("layer" of the trust ratio). Segments are a pure
/// function of the parameter layout, at most 4096 elements long, and never cross a multiple of 4096: sums over
/// segments, joined in order, do not depend on how the buffer is sharded.
struct Segment {
    std::int64_t begin = 0;
    std::int64_t end = 0;
    std::int64_t group = 0;  ///< which tensor
    std::int64_t decays = 1; ///< 1, or 0: no weight decay
};

/// Columns of the [n, 3] f64 tables of sums of squares, one row a segment or a group.
enum SumColumn { weight_sum = 0, update_sum = 1, gradient_sum = 2, sum_columns = 3 };

/// One update's numbers, [control_slots] f64 in memory of the optimizer's device, so that a captured update can be replayed.
enum ControlSlot {
    control_lr,               ///< learning rate
    control_correction1,      ///< 1 - beta1^t with bias correction, else 1
    control_correction2,      ///< 1 - beta2^t with bias correction, else 1; AdaFactor: t^-0.8, what a new square counts for in v
    control_gradient_norm,    ///< the rest is written by judge_gradient: global norm before clipping
    control_gradient_factor,  ///< multiplies the gradient (clipping); 1 leaves its bits alone
    control_apply,            ///< 1, or 0 when this update is skipped: then nothing is touched
    control_not_finite,       ///< last group in layout order (the nearest to the loss) whose gradient is not finite, or -1
    control_skipped,          ///< updates skipped in a row up to this one; 0 at the beginning
    control_slots
};

/// The flat state of one shard. Weight, m, v and gradient are f32 (or all f64), of one length; element 0 is element
/// `offset` of the flat layout that the segments speak of.
struct OptimizerShard {
    Tensor weight;
    Tensor m;
    Tensor v;
    ConstTensor gradient;
    std::int64_t offset = 0;
    ConstTensor segments;  ///< [n, sizeof(Segment)] u8: this shard's Segments
};

/// u = m / correction1 / (sqrt(v / correction2) + epsilon) + decay * weight.
/// LAMB (You et al. 2020; as bert4keras runs it: no bias correction). AdamW: Loshchilov & Hutter 2019.
struct MomentRule {
    double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-6, decay = 0.01;
};

/// Sum of squares of the gradient alone, per segment (other columns 0): the global norm. With `other` [shard]: of the products of the
/// two, as inner products of gradients need.
void gradient_sums(Stream& stream, const OptimizerShard& shard, const Tensor& sums, const ConstTensor& other = {});

/// groups[g] = sum of the rows group_begin[g] … group_begin[g+1] of `sums`, in a fixed order; 0 where counted[g] is 0 (a
/// tensor held whole by every tensor rank counts on one of them).
struct JoinSums {
    ConstTensor sums;         ///< [n, 3] f64 of all segments, in layout order
    ConstTensor group_begin;  ///< [G+1] i32
    ConstTensor counted;      ///< [G] u8
    Tensor groups;            ///< [G, 3] f64 out
};
void join_sums(Stream& stream, const JoinSums& args);

/// Global norm and clipping factor for max_norm (0: off) from the gradient column, and whether the update is applied. It is skipped
/// when a gradient or one of `losses` is not finite; after more than `skips_allowed` in a row so is every later one, since the
/// caller may learn of them when the next update is already under way.
struct JudgeGradient {
    ConstTensor groups;  ///< [G, 3]
    Tensor control;      ///< [control_slots] f64
    double max_norm = 0;
    ConstTensor losses;  ///< [n] f64, or absent
    std::int64_t skips_allowed = 0;
};
void judge_gradient(Stream& stream, const JudgeGradient& args);

/// First pass: m, v from the gradient; sums of squares of weight, u and gradient per segment.
void update_moments(Stream& stream, const OptimizerShard& shard, const MomentRule& rule, const ConstTensor& control, const Tensor& sums);

/// What a tensor's update is multiplied with: lr, for LAMB lr |weight| / |update| (1 for the ratio where either is 0);
/// exactly 0 (leave the tensor alone) where its gradient is 0 and `skip_zero_gradient`, or when nothing is to be applied.
/// LAMB's ratio has the update norm times lr / max(lr, 1e-7), as bert4keras has it.
struct UpdateRates {
    ConstTensor groups;  ///< [G, 3]
    ConstTensor control;
    Tensor rates;        ///< [G] f64 out
    bool lamb = true;
    bool skip_zero_gradient = true;
};
void update_rates(Stream& stream, const UpdateRates& args);

/// Second pass: weight -= rates[group] * u, where a rate of exactly 0 leaves the segment untouched.
void apply_update(Stream& stream, const OptimizerShard& shard, const MomentRule& rule, const ConstTensor& control, const ConstTensor& rates);

/// AdaFactor without factors, as bert4keras runs it in fine-tuning (Shazeer & Stern 2018, section 9; its constants):
/// v = (1 - t^-0.8) v + t^-0.8 (g^2 + 1e-30);  u = g / sqrt(v + 1e-30), divided by max(1, rms(u));
/// m = beta1 m + (1 - beta1) u;  weight -= lr max(rms(weight), 1e-3) m. Root mean squares are those of whole tensors.
inline constexpr double adafactor_tiny = 1e-30, adafactor_least_scale = 1e-3;

/// First pass: v from the gradient; sums of squares of weight, u and gradient per segment.
void adafactor_moments(Stream& stream, const OptimizerShard& shard, const ConstTensor& control, const Tensor& sums);

/// What a tensor's m and its u are multiplied with: lr max(rms(weight), 1e-3) and 1 / max(1, rms(u)). The first is exactly 0 (leave
/// the tensor alone) where its gradient is 0 and `skip_zero_gradient`, or when nothing is to be applied.
struct AdaFactorRates {
    ConstTensor groups;  ///< [G, 3]
    ConstTensor sizes;   ///< [G] f64 elements of the whole tensors
    ConstTensor control;
    Tensor rates;        ///< [G, 2] f64 out
    bool skip_zero_gradient = true;
};
void adafactor_rates(Stream& stream, const AdaFactorRates& args);

/// Second pass: m, then the weight, where a rate of exactly 0 leaves the segment's m and weight untouched.
void apply_adafactor(Stream& stream, const OptimizerShard& shard, double beta1, const ConstTensor& control, const ConstTensor& rates);

namespace cuda {
void gradient_sums(Stream& stream, const OptimizerShard& shard, const Tensor& sums, const ConstTensor& other);
void join_sums(Stream& stream, const JoinSums& args);
void judge_gradient(Stream& stream, const JudgeGradient& args);
void update_moments(Stream& stream, const OptimizerShard& shard, const MomentRule& rule, const ConstTensor& control, const Tensor& sums);
void update_rates(Stream& stream, const UpdateRates& args);
void apply_update(Stream& stream, const OptimizerShard& shard, const MomentRule& rule, const ConstTensor& control, const ConstTensor& rates);
void adafactor_moments(Stream& stream, const OptimizerShard& shard, const ConstTensor& control, const Tensor& sums);
void adafactor_rates(Stream& stream, const AdaFactorRates& args);
void apply_adafactor(Stream& stream, const OptimizerShard& shard, double beta1, const ConstTensor& control, const ConstTensor& rates);
}  // namespace cuda

}  // namespace rf
