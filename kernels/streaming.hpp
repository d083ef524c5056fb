#pragma once
/// Stores of what no one reads soon: they neither fetch the memory they overwrite nor take the place of what caches hold.

#include <immintrin.h>

#include <algorithm>
#include <cstdint>

namespace rf {

/// y = x. Ordinary stores at the ends that are not whole 16 bytes of y. Before another thread may read y, `stores_done()`.
inline void store_past_caches(const float* x, float* y, std::int64_t n) {
    constexpr std::int64_t width = 4;
    const std::int64_t before = std::min<std::int64_t>(n, (width - static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(y) / sizeof(float)) % width) % width);
    std::copy_n(x, before, y);
    std::int64_t i = before;
    for (; i + width <= n; i += width) _mm_stream_ps(y + i, _mm_loadu_ps(x + i));
    std::copy_n(x + i, n - i, y + i);
}
inline void stores_done() { _mm_sfence(); }

}  // namespace rf
