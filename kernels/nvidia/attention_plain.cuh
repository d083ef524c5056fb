#pragma once
/// Attention without tensor cores: f32 arithmetic for f32, and for bf16 heads of other sizes than 64. Any even head size to
/// 128, any length.
///
/// Four warps a block, four rows a warp ("own"); the block walks over tiles of 32 rows, one a lane. Rows lie in shared memory
/// as f32, the even elements before the odd ones: then a lane meets a pair with two accesses free of bank conflicts, and its
/// columns of a result are whole pairs.

#include "kernels/nvidia/attention.cuh"

#include <cmath>

namespace rf::device {

inline constexpr int plain_threads = 128, plain_rows = 16, plain_step = 32, plain_largest_head = 128;

/// `Width`: head size rounded up to 64 or 128.
template <int Width>
struct PlainTiles {
    float tile[2][plain_step][Width + 1];
    float own[2][plain_rows][Width];
    float weight[2][plain_rows][plain_step];      ///< what a row of the tile counts for each own row
    std::uint32_t bits[plain_rows][plain_step / 2];  ///< dropout of the tile's keys for each own query row
};

/// Rows of one head, as in memory.
template <class T>
struct PlainRows {
    const T* base;
    std::int64_t stride;
    int length, channels;
    const float* rotary;  ///< null: not turned
};

/// Rows first … first + N - 1 as f32, turned; those from `length` on are zero.
template <int N, int Stride, class T>
__device__ inline void fill(float (&to)[N][Stride], const PlainRows<T>& rows, int first) {
    const int pairs = rows.channels / 2, half = Stride / 32 * 16;
    for (int i = static_cast<int>(threadIdx.x); i < N * pairs; i += plain_threads) {
        const int line = i / pairs, pair = i % pairs, row = first + line;
        float even = 0, odd = 0;
        if (row < rows.length) {
            const auto x = load(reinterpret_cast<const Pack<T, 2>*>(rows.base + row * rows.stride + 2 * pair));
            even = to_float(x.v[0]);
            odd = to_float(x.v[1]);
            if (rows.rotary) {
                const auto angle = load(reinterpret_cast<const Pack<float, 2>*>(rows.rotary + std::int64_t{row} * rows.channels + 2 * pair));
                const float turned = even * angle.v[0] - odd * angle.v[1];
                odd = odd * angle.v[0] + even * angle.v[1];
                even = turned;
            }
        }
        store_shared(&to[line][pair], even);
        store_shared(&to[line][half + pair], odd);
    }
}

/// The products of four own rows with this lane's row of the tile.
template <int Width>
__device__ inline void multiply_rows(float (&sum)[4], const float (&own)[plain_rows][Width], const float (&tile)[plain_step][Width + 1], int pairs) {
    const int first = 4 * warp();
    for (float& x : sum) x = 0;
    for (int pair = 0; pair < pairs; ++pair) {
        const float even = load_shared(&tile[lane()][pair]), odd = load_shared(&tile[lane()][Width / 2 + pair]);
#pragma unroll
        for (int r = 0; r < 4; ++r) sum[r] += load_shared(&own[first + r][pair]) * even + load_shared(&own[first + r][Width / 2 + pair]) * odd;
    }
}

/// This lane's columns of four rows: pairs lane, lane + 32, …, evens then odds.
template <int Width>
using PlainSums = float[4][Width / 32];

/// sum += weight * tile over the tile's first `count` rows.
template <int Width>
__device__ inline void add_rows(PlainSums<Width>& sum, const float (&weight)[plain_rows][plain_step], const float (&tile)[plain_step][Width + 1], int count) {
    const int first = 4 * warp();
    for (int j = 0; j < count; ++j) {
        float x[Width / 32];
#pragma unroll
        for (int i = 0; i < Width / 32; ++i) x[i] = load_shared(&tile[j][lane() + 32 * i]);
#pragma unroll
        for (int r = 0; r < 4; ++r) {
            const float w = load_shared(&weight[first + r][j]);
#pragma unroll
            for (int i = 0; i < Width / 32; ++i) sum[r][i] += w * x[i];
        }
    }
}

/// Writes factor * sums as rows first, first + 1, … (first: of the warp), turned back where the rows were turned.
template <int Width, class T>
__device__ inline void put_rows(const PlainSums<Width>& sum, const PlainRows<T>& rows, T* to, std::int64_t stride, int first, const float (&factor)[4]) {
    constexpr int each = Width / 64;
#pragma unroll
    for (int r = 0; r < 4; ++r) {
#pragma unroll
        for (int j = 0; j < each; ++j) {
            const int row = first + r, pair = lane() + 32 * j;
            if (row >= rows.length || pair >= rows.channels / 2) continue;
            float even = sum[r][j] * factor[r], odd = sum[r][each + j] * factor[r];
            if (rows.rotary) {
                const auto angle = load(reinterpret_cast<const Pack<float, 2>*>(rows.rotary + std::int64_t{row} * rows.channels + 2 * pair));
                const float back = even * angle.v[0] + odd * angle.v[1];
                odd = odd * angle.v[0] - even * angle.v[1];
                even = back;
            }
            store(reinterpret_cast<Pack<T, 2>*>(to + row * stride + 2 * pair), Pack<T, 2>{{from_float<T>(even), from_float<T>(odd)}});
        }
    }
}

/// Draws of the tile's 32 keys for the warp's four query rows, into shared memory: one block of eight keys a lane.
template <int Width>
__device__ inline void draw_keys(PlainTiles<Width>& tiles, const DropArgument& drop, int from, int row, std::uint32_t sample) {
    if (drop.threshold == 0) return;
    if (lane() < 16) {
        const Draw bits = draw(drop, static_cast<std::uint32_t>(from / 8 + (lane() & 3)), static_cast<std::uint32_t>(row + lane() / 4), sample);
        store_shared(reinterpret_cast<Pack<std::uint32_t, 4>*>(&tiles.bits[4 * warp() + lane() / 4][4 * (lane() & 3)]),
                     Pack<std::uint32_t, 4>{{bits.word[0], bits.word[1], bits.word[2], bits.word[3]}});
    }
    warp_barrier();
}
/// x after dropout for own row r and this lane's key.
template <int Width>
__device__ inline float keep_key(const PlainTiles<Width>& tiles, const DropArgument& drop, int r, float x) {
    if (drop.threshold == 0) return x;
    return keep(drop, load_shared(&tiles.bits[4 * warp() + r][lane() / 2]) >> (lane() & 1) * 16 & 0xffffU, x);
}

template <class T>
__device__ inline void clear_plain(const AttentionProblem<T>& p, std::int64_t row) {
    clear_rest(p, reinterpret_cast<std::uint32_t*>(p.out), row * static_cast<std::int64_t>(sizeof(T)) / 4);
}

/// A block has 16 query rows of one sequence and head and walks over tiles of 32 keys. A lane has a key's scores, then
/// columns of the context.
template <class T, int Width>
__global__ void __launch_bounds__(plain_threads, 4) attention_plain_kernel(AttentionProblem<T> p) {
    if (is_clearing(p)) return clear_plain(p, p.stride());
    AttentionPlace place;
    if (!find_place<plain_rows>(p, place)) return;
    PlainTiles<Width>& tiles = shared_memory<PlainTiles<Width>>();
    const std::int64_t stride = p.qkv_stride();
    const PlainRows<T> q{p.qkv + place.begin * stride + place.head * p.channels, stride, place.length, p.channels, p.rotary};
    const PlainRows<T> k{q.base + p.stride(), stride, place.length, p.channels, p.rotary}, v{k.base + p.stride(), stride, place.length, p.channels, nullptr};
    const int first = place.first + 4 * warp();
    const float scale = p.scale * log2_e;
    const DropArgument drop = head_dropout(p, place.head);
    PlainSums<Width> out{};
    float top[4], sum[4]{};
    for (float& x : top) x = -INFINITY;
    fill(tiles.own[0], q, place.first);
    for (int from = 0; from < place.length; from += plain_step) {
        block_barrier();  // the tile before is no longer read
        fill(tiles.tile[0], k, from);
        fill(tiles.tile[1], v, from);
        block_barrier();
        if (first >= place.length) continue;
        float s[4];
        multiply_rows<Width>(s, tiles.own[0], tiles.tile[0], p.channels / 2);
        draw_keys(tiles, drop, from, first, place.sample);
#pragma unroll
        for (int r = 0; r < 4; ++r) {
            if (from + lane() >= place.length) s[r] = -INFINITY;
            const float most = fmaxf(top[r], warp_max(s[r]) * scale), shrink = exp2_fast(top[r] - most), e = exp2_fast(fmaf(s[r], scale, -most));
            top[r] = most;
            sum[r] = sum[r] * shrink + e;
            for (float& x : out[r]) x *= shrink;
            store_shared(&tiles.weight[0][4 * warp() + r][lane()], keep_key(tiles, drop, r, e));
        }
        warp_barrier();
        add_rows<Width>(out, tiles.weight[0], tiles.tile[1], std::min(int{plain_step}, place.length - from));
    }
    if (first >= place.length) return;
    float factor[4];
#pragma unroll
    for (int r = 0; r < 4; ++r) {
        sum[r] = warp_sum(sum[r]);
        factor[r] = 1 / sum[r];
        if (lane() == 0 && first + r < place.length)
            store(p.log_sum + std::int64_t{place.head} * p.tokens + place.begin + first + r, top[r] * ln_2 + logf(sum[r]));
    }
    put_rows<Width>(out, v, p.out + place.begin * p.stride() + place.head * p.channels, p.stride(), first, factor);
}

/// Gradients of one side. Queries: a block has 16 query rows (own: q and d_context), walks over k and v, and leaves d_q and
/// row_sum; it also clears d_qkv of tokens that belong to no sequence. Keys: it has 16 keys (own: k and v), walks over q and
/// d_context, and leaves d_k and d_v; needs row_sum.
template <class T, int Width, bool Keys>
__global__ void __launch_bounds__(plain_threads, 3) attention_plain_gradient_kernel(AttentionProblem<T> p) {
    if (is_clearing(p)) return clear_plain(p, p.qkv_stride());
    AttentionPlace place;
    if (!find_place<plain_rows>(p, place)) return;
    PlainTiles<Width>& tiles = shared_memory<PlainTiles<Width>>();
    const std::int64_t stride = p.qkv_stride(), offset = place.begin * stride + place.head * p.channels;
    const std::int64_t context_offset = place.begin * p.stride() + place.head * p.channels, row_offset = std::int64_t{place.head} * p.tokens + place.begin;
    const PlainRows<T> q{p.qkv + offset, stride, place.length, p.channels, p.rotary}, k{q.base + p.stride(), stride, place.length, p.channels, p.rotary};
    const PlainRows<T> v{k.base + p.stride(), stride, place.length, p.channels, nullptr};
    const PlainRows<T> d_out{p.d_context + context_offset, p.stride(), place.length, p.channels, nullptr};
    const int first = place.first + 4 * warp();
    const float scale = p.scale * log2_e;
    const DropArgument drop = head_dropout(p, place.head);
    float log_sum[4]{}, row_sum[4]{};
    if constexpr (!Keys) {
#pragma unroll
        for (int r = 0; r < 4; ++r) {
            if (first + r >= place.length) continue;
            const std::int64_t row = context_offset + (first + r) * p.stride();
            for (int c = lane(); c < p.channels; c += 32) row_sum[r] += to_float(load(p.context + row + c)) * to_float(load(p.d_context + row + c));
            row_sum[r] = warp_sum(row_sum[r]);
            log_sum[r] = load(p.log_sum + row_offset + first + r) * log2_e;
            if (lane() == 0) store(p.row_sum + row_offset + first + r, row_sum[r]);
        }
    }
    fill(tiles.own[0], Keys ? k : q, place.first);
    fill(tiles.own[1], Keys ? v : d_out, place.first);
    PlainSums<Width> d_first{}, d_second{};  // d_q, or d_k and d_v
    for (int from = 0; from < place.length; from += plain_step) {
        block_barrier();  // the tile before is no longer read
        fill(tiles.tile[0], Keys ? q : k, from);
        fill(tiles.tile[1], Keys ? d_out : v, from);
        block_barrier();
        if (first >= place.length) continue;
        float s[4], d_p[4];
        multiply_rows<Width>(s, tiles.own[0], tiles.tile[0], p.channels / 2);
        multiply_rows<Width>(d_p, tiles.own[1], tiles.tile[1], p.channels / 2);
        const bool inside = from + lane() < place.length;
        std::uint32_t word[2]{};  // of the warp's four keys
        if constexpr (Keys) {
            const int row = std::min(from + lane(), place.length - 1);
            for (float& x : log_sum) x = load(p.log_sum + row_offset + row) * log2_e;
            for (float& x : row_sum) x = load(p.row_sum + row_offset + row);
            if (drop.threshold) {
                const Draw bits = draw(drop, static_cast<std::uint32_t>(first / 8), static_cast<std::uint32_t>(from + lane()), place.sample);
                word[0] = first & 4 ? bits.word[2] : bits.word[0];
                word[1] = first & 4 ? bits.word[3] : bits.word[1];
            }
        } else {
            draw_keys(tiles, drop, from, first, place.sample);
        }
#pragma unroll
        for (int r = 0; r < 4; ++r) {
            const float e = inside ? exp2_fast(fmaf(s[r], scale, -log_sum[r])) : 0.0F;
            const auto after = [&](float x) { return Keys ? keep(drop, word[r / 2] >> r % 2 * 16 & 0xffffU, x) : keep_key(tiles, drop, r, x); };
            store_shared(&tiles.weight[0][4 * warp() + r][lane()], e * (after(d_p[r]) - row_sum[r]));
            if constexpr (Keys) store_shared(&tiles.weight[1][4 * warp() + r][lane()], after(e));
        }
        warp_barrier();
        const int count = std::min(int{plain_step}, place.length - from);
        add_rows<Width>(d_first, tiles.weight[0], tiles.tile[0], count);
        if constexpr (Keys) add_rows<Width>(d_second, tiles.weight[1], tiles.tile[1], count);
    }
    if (first >= place.length) return;
    const float by_scale[4] = {p.scale, p.scale, p.scale, p.scale}, by_one[4] = {1, 1, 1, 1};
    put_rows<Width>(d_first, q, p.out + offset + (Keys ? p.stride() : 0), stride, first, by_scale);
    if constexpr (Keys) put_rows<Width>(d_second, v, p.out + offset + 2 * p.stride(), stride, first, by_one);
}

}  // namespace rf::device
