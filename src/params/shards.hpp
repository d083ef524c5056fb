#pragma once
/// How the data ranks share the flat buffers (ZeRO): the array is cut into buckets, and each bucket evenly over the ranks.
/// Rank r owns the r-th piece of every bucket, so that the gradient's sum and the new weights travel bucket by bucket with
/// every link equally busy, the sum while backward still works on the buckets in front. A rank's pieces, one after the other,
/// are its shard. Where the borders of tensors lie does not matter.

#include <cstdint>

namespace rf {

/// Neighbouring elements of a flat buffer.
struct Range {
    std::int64_t begin = 0;
    std::int64_t end = 0;
    std::int64_t size() const { return end - begin; }
    friend bool operator==(const Range&, const Range&) = default;
};

class Shards {
public:
    /// Shares at least `size` elements. `bucket`: least elements of one; 0: the usual length, or all of it for one rank.
    Shards(std::int64_t size, int ranks, std::int64_t bucket = 0);

    int ranks() const { return ranks_; }
    /// `size`, rounded up so that every piece is whole blocks of 4096 elements: no Segment of the optimizer crosses its border.
    std::int64_t padded_size() const { return padded_; }
    std::int64_t shard_size() const { return padded_ / ranks_; }
    /// Buckets are numbered from the front; the last, whose gradient is complete first, is the one that may be shorter.
    int buckets() const { return static_cast<int>((padded_ + length_ - 1) / length_); }
    Range bucket(int b) const;
    /// What rank r owns of it.
    Range piece(int b, int r) const;
    /// Where a shard holds its piece of it; the same on every rank.
    Range in_shard(int b) const { return {bucket(b).begin / ranks_, bucket(b).end / ranks_}; }
    /// First bucket of which no element lies before `element`; buckets() where there is none.
    int first_behind(std::int64_t element) const;
    /// Elements of rank r's shard that lie before `element` of the flat array.
    std::int64_t owned_before(std::int64_t element, int r) const;

private:
    int ranks_;
    std::int64_t padded_, length_;
};

}  // namespace rf
