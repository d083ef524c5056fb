#pragma once
/// Philox4x32-10: counter-based random bits (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as
/// 1, 2, 3", SC 2011; constants of table 2). A draw is a pure function of (key, counter): nothing is stored.

#include "core/build.hpp"

#include <array>
#include <cstdint>

namespace rf {

using PhiloxCounter = std::array<std::uint32_t, 4>;
using PhiloxKey = std::array<std::uint32_t, 2>;

/// What a stream of draws is for; the top byte of the fourth counter word.
enum class Purpose : std::uint32_t { dropout = 1, initialise = 2, mask = 3, replace = 4, order = 5, window = 6, corrupt = 7, task = 8 };

RF_HOST_DEVICE inline PhiloxCounter philox(PhiloxCounter c, PhiloxKey k) {
    constexpr std::uint32_t m0 = 0xD2511F53U, m1 = 0xCD9E8D57U, w0 = 0x9E3779B9U, w1 = 0xBB67AE85U;
    for (int round = 0; round < 10; ++round) {
        const std::uint64_t p0 = std::uint64_t{m0} * c[0], p1 = std::uint64_t{m1} * c[2];
        c = {static_cast<std::uint32_t>(p1 >> 32) ^ c[1] ^ k[0], static_cast<std::uint32_t>(p1),
             static_cast<std::uint32_t>(p0 >> 32) ^ c[3] ^ k[1], static_cast<std::uint32_t>(p0)};
        k[0] += w0;
        k[1] += w1;
    }
    return c;
}

inline PhiloxKey philox_key(std::uint64_t seed) {
    return {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)};
}

/// Fourth counter word: purpose in the top 8 bits, `detail` (layer, head, …) in the lower 24.
inline std::uint32_t philox_stream(Purpose purpose, std::uint32_t detail) {
    return (static_cast<std::uint32_t>(purpose) << 24) | (detail & 0xffffffU);
}

/// Uniform in [0, 1) with 32 bits.
inline double uniform(std::uint32_t bits) { return bits * 0x1p-32; }

}  // namespace rf
