#include "kernels/embedding.hpp"

#include "core/op_log.hpp"
#include "kernels/dispatch.hpp"

#include <algorithm>
#include <numeric>
#include <vector>

namespace rf {

void embedding(Stream& stream, const Embedding& a) {
    const std::int64_t tokens = a.ids.shape[0], c = a.word.shape[1], v = a.word.shape[0];
    RF_REQUIRE((a.y.shape == Shape{tokens, c}) && (!a.segment || a.segment.shape[1] == c), "y must be [T, C]");
    if constexpr (has_cuda)
        if (stream.device() == Device::cuda) return cuda::embedding(stream, a);
    const OpScope scope(stream, {.name = "embedding", .bytes = bytes_of(a.y, a.y)});
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

IdGroups group_by_id(std::span<const std::int32_t> ids) {
    IdGroups groups;
    groups.tokens.resize(ids.size());
    std::iota(groups.tokens.begin(), groups.tokens.end(), 0);
    std::stable_sort(groups.tokens.begin(), groups.tokens.end(),
                     [&](std::int32_t a, std::int32_t b) { return ids[static_cast<std::size_t>(a)] < ids[static_cast<std::size_t>(b)]; });
    const auto id_of = [&](std::size_t i) { return ids[static_cast<std::size_t>(groups.tokens[i])]; };
    for (std::size_t i = 0; i < ids.size(); ++i)
        if (i == 0 || id_of(i) != id_of(i - 1)) groups.begin.push_back(static_cast<std::int32_t>(i));
    groups.begin.push_back(static_cast<std::int32_t>(ids.size()));
    return groups;
}

namespace {

template <class T>
void add_rows(const EmbeddingBackward& a) {
    using R = simd::Real<T>;
    const std::int64_t c = a.d_word.shape[1], v = a.d_word.shape[0], groups = a.begin.shape[0] - 1;
    const std::int32_t *ids = indices(a.ids), *tokens = indices(a.tokens), *begin = indices(a.begin);
#pragma omp parallel for schedule(static)
    for (std::int64_t g = 0; g < groups; ++g) {
        if (begin[g] == begin[g + 1]) continue;
        const std::int64_t row = ids[tokens[begin[g]]] - a.first_id;
        if (row < 0 || row >= v) continue;
        for (std::int32_t at = begin[g]; at < begin[g + 1]; ++at)
            rows_of<T>().accumulate(raw<T>(a.dy) + tokens[at] * c, raw<R>(a.d_word) + row * c, c);
    }
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
    const std::int64_t tokens = a.ids.shape[0], c = a.dy.shape[1];
    RF_REQUIRE(a.dy.shape[0] == tokens && a.d_word.shape[1] == c, "dy must be [T, C]");
    RF_REQUIRE(a.d_word.dtype == accumulator_of(a.dy.dtype), "gradients of tables have the accumulator dtype");
    RF_REQUIRE(a.tokens.shape == Shape{tokens} && a.begin.shape.rank == 1 && a.begin.shape[0] >= 1, "tokens must be [T] and begin [U+1] (group_by_id)");
    if constexpr (has_cuda)
        if (stream.device() == Device::cuda) return cuda::embedding_backward(stream, a);
    const OpScope scope(stream, {.name = "embedding_backward", .bytes = bytes_of(a.dy) * (1 + 2.0 * static_cast<double>(size_of(a.d_word.dtype)) / static_cast<double>(size_of(a.dy.dtype)))});
    dispatch(a.dy.dtype, [&](auto type) {
        using T = decltype(type);
        add_rows<T>(a);
        if (a.d_segment) add_segments<T>(indices(a.segments), a.dy, a.d_segment);
    });
}

}  // namespace rf
