#pragma once
/// The gradients of attention of bf16 heads of 64 on tensor cores: one kernel owns queries, the next owns keys, so that
/// nothing is joined between blocks. Tiles, orders of lines and turning: attention_tensor.cuh.

#include "kernels/nvidia/attention_tensor.cuh"

namespace rf::device {

struct QueryTiles {
    Tile<tensor_rows> q, d_out;
    Tile<tensor_step> k[2], v[2];
    Pair row[tensor_rows];  ///< log_sum (base 2) and row_sum
};

/// d_context . context of the block's rows, into shared memory and for the other kernel: eight lanes a row.
__device__ inline void sum_rows(const AttentionProblem<bfloat16>& p, const AttentionPlace& place, QueryTiles& tiles) {
    const Share share;
#pragma unroll
    for (int i = 0; i < tensor_rows / 16; ++i) {
        const int line = share.line + 16 * i, row = place.first + line;
        float sum = 0;
        if (row < place.length) {
            const Line y = load(reinterpret_cast<const Line*>(p.context + (place.begin + row) * p.stride() + place.head * tensor_head + share.c * 8));
            const Line dy = load_shared(reinterpret_cast<const Line*>(share.of(tiles.d_out, i)));
#pragma unroll
            for (int k = 0; k < 4; ++k) sum += lower(y.v[k]) * lower(dy.v[k]) + upper(y.v[k]) * upper(dy.v[k]);
        }
        for (int mask = 1; mask < 8; mask <<= 1) sum += shuffle_xor(sum, mask);
        if (share.c != 0) continue;
        float log_sum = 0;  // rows past the end are not written
        if (row < place.length) {
            const std::int64_t at = std::int64_t{place.head} * p.tokens + place.begin + row;
            log_sum = load(p.log_sum + at) * log2_e;
            store(p.row_sum + at, sum);
        }
        store_shared(&tiles.row[line], Pair{{log_sum, sum}});
    }
}

/// d_q. A block has 128 query rows of one sequence and head; q, d_context and the gradient stay in registers, 32 rows a
/// warp; it walks over tiles of 64 keys, 32 at a time: three products each. Also fills row_sum for the next kernel and
/// clears d_qkv of tokens that belong to no sequence.
template <bool Drop>
__global__ void __launch_bounds__(tensor_threads, 2) attention_query_gradient_kernel(AttentionProblem<bfloat16> p) {
    if (is_clearing(p)) return clear_rest(p, reinterpret_cast<Line*>(p.out), p.qkv_stride() / 8);
    AttentionPlace place;
    if (!find_place<tensor_rows>(p, place)) return;
    QueryTiles& tiles = shared_memory<QueryTiles>();
    const std::int64_t stride = p.qkv_stride(), q_offset = place.begin * stride + place.head * tensor_head;
    const Rows q{p.qkv + q_offset, stride, place.length}, k{q.base + p.stride(), stride, place.length}, v{k.base + p.stride(), stride, place.length};
    const Rows d_out{p.d_context + place.begin * p.stride() + place.head * tensor_head, p.stride(), place.length};
    fetch<InOrder>(tiles.q, q, place.first);
    fetch<InOrder>(tiles.d_out, d_out, place.first);
    copy_async_commit();
    fetch<Spread>(tiles.k[0], k, 0);
    fetch<Spread>(tiles.v[0], v, 0);
    copy_async_commit();
    {
        const Turn<InOrder, tensor_rows> turn(p.rotary, place.first, place.length);
        copy_async_wait<1>();
        turn.apply(p.rotary, tiles.q);
    }
    sum_rows(p, place, tiles);
    const int own = warp() * warp_rows;
    const bool working = place.first + own < place.length;
    const float scale = p.scale * log2_e;
    const DropArgument drop = head_dropout(p, place.head);
    const std::uint32_t limit = drop.threshold << 16;
    std::uint32_t left_q[2][4][4], left_d_out[2][4][4];
    block_barrier();  // q is turned
#pragma unroll
    for (int m = 0; m < 2; ++m) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            load_left(left_q[m][i], tiles.q, own + 16 * m, i);
            load_left(left_d_out[m][i], tiles.d_out, own + 16 * m, i);
        }
    }
    Accumulator d_q[2][8]{};
    for (int from = 0; from < place.length; from += tensor_step) {
        const int now = from / tensor_step & 1;
        {
            const Turn<Spread, tensor_step> turn(p.rotary, from, place.length);
            copy_async_wait<0>();
            turn.apply(p.rotary, tiles.k[now]);
        }
        block_barrier();  // all have turned this tile and left the one before
        if (from + tensor_step < place.length) {
            fetch<Spread>(tiles.k[now ^ 1], k, from + tensor_step);
            fetch<Spread>(tiles.v[now ^ 1], v, from + tensor_step);
            copy_async_commit();
        }
        if (!working) continue;
#pragma unroll 1
        for (int group = 0; group < tensor_step && from + group < place.length; group += 32) {
            Accumulator s[2][4]{}, d_p[2][4]{};
#pragma unroll
            for (int i = 0; i < 4; ++i) {
#pragma unroll
                for (int n = 0; n < 4; n += 2) {
                    std::uint32_t right[4];
                    load_right(right, tiles.k[now], group + 8 * n, i);
#pragma unroll
                    for (int m = 0; m < 2; ++m) multiply(s[m][n], s[m][n + 1], left_q[m][i], right);
                    load_right(right, tiles.v[now], group + 8 * n, i);
#pragma unroll
                    for (int m = 0; m < 2; ++m) multiply(d_p[m][n], d_p[m][n + 1], left_d_out[m][i], right);
                }
            }
            if (from + group + 32 > place.length) hide_rest(s, from + group, place.length);
            const auto eighth = static_cast<std::uint32_t>((from + group) / 8 + (lane() & 3));  // of the lane's keys
#pragma unroll
            for (int m = 0; m < 2; ++m) {
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    const Pair row = load_shared(&tiles.row[own + warp_line(m, half)]);
                    Draw bits{};
                    if constexpr (Drop)
                        bits = draw(drop, eighth, static_cast<std::uint32_t>(place.first + own + warp_line(m, half)), place.sample);
#pragma unroll
                    for (int i = 0; i < 8; ++i) {
                        const int n = i / 2, e = 2 * half + (i & 1);
                        float d = d_p[m][n][e];
                        if constexpr (Drop) d = kept(bits.word[n], i & 1, limit) ? d : 0.0F;
                        const float probability = exp2_fast(fmaf(s[m][n][e], scale, -row.v[0]));
                        s[m][n][e] = probability * fmaf(d, drop.scale, -row.v[1]);
                    }
                }
            }
#pragma unroll
            for (int t = 0; t < 2; ++t) {
                std::uint32_t d_s[2][4];
#pragma unroll
                for (int m = 0; m < 2; ++m) to_left(d_s[m], s[m][2 * t], s[m][2 * t + 1]);
#pragma unroll
                for (int c = 0; c < 4; ++c) {
                    std::uint32_t right[4];
                    load_right_across(right, tiles.k[now], group + 16 * t, c);
#pragma unroll
                    for (int m = 0; m < 2; ++m) multiply(d_q[m][2 * c], d_q[m][2 * c + 1], d_s[m], right);
                }
            }
        }
    }
    if (!working) return;
#pragma unroll
    for (int m = 0; m < 2; ++m)
#pragma unroll
        for (int n = 0; n < 8; ++n)
#pragma unroll
            for (int e = 0; e < 4; ++e) d_q[m][n][e] *= p.scale;
    turn_back<InOrder>(d_q, p.rotary, place.first, place.length);
    put<InOrder>(tiles.q, d_q, p.out + q_offset, stride, place.first, place.length);
}

struct KeyTiles {
    Tile<tensor_rows> k, v;
    Tile<tensor_step> q[2], d_out[2];
    alignas(16) Pair row[2][tensor_step];  ///< log_sum (base 2) and row_sum of each query; probabilities past the end are 0
};

/// log_sum and row_sum of query `row`.
__device__ inline Pair row_numbers(const AttentionProblem<bfloat16>& p, const AttentionPlace& place, int row) {
    if (row >= place.length) return {{INFINITY, 0}};
    const std::int64_t at = std::int64_t{place.head} * p.tokens + place.begin + row;
    return {{load(p.log_sum + at) * log2_e, load(p.row_sum + at)}};
}

/// Draws of 32 keys for the two queries 2q and 2q + 1 of a lane: it makes that of one, the lane of g ^ 1 that of the other,
/// and they swap halves. Word m of the query's two holds keys 4g + 2m and the next.
__device__ inline void pair_draw(std::uint32_t (&word)[2][2], const DropArgument& drop, int key, int query, std::uint32_t sample) {
    const int g = lane() >> 2, odd = g & 1;
    const Draw bits = draw(drop, static_cast<std::uint32_t>(key / 8 + (g >> 1)), static_cast<std::uint32_t>(query + odd), sample);
#pragma unroll
    for (int m = 0; m < 2; ++m) {
        const std::uint32_t mine = odd ? bits.word[2 + m] : bits.word[m];
        const std::uint32_t other = shuffle_xor(odd ? bits.word[m] : bits.word[2 + m], 4);
        word[0][m] = odd ? other : mine;
        word[1][m] = odd ? mine : other;
    }
}

/// d_k and d_v. A block has 128 keys of one sequence and head, 32 a warp, their gradients in registers; it walks over tiles
/// of 64 queries, 16 at a time: four products each, of transposed scores, so that no score leaves its lane.
template <bool Drop>
__global__ void __launch_bounds__(tensor_threads, 2) attention_key_gradient_kernel(AttentionProblem<bfloat16> p) {
    AttentionPlace place;
    if (!find_place<tensor_rows>(p, place)) return;
    KeyTiles& tiles = shared_memory<KeyTiles>();
    const std::int64_t stride = p.qkv_stride(), q_offset = place.begin * stride + place.head * tensor_head;
    const Rows q{p.qkv + q_offset, stride, place.length}, k{q.base + p.stride(), stride, place.length}, v{k.base + p.stride(), stride, place.length};
    const Rows d_out{p.d_context + place.begin * p.stride() + place.head * tensor_head, p.stride(), place.length};
    fetch<Gather>(tiles.k, k, place.first);
    fetch<Gather>(tiles.v, v, place.first);
    copy_async_commit();
    fetch<InOrder>(tiles.q[0], q, 0);
    fetch<InOrder>(tiles.d_out[0], d_out, 0);
    copy_async_commit();
    if (threadIdx.x < tensor_step) store_shared(&tiles.row[0][threadIdx.x], row_numbers(p, place, static_cast<int>(threadIdx.x)));
    {
        const Turn<Gather, tensor_rows> turn(p.rotary, place.first, place.length);
        copy_async_wait<1>();
        turn.apply(p.rotary, tiles.k);
    }
    const int own = warp() * warp_rows;
    const bool working = place.first + own < place.length;
    const float scale = p.scale * log2_e;
    const DropArgument drop = head_dropout(p, place.head);
    const std::uint32_t limit = drop.threshold << 16;
    Accumulator d_k[2][8]{}, d_v[2][8]{};
    for (int from = 0; from < place.length; from += tensor_step) {
        const int now = from / tensor_step & 1;
        {
            const Turn<InOrder, tensor_step> turn(p.rotary, from, place.length);
            copy_async_wait<0>();
            turn.apply(p.rotary, tiles.q[now]);
        }
        block_barrier();  // all have turned this tile and left the one before
        const bool more = from + tensor_step < place.length;
        Pair next{};
        if (more) {
            fetch<InOrder>(tiles.q[now ^ 1], q, from + tensor_step);
            fetch<InOrder>(tiles.d_out[now ^ 1], d_out, from + tensor_step);
            copy_async_commit();
            if (threadIdx.x < tensor_step) next = row_numbers(p, place, from + tensor_step + static_cast<int>(threadIdx.x));
        }
#pragma unroll 1
        for (int step = 0; working && step < tensor_step && from + step < place.length; step += 16) {
            Accumulator s[2][2]{}, d_p[2][2]{};
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                std::uint32_t left[4], right[4];
                load_right(right, tiles.q[now], step, i);
#pragma unroll
                for (int m = 0; m < 2; ++m) {
                    load_left(left, tiles.k, own + 16 * m, i);
                    multiply(s[m][0], s[m][1], left, right);
                }
                load_right(right, tiles.d_out[now], step, i);
#pragma unroll
                for (int m = 0; m < 2; ++m) {
                    load_left(left, tiles.v, own + 16 * m, i);
                    multiply(d_p[m][0], d_p[m][1], left, right);
                }
            }
#pragma unroll
            for (int n = 0; n < 2; ++n) {
                const int query = step + 8 * n + 2 * (lane() & 3);
                const auto row = load_shared(reinterpret_cast<const Pack<float, 4>*>(&tiles.row[now][query]));
                std::uint32_t word[2][2]{};
                if constexpr (Drop) pair_draw(word, drop, place.first + own, from + query, place.sample);
#pragma unroll
                for (int m = 0; m < 2; ++m) {
#pragma unroll
                    for (int e = 0; e < 4; ++e) {
                        const float probability = exp2_fast(fmaf(s[m][n][e], scale, -row.v[2 * (e & 1)]));
                        const bool keeps = !Drop || kept(word[e & 1][m], e >> 1, limit);
                        s[m][n][e] = keeps ? probability : 0.0F;
                        d_p[m][n][e] = probability * fmaf(keeps ? d_p[m][n][e] : 0.0F, drop.scale, -row.v[2 * (e & 1) + 1]);
                    }
                }
            }
            std::uint32_t probability[2][4], d_s[2][4];
#pragma unroll
            for (int m = 0; m < 2; ++m) {
                to_left(probability[m], s[m][0], s[m][1]);
                to_left(d_s[m], d_p[m][0], d_p[m][1]);
            }
#pragma unroll
            for (int c = 0; c < 4; ++c) {
                std::uint32_t right[4];
                load_right_across(right, tiles.d_out[now], step, c);
#pragma unroll
                for (int m = 0; m < 2; ++m) multiply(d_v[m][2 * c], d_v[m][2 * c + 1], probability[m], right);
                load_right_across(right, tiles.q[now], step, c);
#pragma unroll
                for (int m = 0; m < 2; ++m) multiply(d_k[m][2 * c], d_k[m][2 * c + 1], d_s[m], right);
            }
        }
        if (more && threadIdx.x < tensor_step) store_shared(&tiles.row[now ^ 1][threadIdx.x], next);
    }
    if (!working) return;
#pragma unroll
    for (int m = 0; m < 2; ++m) {
#pragma unroll
        for (int n = 0; n < 8; ++n) {
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                d_k[m][n][e] *= p.scale;
                d_v[m][n][e] *= drop.scale;
            }
        }
    }
    turn_back<Gather>(d_k, p.rotary, place.first, place.length);
    bfloat16* to = p.out + q_offset + p.stride();
    put<Gather>(tiles.k, d_k, to, stride, place.first, place.length);
    put<Gather>(tiles.v, d_v, to + p.stride(), stride, place.first, place.length);
}

}  // namespace rf::device
