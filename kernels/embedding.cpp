#include "kernels/embedding.hpp"

#include "kernels/dispatch.hpp"

#include <algorithm>
#include <vector>

namespace rf {

void embedding(Stream& stream, const Embedding& a) {
    require_cpu(stream);
    const std::int64_t tokens = a.ids.shape[0], c = a.word.shape[1], v = a.word.shape[0];
    RF_REQUIRE((a.y.shape == Shape{tokens, c}) && (!a.segment || a.segment.shape[1] == c), "y must be [T, C]");
    const std::int32_t *ids = indices(a.ids), *segments = indices(a.segments);
    dispatch(a.y.dtype, [&](auto type) {
        using T = decltype(type);
#pragma omp parallel for schedule(static)
        for (std::int64_t t = 0; t < tokens; ++t) {
            const std::int64_t id = ids[t] - a.first_id;
            const T* word = id >= 0 && id < v ? raw<T>(a.word) + id * c : nullptr;
            const T* segment = a.segment ? raw<T>(a.segment) + (segments ? segments[t] : 0) * c : nullptr;
            rows_of<T>().sum_rows(word, segment, raw<T>(a.y) + t * c, c);
        }
    });
}

namespace {

/// Tokens grouped by id (those outside [0, v) left out), in batch order within an id.
struct ById {
    std::vector<std::int64_t> begin;    ///< [distinct + 1]
    std::vector<std::int32_t> ids;      ///< [distinct]
    std::vector<std::int32_t> tokens;
};

ById group(const std::int32_t* ids, std::int64_t count, std::int64_t first, std::int64_t v) {
    ById by;
    for (std::int64_t t = 0; t < count; ++t)
        if (ids[t] >= first && ids[t] < first + v) by.tokens.push_back(static_cast<std::int32_t>(t));
    std::stable_sort(by.tokens.begin(), by.tokens.end(), [&](std::int32_t a, std::int32_t b) { return ids[a] < ids[b]; });
    for (std::size_t i = 0; i < by.tokens.size(); ++i) {
        const std::int32_t id = ids[by.tokens[i]];
        if (!by.ids.empty() && by.ids.back() == id) continue;
        by.begin.push_back(static_cast<std::int64_t>(i));
        by.ids.push_back(id);
    }
    by.begin.push_back(static_cast<std::int64_t>(by.tokens.size()));
    return by;
}

template <class T>
void add_rows(const ById& by, const ConstTensor& dy, const Tensor& table, std::int64_t first) {
    using R = simd::Real<T>;
    const std::int64_t c = table.shape[1];
#pragma omp parallel for schedule(static)
    for (std::size_t i = 0; i < by.ids.size(); ++i)
        for (std::int64_t at = by.begin[i]; at < by.begin[i + 1]; ++at)
            rows_of<T>().accumulate(raw<T>(dy) + by.tokens[static_cast<std::size_t>(at)] * c, raw<R>(table) + (by.ids[i] - first) * c, c);
}

/// A table of few rows: threads take channels, each adds its tokens in order.
template <class T>
void add_segments(const std::int32_t* segments, const ConstTensor& dy, const Tensor& table) {
    using R = simd::Real<T>;
    constexpr std::int64_t channels = 64;
    const std::int64_t tokens = dy.shape[0], c = table.shape[1];
#pragma omp parallel for schedule(static)
    for (std::int64_t from = 0; from < c; from += channels)
        for (std::int64_t t = 0; t < tokens; ++t)
            rows_of<T>().accumulate(raw<T>(dy) + t * c + from, raw<R>(table) + (segments ? segments[t] : 0) * c + from, std::min(channels, c - from));
}

}  // namespace

void embedding_backward(Stream& stream, const EmbeddingBackward& a) {
    require_cpu(stream);
    const std::int64_t tokens = a.ids.shape[0], c = a.dy.shape[1];
    RF_REQUIRE(a.dy.shape[0] == tokens && a.d_word.shape[1] == c, "dy must be [T, C]");
    RF_REQUIRE(a.d_word.dtype == accumulator_of(a.dy.dtype), "gradients of tables have the accumulator dtype");
    dispatch(a.dy.dtype, [&](auto type) {
        using T = decltype(type);
        add_rows<T>(group(indices(a.ids), tokens, a.first_id, a.d_word.shape[0]), a.dy, a.d_word, a.first_id);
        if (a.d_segment) add_segments<T>(indices(a.segments), a.dy, a.d_segment);
    });
}

}  // namespace rf
