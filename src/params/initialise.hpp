#pragma once

#include "params/layout.hpp"
#include "params/shards.hpp"

namespace rf {

/// Fills the shard of data rank `rank` with truncated normal values of standard
/// deviation gain / sqrt(fan), resampled outside ±2 sigma of the parent normal, whose sigma is 1.13684723 times larger
/// to make up for the cut (Su, "Analysis of residual networks' initialisation", 2021; bert4keras RoFormerV2.initializer).
/// With `deviation` > 0 sigma is that number for all of them (BERT: 0.02, cut without the correction). Entries with fan 0 get their `initial`. Each value is a pure function of (seed, name, global index): no rank count, tensor
/// split or thread count changes it. `shard` is f32 or f64.
struct InitialScale {
    InitialScale(double gain, double deviation = 0) : gain(gain), deviation(deviation) {}
    double gain;
    double deviation;
};
void initialise(const ParamLayout& layout, std::uint64_t seed, const InitialScale& scale, const Tensor& shard, const Shards& shards, int rank);

/// One truncated normal value with unit standard deviation (before the cut): |z| <= 2.
double truncated_normal(std::uint64_t seed, std::uint32_t stream, std::uint64_t index);

}  // namespace rf
