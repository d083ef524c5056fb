#pragma once

#include "core/stream.hpp"

#include <cstdint>
#include <span>
#include <vector>

namespace rf {

/// A run of elements of a flat buffer that lies in one tensor ("layer" of the trust ratio). Segments are a pure
/// function of the parameter layout, at most 4096 elements long, and never cross a multiple of 4096: sums over
/// segments, joined in order, do not depend on how the buffer is sharded.
struct Segment {
    std::int64_t begin = 0;
    std::int64_t end = 0;
    std::int32_t group = 0;  ///< which tensor
};

/// Sums of squares of one segment, f64.
struct SegmentSums {
    double weight = 0;
    double update = 0;
    double gradient = 0;
};

/// The flat state of one shard. All four are f32 (or all f64), of one length; element 0 is element `offset` of the
/// flat layout that the segments speak of.
struct OptimizerShard {
    Tensor weight;
    Tensor m;
    Tensor v;
    ConstTensor gradient;
    std::int64_t offset = 0;
};

/// One step's coefficients. u = m / c1 / (sqrt(v / c2) + epsilon) + decay * weight.
/// LAMB (You et al. 2020; as bert4keras runs it: no bias correction, c1 = c2 = 1). AdamW: Loshchilov & Hutter 2019.
struct MomentUpdate {
    double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-6, decay = 0.01;
    double correction1 = 1, correction2 = 1;  ///< 1 - beta^t with bias correction, else 1
    double gradient_factor = 1;               ///< multiplies the gradient first (clipping); 1 leaves its bits alone
};

/// Sum of squares of the gradient alone, per segment (other members 0): the global norm.
void gradient_sums(Stream& stream, const OptimizerShard& shard, std::span<const Segment> segments, std::span<SegmentSums> sums);

/// First pass: m, v from the gradient; sums of squares of weight, u and gradient per segment.
void update_moments(Stream& stream, const OptimizerShard& shard, const MomentUpdate& rule, std::span<const Segment> segments,
                    std::span<SegmentSums> sums);

/// Second pass: weight -= rate[group] * u, where a rate of exactly 0 leaves the segment untouched.
void apply_update(Stream& stream, const OptimizerShard& shard, const MomentUpdate& rule, std::span<const Segment> segments,
                  std::span<const double> rate);

}  // namespace rf
