#include "kernels/embedding.hpp"

#include "kernels/nvidia/row.cuh"

namespace rf {

namespace {

using namespace device;

constexpr int warps = 8;          // of a block
constexpr int piece_tokens = 32;  // of one id, summed by one warp
constexpr int window = 8;         // places of IdGroups::tokens whose pieces one warp sums
constexpr int segment_tokens = embedding_segment_tokens;
constexpr int batch = 8;          // rows under way at a time

template <class T>
struct Lookup {
    const std::int32_t *ids, *segments;  // segments: null where all are 0
    const T *word, *segment;             // segment: null on ranks that do not add it
    T* y;
    std::int64_t first_id;
    int tokens, v, c;
};

/// One warp a token, 8 tokens a block; any c, 1024 channels a round.
template <class T, bool Whole>
__global__ void __launch_bounds__(32 * warps) embedding_kernel(Lookup<T> a) {
    constexpr int pieces = 4;
    const int token = static_cast<int>(blockIdx.x) * warps + warp();
    if (token >= a.tokens) return;
    const std::int64_t id = load(a.ids + token) - a.first_id;
    const bool here = id >= 0 && id < a.v;
    const T* word = a.word + (here ? id : 0) * a.c;
    const T* segment = a.segment ? a.segment + std::int64_t{a.segments ? load(a.segments + token) : 0} * a.c : nullptr;
    for (int first = 0; 8 * first < a.c; first += 32 * pieces) {
        Eight<T> of_word[pieces], of_segment[pieces]{};
#pragma unroll
        for (int p = 0; p < pieces; ++p) {
            const int e = first + 32 * p + lane();
            of_word[p] = load_eight<Whole>(word, e, here ? a.c : 0);
            if (segment) of_segment[p] = load_eight<Whole>(segment, e, a.c);
        }
#pragma unroll
        for (int p = 0; p < pieces; ++p) {
            float sum[8];
#pragma unroll
            for (int k = 0; k < 8; ++k) sum[k] = of_word[p][k] + of_segment[p][k];
            store_eight<Whole>(a.y + std::int64_t{token} * a.c, first + 32 * p + lane(), a.c, sum);
        }
    }
}

template <class T>
struct Scatter {
    const std::int32_t *ids, *tokens, *begin;
    const T* dy;
    float *table, *scratch;
    std::int64_t first_id;
    int count, groups, v, c;  // count: of tokens

    /// The table's row for a token's id, or null where another rank owns it.
    __device__ float* row_of(int token) const {
        const std::int64_t id = load(ids + token) - first_id;
        return id >= 0 && id < v ? table + id * c : nullptr;
    }
};

/// sum += rows 8e … of `count` tokens (at most 32; lane i holds token i) in order, `batch` loads under way at once.
template <class T, bool Whole>
__device__ inline void add_tokens(float (&sum)[8], const T* dy, int my_token, int count, int e, int c) {
    constexpr int together = Whole ? batch : 2;  // single elements need more registers on their way
    for (int first = 0; first < count; first += together) {
        Eight<T> rows[together];
#pragma unroll
        for (int i = 0; i < together; ++i) {
            const std::int64_t token = shuffle(my_token, first + i);
            rows[i] = load_eight<Whole>(dy + token * c, e, first + i < count ? c : 0);
        }
#pragma unroll
        for (int i = 0; i < together; ++i)
#pragma unroll
            for (int k = 0; k < 8; ++k) sum[k] += rows[i][k];
    }
}

/// A group's tokens are cut into pieces of 32. One warp sums 256 channels of the pieces that begin in its window of 8 places
/// of `tokens`; so a long group is summed by many warps and short ones do not wait for each other for long. The first piece
/// of a group is added to the table, any other goes to row (its first place) / 32 of scratch: no two of those pieces begin
/// in the same 32 places, since a first piece of 32 lies between.
template <class T, bool Whole>
__global__ void __launch_bounds__(32 * warps) embedding_pieces_kernel(Scatter<T> a) {
    const int chunks = (a.c + 255) / 256, unit = static_cast<int>(blockIdx.x) * warps + warp();
    const int e = unit % chunks * 32 + lane();
    int place = unit / chunks * window;
    const int end = std::min(place + window, a.count);
    if (place >= end) return;
    // The group of the first place: the first that ends behind it.
    int group = 0;
    for (int after = a.groups; group < after;) {
        const int middle = (group + after) / 2;
        if (load(a.begin + middle + 1) <= place)
            group = middle + 1;
        else
            after = middle;
    }
    // A window has at most 8 groups, for empty ones stand behind all others: one access finds where they begin.
    const int bound = lane() <= window && group + lane() <= a.groups ? load(a.begin + group + lane()) : a.count;
    for (int i = 0; place < end && i < window;) {
        const int first = shuffle(bound, i), last = shuffle(bound, i + 1);
        const int piece = first + (std::max(place - first, 0) + piece_tokens - 1) / piece_tokens * piece_tokens;
        if (piece >= last) {
            ++i;
            place = std::max(place, last);
            continue;
        }
        if (piece >= end) return;
        const int count = std::min(last - piece, int{piece_tokens});
        const int my_token = lane() < count ? load(a.tokens + piece + lane()) : 0;
        float* row = a.row_of(shuffle(my_token, 0));
        place = piece + count;
        if (!row) continue;
        if (piece > first) row = a.scratch + std::int64_t{piece / piece_tokens} * a.c;
        const Eight<float> before = load_eight<Whole>(row, e, piece > first ? 0 : a.c);
        float sum[8] = {};
        add_tokens<T, Whole>(sum, a.dy, my_token, count, e, a.c);
        if (piece == first)
#pragma unroll
            for (int k = 0; k < 8; ++k) sum[k] += before[k];
        store_eight<Whole>(row, e, a.c, sum);
    }
}

/// One warp for 256 channels of a group: the pieces behind the first are added to the table in order.
template <class T, bool Whole>
__global__ void __launch_bounds__(32 * warps) embedding_join_kernel(Scatter<T> a) {
    const int chunks = (a.c + 255) / 256, unit = static_cast<int>(blockIdx.x) * warps + warp();
    const int e = unit % chunks * 32 + lane(), group = unit / chunks;
    if (group >= a.groups) return;
    const int first = load(a.begin + group) + piece_tokens, last = load(a.begin + group + 1);
    if (first >= last) return;
    float* row = a.row_of(load(a.tokens + first));
    if (!row) return;
    const Eight<float> before = load_eight<Whole>(row, e, a.c);
    float sum[8];
#pragma unroll
    for (int k = 0; k < 8; ++k) sum[k] = before[k];
    for (int piece = first; piece < last; piece += batch * piece_tokens) {
        Eight<float> pieces[batch];
#pragma unroll
        for (int i = 0; i < batch; ++i) {
            const int at = piece + i * piece_tokens;
            pieces[i] = load_eight<Whole>(a.scratch + std::int64_t{at / piece_tokens} * a.c, e, at < last ? a.c : 0);
        }
#pragma unroll
        for (int i = 0; i < batch; ++i)
#pragma unroll
            for (int k = 0; k < 8; ++k) sum[k] += pieces[i][k];
    }
    store_eight<Whole>(row, e, a.c, sum);
}

template <class T>
struct Segments {
    const std::int32_t* of;  // null where all are 0
    const T* dy;
    float *table, *scratch;  // scratch [blocks of 128 tokens, types, C]
    int count, types, c;
};

/// One warp for 256 channels of a block of 128 tokens and one segment: the block's tokens of that segment in order. Each row
/// of dy is read once, by the segment it belongs to.
template <class T, bool Whole>
__global__ void __launch_bounds__(32 * warps) segment_blocks_kernel(Segments<T> a) {
    const int chunks = (a.c + 255) / 256, unit = static_cast<int>(blockIdx.x) * warps + warp();
    const int e = unit % chunks * 32 + lane(), type = unit / chunks % a.types, block = unit / chunks / a.types;
    const int begin = block * segment_tokens, end = std::min(begin + segment_tokens, a.count);
    if (begin >= end) return;
    float sum[8] = {};
    int mine = 0;  // the segment of token lane() of every 32
    for (int first = begin; first < end; first += batch) {
        if (a.of && first % 32 == 0) mine = first + lane() < end ? load(a.of + first + lane()) : 0;
        Eight<T> rows[batch];
#pragma unroll
        for (int i = 0; i < batch; ++i) {
            const int token = first + i;
            const bool counts = shuffle(mine, token % 32) == type && token < end;
            rows[i] = load_eight<Whole>(a.dy + std::int64_t{token} * a.c, e, counts ? a.c : 0);
        }
#pragma unroll
        for (int i = 0; i < batch; ++i)
#pragma unroll
            for (int k = 0; k < 8; ++k) sum[k] += rows[i][k];
    }
    store_eight<Whole>(a.scratch + (std::int64_t{block} * a.types + type) * a.c, e, a.c, sum);
}

/// Sums of the warps of a block for 256 channels, [warp][k][lane]: without bank conflicts.
struct WarpRows {
    float of[warps][8][32];
};

/// One block for 256 channels of one segment: warp w adds blocks w, w + 8, … in order, then the warps are added in order.
/// So empty blocks at the end change no bit.
template <class T, bool Whole>
__global__ void __launch_bounds__(32 * warps) segment_join_kernel(Segments<T> a) {
    WarpRows& sums = shared_memory<WarpRows>();
    const int chunks = (a.c + 255) / 256, type = static_cast<int>(blockIdx.x) / chunks, e = static_cast<int>(blockIdx.x) % chunks * 32 + lane();
    const int blocks = (a.count + segment_tokens - 1) / segment_tokens;
    float sum[8] = {};
    for (int block = warp(); block < blocks; block += warps * batch) {
        Eight<float> rows[batch];
#pragma unroll
        for (int i = 0; i < batch; ++i) {
            const std::int64_t at = block + i * warps;
            rows[i] = load_eight<Whole>(a.scratch + (at * a.types + type) * a.c, e, at < blocks ? a.c : 0);
        }
#pragma unroll
        for (int i = 0; i < batch; ++i)
#pragma unroll
            for (int k = 0; k < 8; ++k) sum[k] += rows[i][k];
    }
#pragma unroll
    for (int k = 0; k < 8; ++k) store_shared(&sums.of[warp()][k][lane()], sum[k]);
    block_barrier();
    if (warp() != 0) return;
    float* row = a.table + std::int64_t{type} * a.c;
    const Eight<float> before = load_eight<Whole>(row, e, a.c);
#pragma unroll
    for (int k = 0; k < 8; ++k) {
        float total = 0;
        for (int w = 0; w < warps; ++w) total += load_shared(&sums.of[w][k][lane()]);
        sum[k] = before[k] + total;
    }
    store_eight<Whole>(row, e, a.c, sum);
}

Launch over(Stream& stream, const char* name, std::int64_t units) {
    return {.name = name, .grid = dim3(blocks_for(units, warps)), .block = dim3(32 * warps), .stream = stream.handle()};
}

template <class T>
void forward(Stream& stream, const Embedding& a) {
    const Lookup<T> arguments{.ids = a.ids.as<std::int32_t>(),
                              .segments = a.segments ? a.segments.as<std::int32_t>() : nullptr,
                              .word = a.word.as<T>(),
                              .segment = a.segment ? a.segment.as<T>() : nullptr,
                              .y = a.y.as<T>(),
                              .first_id = a.first_id,
                              .tokens = narrow(a.ids.shape[0], "T"),
                              .v = narrow(a.word.shape[0], "V"),
                              .c = narrow(a.word.shape[1], "C")};
    const bool whole = whole_packs(arguments.c, {a.word.data, a.segment.data, a.y.data});
    launch(over(stream, "embedding", arguments.tokens), whole ? embedding_kernel<T, true> : embedding_kernel<T, false>, arguments);
}

template <class T, bool Whole>
void words(Stream& stream, const EmbeddingBackward& a) {
    const Scatter<T> arguments{.ids = a.ids.as<std::int32_t>(),
                               .tokens = a.tokens.as<std::int32_t>(),
                               .begin = a.begin.as<std::int32_t>(),
                               .dy = a.dy.as<T>(),
                               .table = a.d_word.as<float>(),
                               .scratch = a.scratch.as<float>(),
                               .first_id = a.first_id,
                               .count = narrow(a.ids.shape[0], "T"),
                               .groups = narrow(a.begin.shape[0] - 1, "the count of ids"),
                               .v = narrow(a.d_word.shape[0], "V"),
                               .c = narrow(a.dy.shape[1], "C")};
    const std::int64_t chunks = blocks_for(arguments.c, 256);
    launch(over(stream, "embedding_pieces", chunks * blocks_for(arguments.count, window)), embedding_pieces_kernel<T, Whole>, arguments);
    launch(over(stream, "embedding_join", chunks * arguments.groups), embedding_join_kernel<T, Whole>, arguments);
}

template <class T, bool Whole>
void segments(Stream& stream, const EmbeddingBackward& a) {
    const Segments<T> arguments{.of = a.segments ? a.segments.as<std::int32_t>() : nullptr,
                                .dy = a.dy.as<T>(),
                                .table = a.d_segment.as<float>(),
                                .scratch = a.scratch.as<float>(),
                                .count = narrow(a.ids.shape[0], "T"),
                                .types = narrow(a.d_segment.shape[0], "the count of segments"),
                                .c = narrow(a.dy.shape[1], "C")};
    const unsigned chunks = blocks_for(arguments.c, 256);
    launch(over(stream, "segment_blocks", std::int64_t{chunks} * arguments.types * blocks_for(arguments.count, segment_tokens)),
           segment_blocks_kernel<T, Whole>, arguments);
    launch({.name = "segment_join", .grid = dim3(chunks * static_cast<unsigned>(arguments.types)), .block = dim3(32 * warps), .shared = sizeof(WarpRows),
            .stream = stream.handle()},
           segment_join_kernel<T, Whole>, arguments);
}

template <class T, bool Whole>
void backward(Stream& stream, const EmbeddingBackward& a) {
    words<T, Whole>(stream, a);
    if (a.d_segment) segments<T, Whole>(stream, a);  // scratch is used again, after the words in stream order
}

}  // namespace

namespace cuda {

void embedding(Stream& stream, const Embedding& a) {
    device::dispatch(a.y.dtype, [&](auto type) { forward<decltype(type)>(stream, a); });
}

void embedding_backward(Stream& stream, const EmbeddingBackward& a) {
    const std::int64_t tokens = a.ids.shape[0], c = a.dy.shape[1], rows = embedding_scratch_rows(tokens, a.d_segment ? a.d_segment.shape[0] : 0);
    if (tokens == 0) return;
    RF_REQUIRE(a.scratch && a.scratch.dtype == Dtype::f32 && a.scratch.count() >= rows * c, "embedding_backward needs scratch [", rows, ", ", c, "] f32 on a GPU");
    const bool whole = whole_packs(c, {a.dy.data, a.d_word.data, a.d_segment.data, a.scratch.data});
    device::dispatch(a.dy.dtype, [&](auto type) {
        using T = decltype(type);
        whole ? backward<T, true>(stream, a) : backward<T, false>(stream, a);
    });
}

}  // namespace cuda

}  // namespace rf
