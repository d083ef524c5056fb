#include "params/initialise.hpp"

#include "core/philox.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace rf {

namespace {

/// 1 / sqrt(0.7737413035…), the variance of a standard normal cut at ±2.
constexpr double truncation_gain = 1.1368472343385565;

/// FNV-1a of the name, folded to 24 bits: a stream of its own for every tensor, whatever the order of creation.
std::uint32_t stream_of(const std::string& name) {
    std::uint32_t hash = 2166136261U;
    for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 16777619U;
    return philox_stream(Purpose::initialise, (hash >> 24) ^ hash);
}

/// Global flat index of an element given by its flat index in the local part.
std::int64_t global_index(const ParamEntry& entry, std::int64_t local) {
    const int axis = entry.spec.split_axis;
    if (axis < 0) return local;
    std::int64_t inner = 1;
    for (int a = axis + 1; a < entry.local.rank; ++a) inner *= entry.local[a];
    const std::int64_t row = entry.local[axis] * inner;
    return local / row * entry.spec.shape[axis] * inner + entry.split_begin * inner + local % row;
}

template <class T>
void fill(const ParamEntry& entry, std::uint64_t seed, const InitialScale& scale, T* out, std::int64_t begin, std::int64_t end) {
    const bool drawn = entry.spec.fan > 0;
    const double sigma = !drawn ? 0 : scale.deviation > 0 ? scale.deviation : truncation_gain * scale.gain / std::sqrt(static_cast<double>(entry.spec.fan));
    const std::uint32_t stream = stream_of(entry.spec.name);
#pragma omp parallel for schedule(static)
    for (std::int64_t i = begin; i < end; ++i)
        out[i - begin] = !drawn ? static_cast<T>(entry.spec.initial) : static_cast<T>(sigma * truncated_normal(seed, stream, static_cast<std::uint64_t>(global_index(entry, i))));
}

}  // namespace

double truncated_normal(std::uint64_t seed, std::uint32_t stream, std::uint64_t index) {
    for (std::uint32_t attempt = 0;; ++attempt) {
        const PhiloxCounter w = philox({static_cast<std::uint32_t>(index), static_cast<std::uint32_t>(index >> 32), attempt, stream},
                                       philox_key(seed));
        // Box and Muller; four words give two independent pairs, of which each contributes its cosine and sine.
        for (int pair = 0; pair < 4; pair += 2) {
            const double radius = std::sqrt(-2 * std::log((w[static_cast<std::size_t>(pair)] + 0.5) * 0x1p-32));
            const double angle = 2 * std::numbers::pi * uniform(w[static_cast<std::size_t>(pair) + 1]);
            if (const double z = radius * std::cos(angle); std::abs(z) <= 2) return z;
            if (const double z = radius * std::sin(angle); std::abs(z) <= 2) return z;
        }
    }
}

void initialise(const ParamLayout& layout, std::uint64_t seed, const InitialScale& scale, const Tensor& shard, const Shards& shards, int rank) {
    RF_REQUIRE(shard.count() == shards.shard_size(), "a shard has ", shards.shard_size(), " elements, not ", shard.count());
    for (int b = 0; b < shards.buckets(); ++b) {
        const Range piece = shards.piece(b, rank);
        for (const ParamEntry& entry : layout.entries()) {
            const std::int64_t from = std::max(piece.begin, entry.offset), to = std::min(piece.end, entry.offset + entry.local.count());
            if (from >= to) continue;
            const std::int64_t at = shards.in_shard(b).begin + from - piece.begin;
            if (shard.dtype == Dtype::f64)
                fill(entry, seed, scale, shard.as<double>() + at, from - entry.offset, to - entry.offset);
            else
                fill(entry, seed, scale, shard.as<float>() + at, from - entry.offset, to - entry.offset);
        }
    }
}

}  // namespace rf
