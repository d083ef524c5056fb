#pragma once
/// The fixed binary tree in which the gradients of an update's lanes are summed: over lanes [0, n), a node's left child
/// holds the largest power of two below its size, the right one the rest. A rank that works on a run of neighbouring
/// lanes holds whole subtrees; whatever the number of ranks, every addition of the tree is done once and in the same
/// order, so the bits do not depend on it.

#include "comm/communicator.hpp"
#include "core/buffer.hpp"

#include <functional>
#include <vector>

namespace rf {

struct LaneNode {
    int begin = 0;
    int end = 0;
    friend bool operator==(const LaneNode&, const LaneNode&) = default;
};

/// First lane of the right child.
int split_of(LaneNode node);
/// The fewest subtrees of the tree over [0, lanes) that make up [begin, end), left to right.
std::vector<LaneNode> cover(int lanes, int begin, int end);

/// Flat gradient buffers of a rank: one for each subtree it holds, and those that summing a subtree needs.
class LaneGradients {
public:
    /// Lanes must divide over the data ranks (a UsageError says so). `size` elements a buffer.
    LaneGradients(int lanes, const Communicator& data, std::int64_t size, Device device, Dtype dtype);

    int first_lane() const { return first_; }
    int lane_count() const { return count_; }
    /// Calls run(lane, zeroed gradient) for each own lane and joins them up to the own subtrees.
    void accumulate(Stream& stream, const std::function<void(int, const Tensor&)>& run);
    /// The sum over all lanes of this rank's shard [shard_size]: a view of the own buffer where there is one rank, else
    /// of `out`. Pieces travel all-to-all and are added locally in the tree's order.
    Tensor reduce_scatter(Stream& stream, Communicator& data, const Tensor& out);
    std::int64_t bytes() const;

private:
    void sum(Stream& stream, LaneNode node, const Tensor& target, const std::function<void(int, const Tensor&)>& run, std::size_t depth);
    /// Bytes of the piece of node `held` at `index` among the received ones, holding the sum of `node`.
    Tensor join(Stream& stream, LaneNode node, std::int64_t n) const;

    int lanes_, first_ = 0, count_ = 0;
    std::int64_t size_;
    Dtype dtype_;
    std::vector<LaneNode> own_;
    std::vector<Buffer> nodes_;    ///< one for each of own_
    std::vector<Buffer> scratch_;  ///< one for each level of the deepest own subtree
    std::vector<std::vector<LaneNode>> held_;  ///< subtrees of every data rank
    std::vector<LaneNode> leaves_;             ///< the same in one row: pieces arrive in this order
    Buffer send_, recv_;
};

}  // namespace rf
