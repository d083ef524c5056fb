#include "params/shards.hpp"

#include "core/check.hpp"
#include "params/layout.hpp"

#include <algorithm>

namespace rf {

namespace {

/// 16 MiB of f32 gradients: a layer or less, so that the first are sent early. With many ranks at least 1 MiB for each of
/// them: shorter messages are bound by latency.
constexpr std::int64_t usual_bucket = 1 << 22, usual_piece = 1 << 18;

std::int64_t round_up(std::int64_t n, std::int64_t unit) { return (n + unit - 1) / unit * unit; }

}  // namespace

Shards::Shards(std::int64_t size, int ranks, std::int64_t bucket) : ranks_(ranks) {
    RF_REQUIRE(size > 0 && ranks > 0 && bucket >= 0, "a flat buffer of ", size, " elements in buckets of ", bucket, " for ", ranks, " ranks");
    const std::int64_t unit = ParamLayout::segment_length * ranks;
    padded_ = round_up(size, unit);
    length_ = bucket > 0 ? round_up(bucket, unit) : ranks == 1 ? padded_ : round_up(std::max(usual_bucket, ranks * usual_piece), unit);
}

Range Shards::bucket(int b) const { return {b * length_, std::min(padded_, (b + 1) * length_)}; }

Range Shards::piece(int b, int r) const {
    const Range whole = bucket(b);
    const std::int64_t n = whole.size() / ranks_;
    return {whole.begin + r * n, whole.begin + (r + 1) * n};
}

int Shards::first_behind(std::int64_t element) const {
    return static_cast<int>(std::min<std::int64_t>((element + length_ - 1) / length_, buckets()));
}

std::int64_t Shards::owned_before(std::int64_t element, int r) const {
    if (element >= padded_) return shard_size();
    const int b = static_cast<int>(element / length_);
    const Range own = piece(b, r);
    return in_shard(b).begin + std::clamp(element, own.begin, own.end) - own.begin;
}

}  // namespace rf
