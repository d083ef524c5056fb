#include "optim/lane_tree.hpp"

#include "kernels/elementwise.hpp"

#include <algorithm>
#include <bit>

namespace rf {

int split_of(LaneNode node) {
    const auto size = static_cast<unsigned>(node.end - node.begin);
    return node.begin + static_cast<int>(std::bit_floor(size - 1));
}

namespace {

void cover(LaneNode node, int begin, int end, std::vector<LaneNode>& out) {
    if (end <= node.begin || node.end <= begin) return;
    if (begin <= node.begin && node.end <= end) {
        out.push_back(node);
        return;
    }
    const int middle = split_of(node);
    cover({node.begin, middle}, begin, end, out);
    cover({middle, node.end}, begin, end, out);
}

int depth_of(LaneNode node) { return node.end - node.begin == 1 ? 0 : 1 + std::max(depth_of({node.begin, split_of(node)}), depth_of({split_of(node), node.end})); }

/// Elements of a shard that travel at once.
constexpr std::int64_t piece_length = 1 << 19;

}  // namespace

std::vector<LaneNode> cover(int lanes, int begin, int end) {
    std::vector<LaneNode> nodes;
    cover({0, lanes}, begin, end, nodes);
    return nodes;
}

LaneGradients::LaneGradients(int lanes, const Communicator& data, std::int64_t size, Device device, Dtype dtype) : lanes_(lanes), size_(size), dtype_(dtype) {
    if (lanes % data.size() != 0)
        fail_usage("batch.lanes = ", lanes, " does not divide over ", data.size(), " data ranks (each works on whole lanes)");
    count_ = lanes / data.size();
    first_ = count_ * data.rank();
    own_ = cover(lanes, first_, first_ + count_);
    int depth = 0;
    for (const LaneNode& node : own_) {
        nodes_.emplace_back(size * size_of(dtype), device);
        depth = std::max(depth, depth_of(node));
    }
    for (int level = 0; level < depth; ++level) scratch_.emplace_back(size * size_of(dtype), device);
    const int ranks = data.size();
    if (ranks == 1) return;
    for (int r = 0; r < ranks; ++r) held_.push_back(cover(lanes, r * count_, (r + 1) * count_));
    for (const auto& nodes : held_) leaves_.insert(leaves_.end(), nodes.begin(), nodes.end());
    const std::int64_t most = std::min(piece_length, size / ranks) * size_of(dtype);
    send_ = Buffer(ranks * static_cast<std::int64_t>(own_.size()) * most, device);
    recv_ = Buffer(static_cast<std::int64_t>(leaves_.size()) * most, device);
}

std::int64_t LaneGradients::bytes() const {
    return static_cast<std::int64_t>(nodes_.size() + scratch_.size()) * size_ * size_of(dtype_) + send_.size() + recv_.size();
}

void LaneGradients::sum(Stream& stream, LaneNode node, const Tensor& target, const std::function<void(int, const Tensor&)>& run,
                        std::size_t depth) {
    if (node.end - node.begin == 1) {
        fill_zero(stream, target);
        run(node.begin, target);
        return;
    }
    const int middle = split_of(node);
    const Tensor right = scratch_[depth].tensor({size_}, dtype_);
    sum(stream, {node.begin, middle}, target, run, depth + 1);
    sum(stream, {middle, node.end}, right, run, depth + 1);
    add(stream, {.x = right, .y = target});
}

void LaneGradients::accumulate(Stream& stream, const std::function<void(int, const Tensor&)>& run) {
    for (std::size_t i = 0; i < own_.size(); ++i) sum(stream, own_[i], nodes_[i].tensor({size_}, dtype_), run, 0);
}

/// Pieces of n elements arrive in the order of leaves_; the sum of a node lands in the piece of its leftmost subtree.
Tensor LaneGradients::join(Stream& stream, LaneNode node, std::int64_t n) const {
    const auto leaf = std::find(leaves_.begin(), leaves_.end(), node);
    if (leaf != leaves_.end()) return recv_.tensor({n}, dtype_, (leaf - leaves_.begin()) * n * size_of(dtype_));
    const int middle = split_of(node);
    const Tensor left = join(stream, {node.begin, middle}, n);
    add(stream, {.x = join(stream, {middle, node.end}, n), .y = left});
    return left;
}

Tensor LaneGradients::reduce_scatter(Stream& stream, Communicator& data, const Tensor& out) {
    const int ranks = data.size();
    const std::int64_t shard = size_ / ranks, item = size_of(dtype_);
    if (ranks == 1) return nodes_[0].tensor({size_}, dtype_);
    for (std::int64_t at = 0; at < shard; at += piece_length) {
        const std::int64_t n = std::min(piece_length, shard - at);
        std::vector<std::int64_t> send_begin{0}, recv_begin{0};
        std::int64_t to = 0;
        for (int r = 0; r < ranks; ++r) {
            for (const Buffer& node : nodes_) {
                copy(stream, node.tensor({n}, dtype_, (r * shard + at) * item), send_.tensor({n}, dtype_, to));
                to += n * item;
            }
            send_begin.push_back(to);
            recv_begin.push_back(recv_begin.back() + static_cast<std::int64_t>(held_[static_cast<std::size_t>(r)].size()) * n * item);
        }
        data.all_to_all(stream, send_.data(), send_begin, recv_.data(), recv_begin);
        copy(stream, join(stream, {0, lanes_}, n), out.part(at, {n}));
    }
    return out;
}

}  // namespace rf
