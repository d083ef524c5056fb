#pragma once

#include "comm/parallel_grid.hpp"
#include "core/buffer.hpp"
#include "params/state.hpp"

#include <vector>

namespace rf {

/// Sums over whole tensors of what lies in shards: a kernel leaves one row a segment of this rank's shard in `own()`, and `join` makes
/// one row a trust-ratio group of them, over data and tensor ranks. Joined in the fixed order of the layout's segments: no bit depends
/// on the number of data ranks. Everything stays in memory of the stream's device.
class TensorSums {
public:
    TensorSums(const ParamState& state, ParallelGrid& grid, const Stream& stream);

    /// The shard without its gradient.
    OptimizerShard shard(const ParamState& state) const;
    const Tensor& own() const { return own_; }  ///< [segments of this shard, 3] f64
    Tensor totals() const { return groups_.tensor({group_count(), sum_columns}, Dtype::f64); }  ///< [G, 3] f64
    std::int64_t group_count() const { return counted_.size(); }
    /// totals() from own().
    void join(Stream& stream);

private:
    /// Rows of own_ that stand one after the other in sums_ too.
    struct Run {
        std::int64_t own = 0, all = 0, count = 0;
    };
    ParallelGrid& grid_;
    Buffer segments_;     ///< Segments of this shard, numbered by their place in it
    Buffer sums_;         ///< [all segments, 3] f64
    Buffer own_memory_;   ///< of own_ where other ranks have segments too
    Buffer group_begin_, counted_, groups_;
    std::vector<Run> runs_;  ///< one a bucket
    Tensor own_;
};

/// A list of the host as bytes on the stream's device.
template <class T>
Buffer on_device(const Stream& stream, const std::vector<T>& list) {
    const auto bytes = static_cast<std::int64_t>(list.size() * sizeof(T));
    Buffer buffer(bytes, stream.device());
    upload(stream, list.data(), buffer.tensor({bytes}, Dtype::u8));
    return buffer;
}

}  // namespace rf
