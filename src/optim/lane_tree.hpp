#pragma once
/// The fixed binary tree in which the gradients of an update's lanes are summed: over lanes [0, n), a node's left child
/// holds the largest power of two below its size, the right one the rest. A rank that works on a run of neighbouring
/// lanes holds whole subtrees; whatever the number of ranks, every addition of the tree is done once and in the same
/// order, so the bits do not depend on it.

#include "comm/communicator.hpp"
#include "core/buffer.hpp"
#include "core/event.hpp"
#include "params/shards.hpp"

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

/// How the data ranks share the tree over `lanes`. A function of three numbers: plans of runs that are not here ask it too.
struct LaneShare {
    /// Lanes must divide over the ranks (a UsageError says so).
    LaneShare(int lanes, int ranks, int rank);

    int first = 0, count = 0;                ///< lanes of this rank
    std::vector<std::vector<LaneNode>> held; ///< subtrees of every rank
    std::vector<LaneNode> leaves;            ///< the first ones of all ranks, then the second ones …: pieces arrive in this order. Alone: none
    int rank = 0;
    const std::vector<LaneNode>& own() const { return held[static_cast<std::size_t>(rank)]; }
    /// Levels of a rank's deepest subtree: a buffer each, besides one a subtree.
    int depth(int of) const;
};

/// Bytes of a rank's gradient buffers.
struct GradientBytes {
    std::int64_t flat = 0;   ///< own subtrees and the levels below them, whole arrays
    std::int64_t shard = 0;  ///< the sum over all ranks
    std::int64_t recv = 0;   ///< pieces from the other ranks
};
GradientBytes gradient_bytes(const LaneShare& share, const Shards& shards, Dtype dtype);

/// Flat gradient buffers of a rank: one for each subtree it holds, and those that summing a subtree needs. What
/// other ranks need of them travels bucket by bucket, from the last one down, on a stream of its own: a bucket may leave as soon
/// as the last lane's backward will add nothing more to it.
class LaneGradients {
public:
    LaneGradients(int lanes, Communicator& data, const Shards& shards, Device device, Dtype dtype);

    int first_lane() const { return share_.first; }
    int lane_count() const { return share_.count; }
    /// Calls run(lane, gradient), which overwrites the gradient, for each own lane, in order, and joins them up to the own subtrees.
    void accumulate(Stream& stream, const std::function<void(int, const Tensor&)>& run);
    /// Inside the last of these runs: to buckets from `first` on nothing more will be added. They are joined on `stream`, and
    /// exchanged while it goes on. No other collective of the data ranks may be put on `stream` before reduce_scatter.
    void complete(Stream& stream, int first);
    /// The sum over all lanes of this rank's shard [shard_size]; `stream` waits for it. Pieces travel all-to-all and are added
    /// locally in the tree's order.
    Tensor reduce_scatter(Stream& stream);
    std::int64_t bytes() const;

private:
    using Run = std::function<void(int, const Tensor&)>;
    /// `last`: the node ends with the last own lane, whose part is left to join_last.
    void sum(Stream& stream, LaneNode node, const Tensor& target, const Run& run, std::size_t depth, bool last);
    void join_last(Stream& stream, int first);
    void exchange(Stream& stream, int first);
    void exchange_bucket(int bucket);
    /// The sum of `node` among the received pieces of n elements; it lands in the piece of the leftmost subtree.
    Tensor join(LaneNode node, std::int64_t n);
    Tensor part(const Buffer& flat, Range range) const { return flat.tensor({range.size()}, dtype_, range.begin * size_of(dtype_)); }

    int lanes_;
    Communicator& data_;
    Shards shards_;
    Dtype dtype_;
    LaneShare share_;
    std::vector<Buffer> nodes_;    ///< one for each own subtree
    std::vector<Buffer> scratch_;  ///< one for each level of the deepest own subtree
    std::size_t last_depth_ = 0;   ///< of the last own lane in its subtree: it is in scratch_[last_depth_ - 1], or in its node
    Buffer recv_;                   ///< a piece of the longest bucket for each leaf: one bucket, where ranks hold one subtree each
    Buffer shard_;                  ///< the result
    Stream exchange_;
    Event joined_, exchanged_;
    int joined_from_ = 0, exchanged_from_ = 0;  ///< buckets from these on are done in this update
};

}  // namespace rf
