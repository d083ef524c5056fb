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

}  // namespace

std::vector<LaneNode> cover(int lanes, int begin, int end) {
    std::vector<LaneNode> nodes;
    cover({0, lanes}, begin, end, nodes);
    return nodes;
}

LaneShare::LaneShare(int lanes, int ranks, int me) : rank(me) {
    if (lanes % ranks != 0) fail_usage("batch.lanes = ", lanes, " does not divide over ", ranks, " data ranks (each works on whole lanes)");
    count = lanes / ranks;
    first = count * me;
    std::size_t most = 0;
    for (int r = 0; r < ranks; ++r) most = std::max(most, held.emplace_back(cover(lanes, r * count, (r + 1) * count)).size());
    if (ranks == 1) return;
    for (std::size_t k = 0; k < most; ++k)
        for (const auto& nodes : held)
            if (k < nodes.size()) leaves.push_back(nodes[k]);
}

int LaneShare::depth(int of) const {
    int most = 0;
    for (const LaneNode& node : held[static_cast<std::size_t>(of)]) most = std::max(most, depth_of(node));
    return most;
}

GradientBytes gradient_bytes(const LaneShare& share, const Shards& shards, Dtype dtype) {
    const std::int64_t item = size_of(dtype);
    GradientBytes bytes{.flat = (static_cast<std::int64_t>(share.own().size()) + share.depth(share.rank)) * shards.padded_size() * item};
    if (shards.ranks() == 1) return bytes;
    bytes.shard = shards.shard_size() * item;
    bytes.recv = static_cast<std::int64_t>(share.leaves.size()) * shards.in_shard(0).size() * item;
    return bytes;
}

LaneGradients::LaneGradients(int lanes, Communicator& data, const Shards& shards, Device device, Dtype dtype)
    : lanes_(lanes),
      data_(data),
      shards_(shards),
      dtype_(dtype),
      share_(lanes, data.size(), data.rank()),
      exchange_(data.size() > 1 ? device : Device::cpu),
      joined_(device),
      exchanged_(device) {
    RF_REQUIRE(shards.ranks() == data.size(), "shards for ", shards.ranks(), " of ", data.size(), " data ranks");
    const std::int64_t flat = shards_.padded_size() * size_of(dtype);
    for (std::size_t i = 0; i < share_.own().size(); ++i) nodes_.emplace_back(flat, device);
    for (int level = 0; level < share_.depth(share_.rank); ++level) scratch_.emplace_back(flat, device);
    for (LaneNode node = share_.own().back(); node.end - node.begin > 1; node.begin = split_of(node)) ++last_depth_;
    const GradientBytes sizes = gradient_bytes(share_, shards_, dtype);
    recv_ = Buffer(sizes.recv, device);
    shard_ = Buffer(sizes.shard, device);
}

std::int64_t LaneGradients::bytes() const {
    const GradientBytes sizes = gradient_bytes(share_, shards_, dtype_);
    return sizes.flat + sizes.shard + sizes.recv;
}

void LaneGradients::sum(Stream& stream, LaneNode node, const Tensor& target, const Run& run, std::size_t depth, bool last) {
    if (node.end - node.begin == 1) return run(node.begin, target);
    const int middle = split_of(node);
    const Tensor right = part(scratch_[depth], {0, shards_.padded_size()});
    sum(stream, {node.begin, middle}, target, run, depth + 1, false);
    sum(stream, {middle, node.end}, right, run, depth + 1, last);
    if (!last) add(stream, {.x = right, .y = target});
}

void LaneGradients::accumulate(Stream& stream, const Run& run) {
    joined_from_ = exchanged_from_ = shards_.buckets();
    const std::vector<LaneNode>& own = share_.own();
    for (std::size_t i = 0; i < own.size(); ++i) sum(stream, own[i], part(nodes_[i], {0, shards_.padded_size()}), run, 0, i + 1 == own.size());
    join_last(stream, 0);
}

void LaneGradients::complete(Stream& stream, int first) {
    join_last(stream, first);
    exchange(stream, first);
}

/// The last lane is the right child of every node above it, so its sums are the last ones: from its own buffer up.
void LaneGradients::join_last(Stream& stream, int first) {
    if (first >= joined_from_) return;
    const Range range{shards_.bucket(first).begin, shards_.bucket(joined_from_ - 1).end};
    for (std::size_t depth = last_depth_; depth > 0; --depth)
        add(stream, {.x = part(scratch_[depth - 1], range), .y = part(depth > 1 ? scratch_[depth - 2] : nodes_.back(), range)});
    joined_from_ = first;
}

void LaneGradients::exchange(Stream& stream, int first) {
    if (first >= exchanged_from_ || data_.size() == 1) return;
    joined_.record(stream);
    joined_.hold(exchange_);
    while (exchanged_from_ > first) exchange_bucket(--exchanged_from_);
}

void LaneGradients::exchange_bucket(int bucket) {
    const Range at = shards_.in_shard(bucket);
    const std::int64_t n = at.size() * size_of(dtype_), from = shards_.bucket(bucket).begin * size_of(dtype_);
    // Every rank's k-th subtree at once. Pieces lie in the order of their owners, so they are sent from where they are.
    std::byte* to = recv_.data();
    for (std::size_t k = 0; to < recv_.data() + static_cast<std::int64_t>(share_.leaves.size()) * n; ++k) {
        const bool mine = k < nodes_.size();
        std::vector<std::int64_t> send_begin{0}, recv_begin{0};
        for (const auto& nodes : share_.held) {
            send_begin.push_back(send_begin.back() + (mine ? n : 0));
            recv_begin.push_back(recv_begin.back() + (k < nodes.size() ? n : 0));
        }
        data_.all_to_all(exchange_, mine ? nodes_[k].data() + from : nodes_[0].data(), send_begin, to, recv_begin);
        to += recv_begin.back();
    }
    copy(exchange_, join({0, lanes_}, at.size()), part(shard_, at));
}

Tensor LaneGradients::join(LaneNode node, std::int64_t n) {
    const auto leaf = std::find(share_.leaves.begin(), share_.leaves.end(), node);
    if (leaf != share_.leaves.end()) return recv_.tensor({n}, dtype_, (leaf - share_.leaves.begin()) * n * size_of(dtype_));
    const int middle = split_of(node);
    const Tensor left = join({node.begin, middle}, n);
    add(exchange_, {.x = join({middle, node.end}, n), .y = left});
    return left;
}

Tensor LaneGradients::reduce_scatter(Stream& stream) {
    if (data_.size() == 1) return part(nodes_[0], {0, shards_.padded_size()});
    exchange(stream, 0);
    exchanged_.record(exchange_);
    exchanged_.hold(stream);
    return part(shard_, {0, shards_.shard_size()});
}

}  // namespace rf
