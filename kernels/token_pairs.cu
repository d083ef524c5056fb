#include "kernels/token_pairs.hpp"

#include "core/device_memory.hpp"
#include "kernels/nvidia/row.cuh"

#include <cmath>
#include <limits>

namespace rf {

namespace {

using namespace device;

// A lane owns a token and meets all tokens of its sequence on the other side, one at a time: that token's vector is the same for the whole
// warp and comes from the first-level cache. Warps of a block share out the other side and are joined in order.
constexpr int warps = 4, tile = 32, threads = 32 * warps;
constexpr float infinity = std::numeric_limits<float>::infinity();

struct VectorsArgument {
    float *x, *q, *k;
    const std::int32_t* position;
    const float* rotary;
    int tokens, groups, d;
    bool interleaved;

    __device__ std::int64_t channel(bool key, int group, int c) const { return interleaved ? 2 * c + key : (2 * group + key) * d + c; }
};

/// One thread a pair of channels of q and of k. Backward: the way back.
template <bool Backward>
__global__ void __launch_bounds__(threads) vectors_kernel(VectorsArgument a, std::int64_t n) {
    const std::int64_t i = std::int64_t{blockIdx.x} * threads + threadIdx.x;
    if (i >= n) return;
    const int pairs = a.d / 2, pair = static_cast<int>(i % pairs), group = static_cast<int>(i / pairs % a.groups);
    const std::int64_t token = i / pairs / a.groups, row = token * a.groups * 2 * a.d, at = (std::int64_t{group} * a.tokens + token) * a.d + 2 * pair;
    const float* angle = a.rotary + std::int64_t{load(a.position + token)} * a.d + 2 * pair;
    const float cosine = load(angle), sine = Backward ? -load(angle + 1) : load(angle + 1), root = 1 / sqrtf(static_cast<float>(a.d));
#pragma unroll
    for (int key = 0; key < 2; ++key) {
        float *even = a.x + row + a.channel(key, group, 2 * pair), *odd = a.x + row + a.channel(key, group, 2 * pair + 1), *y = (key ? a.k : a.q) + at;
        const float scale = key ? 1 : root;
        const float u = Backward ? load(y) : load(even) * scale, v = Backward ? load(y + 1) : load(odd) * scale;
        const float turned_u = u * cosine - v * sine, turned_v = v * cosine + u * sine;
        store(Backward ? even : y, Backward ? turned_u * scale : turned_u);
        store(Backward ? odd : y + 1, Backward ? turned_v * scale : turned_v);
    }
}

struct PairsArgument {
    const float *q, *k, *bias;
    const std::int32_t *cu_seqlens, *visible, *cells, *cell_begin;
    int tokens, sequences, groups, d, types, ordered;
    bool first_is_visible, softmax;
};

/// One sequence and its visible tokens.
struct Place {
    int number, begin, n, first, end;
    __device__ Place(const PairsArgument& p, int s) : number(s) {
        begin = load(p.cu_seqlens + s);
        n = load(p.cu_seqlens + s + 1) - begin;
        first = std::min(std::max(load(p.visible + 2 * s), 0), n);
        end = std::min(std::max(load(p.visible + 2 * s + 1), first), n);
    }
    __device__ bool is_visible(const PairsArgument& p, int token) const { return (token == 0 && p.first_is_visible && n > 0) || (token >= first && token < end); }
};

/// A sequence's right cells, met in order. The whole warp walks alike.
struct CellWalk {
    const std::int32_t* cells;
    int from, to;
    bool softmax;
    __device__ CellWalk(const PairsArgument& p, int s)
        : cells(p.cells), from(p.cells ? load(p.cell_begin + s) : 0), to(p.cells ? load(p.cell_begin + s + 1) : 0), softmax(p.softmax) {}
    __device__ int type(int c) const { return load(cells + 3 * c); }
    __device__ int start(int c) const { return load(cells + 3 * c + 1); }
    __device__ int end(int c) const { return load(cells + 3 * c + 2); }
    /// Leaves what lies before a type, then tells whether (i, j) is among the type's; a softmax without one has (0, 0). Every lane asks for its
    /// own cell.
    __device__ bool has(int wanted, int i, int j) {
        while (from < to && type(from) < wanted) ++from;
        int found = 0, c = from;
        for (; c < to && type(c) == wanted; ++c) found |= static_cast<int>(start(c) == i) & static_cast<int>(end(c) == j);
        return softmax && c == from ? (i | j) == 0 : found != 0;
    }
};

/// The right cell of a softmax.
__device__ inline void answer_of(const PairsArgument& p, int s, int type, int& start, int& end) {
    CellWalk walk(p, s);
    start = end = 0;
    for (int c = walk.to - 1; c >= walk.from; --c)
        if (walk.type(c) == type) start = walk.start(c), end = walk.end(c);
}

/// Kernels that own vectors say that one block a multiprocessor is enough: left to itself the compiler saves registers by spilling some.
/// The vector a lane owns.
template <int Width>
struct Own {
    float v[Width];
    __device__ Own(const float* from, int d, bool present) {
#pragma unroll
        for (int c = 0; c < Width; ++c) v[c] = present && c < d ? load(from + c) : 0.0F;
    }
    /// With the same vector for every lane. Width is d rounded up.
    __device__ float dot(const float* other, int d) const {
        float sum = 0;
#pragma unroll
        for (int c = 0; c < Width; ++c)
            if (c < d) sum += v[c] * load(other + c);
        return sum;
    }
};

/// What a lane knows of its cell of one type: the score, and whether it takes part.
struct Cell {
    float score;
    bool counts;
};
__device__ inline Cell cell_of(const PairsArgument& p, const Place& place, int type, int i, int j, float product) {
    const bool counts = i < place.n && j < place.n && place.is_visible(p, i) && place.is_visible(p, j) && (type >= p.ordered || i <= j);
    if (!counts || !p.bias) return {product, counts};
    const std::int64_t width = 2 * std::int64_t{p.types};
    const float start = load(p.bias + (place.begin + i) * width + 2 * type + 1), end = load(p.bias + (place.begin + j) * width + 2 * type);
    return {product + (start / 2 + end / 2), counts};
}

/// Sums of exponentials of some cells. softmax: (largest, sum) of all, the best cell's number, the right cell's score. multilabel: (largest,
/// sum) of the wrong cells and of -s of the right ones.
struct Share {
    float v[4];

    __device__ explicit Share(bool softmax) : v{-infinity, 0, softmax ? infinity : -infinity, softmax ? -infinity : 0} {}
    __device__ static void join(float& largest, float& sum, float other, float other_sum) {
        const float top = fmaxf(largest, other);
        if (top == -infinity) return;
        sum = sum * expf(largest - top) + other_sum * expf(other - top);
        largest = top;
    }
    __device__ void join(const Share& other, bool softmax) {
        if (softmax) {
            if (other.v[0] > v[0] || (other.v[0] == v[0] && other.v[2] < v[2])) v[2] = other.v[2];
            v[3] = fmaxf(v[3], other.v[3]);
        } else {
            join(v[2], v[3], other.v[2], other.v[3]);
        }
        join(v[0], v[1], other.v[0], other.v[1]);
    }
};

struct ShareBlock {
    float of[warps][4][32];
};

/// One block 32 starts of a sequence and type; its warps take every fourth end. Writes the row's share, [4, L, T].
template <int Width>
__global__ void __launch_bounds__(threads, 1) pair_rows_kernel(PairsArgument p, float* rows) {
    ShareBlock& shared = shared_memory<ShareBlock>();
    const int type = static_cast<int>(blockIdx.y), group = p.groups == 1 ? 0 : type;
    const Place place(p, static_cast<int>(blockIdx.z));
    const int first = static_cast<int>(blockIdx.x) * tile, i = first + lane();
    if (first >= place.n) return;
    const std::int64_t base = (std::int64_t{group} * p.tokens + place.begin) * p.d;
    const Own<Width> own(p.q + base + std::int64_t{i} * p.d, p.d, i < place.n);
    Share share(p.softmax);
    CellWalk walk(p, place.number);
    for (int j = warp(); j < place.n; j += warps) {
        if (!place.is_visible(p, j)) continue;
        const Cell cell = cell_of(p, place, type, i, j, own.dot(p.k + base + std::int64_t{j} * p.d, p.d));
        const bool right = walk.has(type, i, j);
        if (!cell.counts) continue;
        Share one(p.softmax);
        if (p.softmax) {
            one.v[0] = cell.score, one.v[1] = 1, one.v[2] = static_cast<float>(i * place.n + j);
            if (right) one.v[3] = cell.score;
        } else {
            one.v[right ? 2 : 0] = right ? -cell.score : cell.score;
            one.v[right ? 3 : 1] = 1;
        }
        share.join(one, p.softmax);
    }
    for (int which = 0; which < 4; ++which) store_shared(&shared.of[warp()][which][lane()], share.v[which]);
    block_barrier();
    if (warp() != 0 || i >= place.n) return;
    for (int w = 1; w < warps; ++w) {
        Share other(p.softmax);
        for (int which = 0; which < 4; ++which) other.v[which] = load_shared(&shared.of[w][which][lane()]);
        share.join(other, p.softmax);
    }
    for (int which = 0; which < 4; ++which) store(rows + (std::int64_t{which} * p.types + type) * p.tokens + place.begin + i, share.v[which]);
}

__device__ inline float log_with_one(float largest, float sum) {
    const float top = fmaxf(largest, 0);
    return top + logf(expf(-top) + (sum > 0 ? sum * expf(largest - top) : 0));
}

/// One warp a sequence and type: a lane every 32nd row in order, then lanes in a fixed butterfly.
__global__ void __launch_bounds__(32) pair_stats_kernel(PairsArgument p, const float* rows, float* stats) {
    const int type = static_cast<int>(blockIdx.y), s = static_cast<int>(blockIdx.z);
    const Place place(p, s);
    Share share(p.softmax);
    for (int i = lane(); i < place.n; i += 32) {
        Share row(p.softmax);
        for (int which = 0; which < 4; ++which) row.v[which] = load(rows + (std::int64_t{which} * p.types + type) * p.tokens + place.begin + i);
        share.join(row, p.softmax);
    }
    for (int mask = 16; mask > 0; mask >>= 1) {
        Share other(p.softmax);
        for (int which = 0; which < 4; ++which) other.v[which] = shuffle_xor(share.v[which], mask);
        if (lane() & mask) {  // the lower lane's comes first in both
            other.join(share, p.softmax);
            share = other;
        } else {
            share.join(other, p.softmax);
        }
    }
    if (lane() != 0) return;
    float out[4] = {0, 0, 0, 0};
    if (place.n > 0 && p.softmax) {
        out[0] = share.v[0] + logf(share.v[1]);
        out[1] = share.v[3];
        out[2] = share.v[0];
        out[3] = share.v[2] == infinity ? -1 : share.v[2];
    } else if (place.n > 0) {
        out[0] = log_with_one(share.v[0], share.v[1]);
        out[1] = log_with_one(share.v[2], share.v[3]);
        out[2] = share.v[0];
        out[3] = share.v[2];
    }
    for (int which = 0; which < 4; ++which) store(stats + (std::int64_t{which} * p.types + type) * p.sequences + s, out[which]);
}

struct SumBlock {
    double of[warps][2];
};

/// One block: a thread every 128th sequence, its types in order, then threads in a fixed tree.
__global__ void __launch_bounds__(threads) pair_sums_kernel(PairsArgument p, const float* stats, double* sums) {
    SumBlock& shared = shared_memory<SumBlock>();
    double loss = 0, correct = 0;
    for (int s = static_cast<int>(threadIdx.x); s < p.sequences; s += threads) {
        const int n = load(p.cu_seqlens + s + 1) - load(p.cu_seqlens + s);
        if (n == 0) continue;
        double own = 0;
        bool right = true;
        for (int type = 0; type < p.types; ++type) {
            const auto at = [&](int which) { return load(stats + (std::int64_t{which} * p.types + type) * p.sequences + s); };
            own += static_cast<double>(at(0)) + (p.softmax ? -static_cast<double>(at(1)) : static_cast<double>(at(1)));
            int start = 0, end = 0;
            if (p.softmax) answer_of(p, s, type, start, end);
            right = right && (p.softmax ? at(3) == static_cast<float>(start * n + end) : at(2) <= 0 && at(3) < 0);
        }
        loss += own / p.types;
        correct += right;
    }
    loss = warp_sum(loss);
    correct = warp_sum(correct);
    if (lane() == 0) {
        store_shared(&shared.of[warp()][0], loss);
        store_shared(&shared.of[warp()][1], correct);
    }
    block_barrier();
    if (threadIdx.x >= 2) return;
    double total = 0;
    for (int w = 0; w < warps; ++w) total += load_shared(&shared.of[w][threadIdx.x]);
    store(sums + threadIdx.x, load(sums + threadIdx.x) + total);
}

/// d loss / d score of a lane's cell, times factor.
struct Slope {
    const float* stats;
    float factor;

    __device__ float operator()(const PairsArgument& p, int s, int type, const Cell& cell, bool right) const {
        if (!cell.counts) return 0;
        const auto stat = [&](int which) { return load(stats + (std::int64_t{which} * p.types + type) * p.sequences + s); };
        if (p.softmax) return (expf(cell.score - stat(0)) - (right ? 1.0F : 0.0F)) * factor;
        return (right ? -expf(-cell.score - stat(1)) : expf(cell.score - stat(0))) * factor;
    }
};

template <int Width>
struct VectorBlock {
    float of[warps - 1][Width][32];
};

struct GradientArgument {
    PairsArgument p;
    const float* stats;
    ScalarArgument factor;
    float* out;
};

/// One block 32 tokens of a sequence and group: their query's gradient, or (Ends) their key's. Slopes of the group's types are summed before
/// they multiply the other side's vector.
template <int Width, bool Ends>
__global__ void __launch_bounds__(threads, 1) pair_vectors_gradient_kernel(GradientArgument a) {
    VectorBlock<Width>& shared = shared_memory<VectorBlock<Width>>();
    const PairsArgument& p = a.p;
    const int group = static_cast<int>(blockIdx.y), s = static_cast<int>(blockIdx.z);
    const Place place(p, s);
    const int first = static_cast<int>(blockIdx.x) * tile, mine = first + lane();
    if (first >= place.n) return;
    const int from = p.groups == 1 ? 0 : group, to = p.groups == 1 ? p.types : group + 1;
    const std::int64_t base = (std::int64_t{group} * p.tokens + place.begin) * p.d;
    const float *own_side = (Ends ? p.k : p.q) + base, *other_side = (Ends ? p.q : p.k) + base;
    const Own<Width> own(own_side + std::int64_t{mine} * p.d, p.d, mine < place.n);
    const Slope slope{a.stats, a.factor.read() / static_cast<float>(p.types)};
    float sum[Width] = {};
    for (int other = warp(); other < place.n; other += warps) {
        if (!place.is_visible(p, other)) continue;
        const float* vector = other_side + std::int64_t{other} * p.d;
        const float product = own.dot(vector, p.d);
        const int i = Ends ? other : mine, j = Ends ? mine : other;
        CellWalk walk(p, s);
        float weight = 0;
        for (int type = from; type < to; ++type) {
            const bool right = walk.has(type, i, j);
            weight += slope(p, s, type, cell_of(p, place, type, i, j, product), right);
        }
#pragma unroll
        for (int c = 0; c < Width; ++c)
            if (c < p.d) sum[c] += weight * load(vector + c);
    }
    if (warp() > 0)
#pragma unroll
        for (int c = 0; c < Width; ++c) store_shared(&shared.of[warp() - 1][c][lane()], sum[c]);
    block_barrier();
    if (warp() != 0 || mine >= place.n) return;
#pragma unroll
    for (int c = 0; c < Width; ++c) {
        for (int w = 1; w < warps; ++w) sum[c] += load_shared(&shared.of[w - 1][c][lane()]);
        if (c < p.d) store(a.out + base + std::int64_t{mine} * p.d + c, sum[c]);
    }
}

struct BiasBlock {
    float of[warps][32];
};

/// One block 32 tokens of a sequence and type: the gradient of their start's bias, or (Ends) of their end's.
template <int Width, bool Ends>
__global__ void __launch_bounds__(threads) pair_bias_gradient_kernel(GradientArgument a) {
    BiasBlock& shared = shared_memory<BiasBlock>();
    const PairsArgument& p = a.p;
    const int type = static_cast<int>(blockIdx.y), group = p.groups == 1 ? 0 : type, s = static_cast<int>(blockIdx.z);
    const Place place(p, s);
    const int first = static_cast<int>(blockIdx.x) * tile, mine = first + lane();
    if (first >= place.n) return;
    const std::int64_t base = (std::int64_t{group} * p.tokens + place.begin) * p.d;
    const float *own_side = (Ends ? p.k : p.q) + base, *other_side = (Ends ? p.q : p.k) + base;
    const Own<Width> own(own_side + std::int64_t{mine} * p.d, p.d, mine < place.n);
    const Slope slope{a.stats, a.factor.read() / static_cast<float>(p.types)};
    CellWalk walk(p, s);
    float sum = 0;
    for (int other = warp(); other < place.n; other += warps) {
        if (!place.is_visible(p, other)) continue;
        const int i = Ends ? other : mine, j = Ends ? mine : other;
        const bool right = walk.has(type, i, j);
        sum += slope(p, s, type, cell_of(p, place, type, i, j, own.dot(other_side + std::int64_t{other} * p.d, p.d)), right);
    }
    store_shared(&shared.of[warp()][lane()], sum);
    block_barrier();
    if (warp() != 0 || mine >= place.n) return;
    for (int w = 1; w < warps; ++w) sum += load_shared(&shared.of[w][lane()]);
    store(a.out + (place.begin + mine) * 2 * std::int64_t{p.types} + 2 * type + (Ends ? 0 : 1), sum / 2);
}

struct FoundArgument {
    std::int32_t* counts;
    const std::int32_t* begin;
    std::int32_t* found;
    float* scores;
};

/// One warp 32 starts of a sequence and type; a lane meets its ends in order.
template <int Width>
__global__ void __launch_bounds__(32) pair_cells_kernel(PairsArgument p, FoundArgument out) {
    const int type = static_cast<int>(blockIdx.y), group = p.groups == 1 ? 0 : type;
    const Place place(p, static_cast<int>(blockIdx.z));
    const int i = static_cast<int>(blockIdx.x) * tile + lane();
    if (i - lane() >= place.n) return;
    const std::int64_t base = (std::int64_t{group} * p.tokens + place.begin) * p.d, at = std::int64_t{type} * p.tokens + place.begin + i;
    const Own<Width> own(p.q + base + std::int64_t{i} * p.d, p.d, i < place.n);
    int count = 0;
    const int to = out.found && i < place.n ? load(out.begin + at) : 0;
    for (int j = 0; j < place.n; ++j) {
        if (!place.is_visible(p, j)) continue;
        const Cell cell = cell_of(p, place, type, i, j, own.dot(p.k + base + std::int64_t{j} * p.d, p.d));
        if (!cell.counts || !(cell.score > 0)) continue;
        if (out.found) {
            const int place_of[3] = {type, i, j};
            for (int c = 0; c < 3; ++c) store(out.found + 3 * std::int64_t{to + count} + c, place_of[c]);
            store(out.scores + to + count, cell.score);
        }
        ++count;
    }
    if (!out.found && i < place.n) store(out.counts + at, count);
}

PairsArgument argument(const TokenPairs& p) {
    const auto list = [](const ConstTensor& t) { return t ? t.as<std::int32_t>() : nullptr; };
    return {.q = p.q.as<float>(),
            .k = p.k.as<float>(),
            .bias = p.bias ? p.bias.as<float>() : nullptr,
            .cu_seqlens = list(p.cu_seqlens),
            .visible = list(p.visible),
            .cells = list(p.cells),
            .cell_begin = list(p.cell_begin),
            .tokens = narrow(p.q.shape[1], "T"),
            .sequences = narrow(p.cu_seqlens.shape[0] - 1, "S"),
            .groups = narrow(p.q.shape[0], "G"),
            .d = narrow(p.q.shape[2], "D"),
            .types = narrow(p.types, "L"),
            .ordered = narrow(p.ordered, "the count of ordered types"),
            .first_is_visible = p.first_is_visible,
            .softmax = p.kind == TokenPairKind::softmax};
}

/// Blocks over 32 tokens of the longest sequence, `y`, and sequences.
Launch over_pairs(Stream& stream, const char* name, const TokenPairs& p, std::int64_t y, int block, std::size_t shared) {
    const std::int64_t sequences = p.cu_seqlens.shape[0] - 1;
    RF_REQUIRE(y < 65536 && sequences < 65536, name, ": ", y, " types and ", sequences, " sequences; a grid has 65535 of each");
    return {.name = name, .grid = dim3(blocks_for(p.longest, tile), static_cast<unsigned>(y), static_cast<unsigned>(sequences)), .block = dim3(static_cast<unsigned>(block)),
            .shared = shared, .stream = stream.handle()};
}

/// body(std::integral_constant<int, Width>) with the head size rounded up.
template <class Body>
void with_width(const TokenPairs& p, const Body& body) {
    RF_REQUIRE(p.q.shape[2] <= 64, "a token-pair head of size ", p.q.shape[2], "; on a GPU a vector stays in registers: at most 64");
    if (p.q.shape[2] <= 16) return body(std::integral_constant<int, 16>{});
    body(std::integral_constant<int, 64>{});
}

VectorsArgument vectors(const void* x, const void* q, const void* k, const ConstTensor& position, const ConstTensor& rotary, Shape shape, bool interleaved) {
    const auto pointer = [](const void* p) { return static_cast<float*>(const_cast<void*>(p)); };  // one kernel for both ways
    return {.x = pointer(x), .q = pointer(q), .k = pointer(k), .position = position.as<std::int32_t>(), .rotary = rotary.as<float>(),
            .tokens = narrow(shape[1], "T"), .groups = narrow(shape[0], "G"), .d = narrow(shape[2], "D"), .interleaved = interleaved};
}
Launch over_vectors(Stream& stream, const char* name, std::int64_t n) {
    return {.name = name, .grid = dim3(blocks_for(n, threads)), .block = dim3(threads), .stream = stream.handle()};
}

}  // namespace

namespace cuda {

void token_pair_vectors(Stream& stream, const TokenPairVectors& a) {
    const std::int64_t n = a.q.count() / 2;
    launch(over_vectors(stream, "token_pair_vectors", n), vectors_kernel<false>, vectors(a.x.data, a.q.data, a.k.data, a.position, a.rotary, a.q.shape, a.interleaved), n);
}

void token_pair_vectors_backward(Stream& stream, const TokenPairVectorsBackward& a) {
    const std::int64_t n = a.dq.count() / 2;
    launch(over_vectors(stream, "token_pair_vectors_backward", n), vectors_kernel<true>,
           vectors(a.dx.data, a.dq.data, a.dk.data, a.position, a.rotary, a.dq.shape, a.interleaved), n);
}

void token_pair_loss(Stream& stream, const TokenPairLoss& a) {
    const TokenPairs& p = a.pairs;
    const std::int64_t sequences = p.cu_seqlens.shape[0] - 1;
    RF_REQUIRE((a.rows.shape == Shape{4, p.types, p.q.shape[1]}), "on a GPU token_pair_loss needs scratch rows [4, L, T]");
    with_width(p, [&](auto width) {
        launch(over_pairs(stream, "token_pair_rows", p, p.types, threads, sizeof(ShareBlock)), pair_rows_kernel<decltype(width)::value>, argument(p), a.rows.as<float>());
    });
    launch({.name = "token_pair_stats", .grid = dim3(1, static_cast<unsigned>(p.types), static_cast<unsigned>(sequences)), .block = dim3(32), .stream = stream.handle()},
           pair_stats_kernel, argument(p), a.rows.as<float>(), a.stats.as<float>());
    if (a.sums)
        launch({.name = "token_pair_sums", .grid = dim3(1), .block = dim3(threads), .shared = sizeof(SumBlock), .stream = stream.handle()}, pair_sums_kernel, argument(p),
               a.stats.as<float>(), a.sums.as<double>());
}

void token_pair_backward(Stream& stream, const TokenPairBackward& a) {
    const TokenPairs& p = a.pairs;
    for (const Tensor& t : {a.dq, a.dk, a.d_bias})
        if (t) fill_zero(stream.handle(), t.data, t.bytes());  // rows of no sequence
    const auto gradient = [&](const Tensor& out) { return GradientArgument{argument(p), a.stats.as<float>(), device::argument(a.factor), out.as<float>()}; };
    with_width(p, [&](auto width) {
        constexpr int w = decltype(width)::value;
        const std::size_t shared = sizeof(VectorBlock<w>);
        launch(over_pairs(stream, "token_pair_dq", p, p.q.shape[0], threads, shared), pair_vectors_gradient_kernel<w, false>, gradient(a.dq));
        launch(over_pairs(stream, "token_pair_dk", p, p.q.shape[0], threads, shared), pair_vectors_gradient_kernel<w, true>, gradient(a.dk));
        if (!a.d_bias) return;
        launch(over_pairs(stream, "token_pair_starts", p, p.types, threads, sizeof(BiasBlock)), pair_bias_gradient_kernel<w, false>, gradient(a.d_bias));
        launch(over_pairs(stream, "token_pair_ends", p, p.types, threads, sizeof(BiasBlock)), pair_bias_gradient_kernel<w, true>, gradient(a.d_bias));
    });
}

void token_pair_cells(Stream& stream, const TokenPairCells& a) {
    const TokenPairs& p = a.pairs;
    if (!a.found) fill_zero(stream.handle(), a.counts.data, a.counts.bytes());
    const FoundArgument out{.counts = a.counts ? a.counts.as<std::int32_t>() : nullptr, .begin = a.begin ? a.begin.as<std::int32_t>() : nullptr,
                            .found = a.found ? a.found.as<std::int32_t>() : nullptr, .scores = a.scores ? a.scores.as<float>() : nullptr};
    with_width(p, [&](auto width) {
        launch(over_pairs(stream, "token_pair_cells", p, p.types, 32, 0), pair_cells_kernel<decltype(width)::value>, argument(p), out);
    });
}

}  // namespace cuda

}  // namespace rf
