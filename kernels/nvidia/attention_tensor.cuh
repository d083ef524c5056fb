#pragma once
/// Attention of bf16 heads of 64 on tensor cores.
///
/// Four warps a block, 32 rows a warp. Rows of q, k, v and d_context lie in shared memory as 128-byte lines whose eight
/// 16-byte chunks are swapped by the line number, so that ldmatrix and 16-byte accesses meet no bank twice. What a thread
/// copies it also turns, so a tile costs one barrier: wait for the own copies, turn them, barrier, start the next copies.
///
/// Lines are not in the order of their keys. Eight keys share a Philox block, and the lines are so dealt that the scores
/// that lie in a lane's accumulators belong to whole blocks (`Spread`) or to the half of one (`Gather`).

#include "kernels/nvidia/attention.cuh"

#include <cmath>

namespace rf::device {

inline constexpr int tensor_head = 64, tensor_rows = 128, tensor_step = 64, tensor_threads = 128, warp_rows = 32;

using Line = Pack<std::uint32_t, 4>;
using Pair = Pack<float, 2>;

/// Two bf16 numbers as f32.
__device__ inline float lower(std::uint32_t pair) { return std::bit_cast<float>(pair << 16); }
__device__ inline float upper(std::uint32_t pair) { return std::bit_cast<float>(pair & 0xffff0000U); }

template <int Rows>
struct alignas(128) Tile {
    std::uint32_t word[Rows][32];

    __device__ std::uint32_t* chunk(int line, int c) { return &word[line][(c ^ (line & 7)) * 4]; }
};

/// Which row stands in a line of a tile.
struct InOrder {
    __device__ static int row(int line) { return line; }
};
/// Of 32 keys, accumulator columns 2q and 2q + 1 of blocks j = 0 … 3 are keys 8q + 2j and the next: the eight scores that a
/// lane holds of a query row are those of one Philox block.
struct Spread {
    __device__ static int row(int line) { return (line & ~31) + 8 * ((line & 7) >> 1) + 2 * ((line >> 3) & 3) + (line & 1); }
};
/// Of 32 keys, accumulator rows g and g + 8 of tiles m = 0, 1 are keys 4g + 2m and the next: the four scores that a lane
/// holds of a query are half a Philox block, the other half is in the lane of g ^ 1.
struct Gather {
    __device__ static int row(int line) { return (line & ~31) + 4 * (line & 7) + ((line >> 3) & 3); }
};

/// Rows of one head, `stride` elements apart; those from `length` on are zero.
struct Rows {
    const bfloat16* base;
    std::int64_t stride;
    int length;
};

/// A thread works on one chunk of every 16th line of a tile. In every order row(line + 16 i) = row(line) + row(16 i), line < 16:
/// so one address serves all, with steps that do not depend on the thread.
struct Share {
    int line = static_cast<int>(threadIdx.x) / 8, c = static_cast<int>(threadIdx.x) & 7;

    template <int N> __device__ std::uint32_t* of(Tile<N>& tile, int i) const { return tile.chunk(line, c) + i * 16 * 32; }
};

/// Starts the copies of rows first, first + 1, … into a tile.
template <class Order, int N>
__device__ inline void fetch(Tile<N>& tile, const Rows& rows, int first, std::int64_t shift = 0) {
    const Share share;
    const int row = first + Order::row(share.line);
    const bfloat16* from = rows.base + row * rows.stride + share.c * 8 + shift;
#pragma unroll
    for (int i = 0; i < N / 16; ++i) {
        const bool valid = row + Order::row(16 * i) < rows.length;
        copy_async(share.of(tile, i), valid ? from + Order::row(16 * i) * rows.stride : rows.base, valid);
    }
}

/// Turns what this thread has copied into a tile: the angles are read before the copies are waited for.
template <class Order, int N>
struct Turn {
    Pack<float, 4> angles[N / 16][2];

    __device__ Turn(const float* table, int first, int length) : angles{} {
        if (!table) return;
        const Share share;
        const int row = first + Order::row(share.line);
        const float* from = table + std::int64_t{row} * tensor_head + share.c * 8;
#pragma unroll
        for (int i = 0; i < N / 16; ++i) {
            if (row + Order::row(16 * i) >= length) continue;
            const auto* at = reinterpret_cast<const Pack<float, 4>*>(from + Order::row(16 * i) * tensor_head);
            angles[i][0] = load(at);
            angles[i][1] = load(at + 1);
        }
    }
    __device__ void apply(const float* table, Tile<N>& tile) const {
        if (!table) return;
        const Share share;
#pragma unroll
        for (int i = 0; i < N / 16; ++i) {
            auto* at = reinterpret_cast<Line*>(share.of(tile, i));
            Line x = load_shared(at);
#pragma unroll
            for (int k = 0; k < 4; ++k) {
                const float cosine = angles[i][k / 2].v[k % 2 * 2], sine = angles[i][k / 2].v[k % 2 * 2 + 1];
                const float even = lower(x.v[k]), odd = upper(x.v[k]);
                x.v[k] = pack_bf16(even * cosine - odd * sine, odd * cosine + even * sine);
            }
            store_shared(at, x);
        }
    }
};

/// A [16, 16] from lines line … line + 15, columns 16 k ….
template <int N>
__device__ inline void load_left(std::uint32_t (&r)[4], Tile<N>& tile, int line, int k) {
    load_matrix_x4(r, tile.chunk(line + (lane() & 15), 2 * k ^ (lane() >> 4)));
}
/// B [16, 16] as two [16, 8]: the columns are lines line … line + 15, summed over columns 16 k ….
template <int N>
__device__ inline void load_right(std::uint32_t (&r)[4], Tile<N>& tile, int line, int k) {
    load_matrix_x4(r, tile.chunk(line + (lane() >> 4) * 8 + (lane() & 7), 2 * k ^ ((lane() >> 3) & 1)));
}
/// B [16, 16] as two [16, 8]: summed over lines line … line + 15, its columns are columns 16 k ….
template <int N>
__device__ inline void load_right_across(std::uint32_t (&r)[4], Tile<N>& tile, int line, int k) {
    load_matrix_x4_transposed(r, tile.chunk(line + (lane() & 15), 2 * k ^ (lane() >> 4)));
}

using Accumulator = float[4];

/// Two neighbouring [16, 8] accumulators += A B.
__device__ inline void multiply(Accumulator& left, Accumulator& right, const std::uint32_t (&a)[4], const std::uint32_t (&b)[4]) {
    const std::uint32_t first[2] = {b[0], b[1]}, second[2] = {b[2], b[3]};
    multiply_m16n8k16(left, a, first);
    multiply_m16n8k16(right, a, second);
}
/// Two neighbouring accumulators as the left operand of the next product.
__device__ inline void to_left(std::uint32_t (&a)[4], const Accumulator& left, const Accumulator& right) {
    a[0] = pack_bf16(left[0], left[1]);
    a[1] = pack_bf16(left[2], left[3]);
    a[2] = pack_bf16(right[0], right[1]);
    a[3] = pack_bf16(right[2], right[3]);
}

/// Sum over the four lanes that hold an accumulator's row.
__device__ inline float quad_sum(float x) {
    x += shuffle_xor(x, 1);
    return x + shuffle_xor(x, 2);
}
__device__ inline float quad_max(float x) {
    x = fmaxf(x, shuffle_xor(x, 1));
    return fmaxf(x, shuffle_xor(x, 2));
}

/// Row of this lane's accumulators: half 0 or 1 of tile m, counted from the warp's first line.
__device__ inline int warp_line(int m, int half) { return 16 * m + 8 * half + (lane() >> 2); }

/// Writes a warp's 32 rows of accumulators as rows of bf16, through its own lines of a tile that is no longer needed. Its last
/// readers took left operands from it, whose fragments lie as accumulators do: a lane writes only where it alone has read.
template <class Order, int N>
__device__ inline void put(Tile<N>& tile, const Accumulator (&x)[2][8], bfloat16* to, std::int64_t stride, int first, int length) {
    const int own = warp() * warp_rows;
#pragma unroll
    for (int m = 0; m < 2; ++m)
#pragma unroll
        for (int half = 0; half < 2; ++half)
#pragma unroll
            for (int n = 0; n < 8; ++n)
                store_shared(tile.chunk(own + warp_line(m, half), n) + (lane() & 3), pack_bf16(x[m][n][2 * half], x[m][n][2 * half + 1]));
    warp_barrier();
#pragma unroll
    for (int i = 0; i < warp_rows / 4; ++i) {
        const int line = own + 4 * i + lane() / 8, c = lane() & 7, row = first + Order::row(line);
        if (row < length) store(reinterpret_cast<Line*>(to + row * stride + c * 8), load_shared(reinterpret_cast<const Line*>(tile.chunk(line, c))));
    }
}

/// Turns a row's gradient back: a lane holds pairs 4n + q of it.
__device__ inline void turn_back(Accumulator (&x)[8], int half, const float* table, int row) {
    const float* at = table + std::int64_t{row} * tensor_head + (lane() & 3) * 2;
#pragma unroll
    for (int n = 0; n < 8; ++n) {
        const Pair angle = load(reinterpret_cast<const Pair*>(at + n * 8));
        const float even = x[n][2 * half], odd = x[n][2 * half + 1];
        x[n][2 * half] = even * angle.v[0] + odd * angle.v[1];
        x[n][2 * half + 1] = odd * angle.v[0] - even * angle.v[1];
    }
}
template <class Order>
__device__ inline void turn_back(Accumulator (&x)[2][8], const float* table, int first, int length) {
    if (!table) return;
#pragma unroll
    for (int m = 0; m < 2; ++m)
#pragma unroll
        for (int half = 0; half < 2; ++half)
            turn_back(x[m], half, table, std::min(first + Order::row(warp() * warp_rows + warp_line(m, half)), length - 1));
}

/// Whether the lower or upper half of a word of a draw keeps its element; `limit`: the threshold in the upper half.
__device__ inline bool kept(std::uint32_t word, int half, std::uint32_t limit) { return (half ? word : word << 16) >= limit; }

struct ForwardTiles {
    Tile<tensor_rows> q;
    Tile<tensor_step> k[2], v[2];
};

/// The running softmax of a warp's 32 query rows: a lane holds four of them (m, half), spread over the lanes of a quad.
struct Softmax {
    float top[2][2], sum[2][2];  ///< of base-2 exponents; the lane's share of the sum

    __device__ Softmax() {
        for (auto& m : top) m[0] = m[1] = -INFINITY;
        for (auto& m : sum) m[0] = m[1] = 0;
    }
    /// Scores become exponentials over the new maximum; what was summed so far shrinks to it.
    __device__ void add(Accumulator (&s)[8], Accumulator (&out)[8], int m, int half, float scale) {
        float most = s[0][2 * half];
#pragma unroll
        for (int n = 0; n < 8; ++n) most = fmaxf(most, fmaxf(s[n][2 * half], s[n][2 * half + 1]));
        most = fmaxf(top[m][half], quad_max(most) * scale);
        const float shrink = exp2_fast(top[m][half] - most);
        top[m][half] = most;
        float total = sum[m][half] * shrink;
#pragma unroll
        for (int n = 0; n < 8; ++n) {
#pragma unroll
            for (int e = 2 * half; e < 2 * half + 2; ++e) {
                s[n][e] = exp2_fast(fmaf(s[n][e], scale, -most));
                total += s[n][e];
                out[n][e] *= shrink;
            }
        }
        sum[m][half] = total;
    }
};

/// Scores of keys from, from + 1, … become -inf from `length` on. Columns are those of `Spread`.
template <int N>
__device__ inline void hide_rest(Accumulator (&s)[2][N], int from, int length) {
#pragma unroll
    for (int n = 0; n < N; ++n) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
            if (from + Spread::row(8 * n + 2 * (lane() & 3) + e) < length) continue;
            for (auto& tile : s) tile[n][e] = tile[n][2 + e] = -INFINITY;
        }
    }
}

/// A block has 128 query rows of one sequence and head, q turned and kept in registers by the warps, 32 rows each; it walks
/// over tiles of 64 keys, the next one on its way while one is worked on. Traffic: q and context once; k and v once for
/// every 128 queries (from L2 but for the first). Any length.
template <bool Drop>
__global__ void __launch_bounds__(tensor_threads, 2) attention_tensor_kernel(AttentionProblem<bfloat16> p) {
    if (is_clearing(p)) return clear_rest(p, reinterpret_cast<Line*>(p.out), p.stride() / 8);
    AttentionPlace place;
    if (!find_place<tensor_rows>(p, place)) return;
    ForwardTiles& tiles = shared_memory<ForwardTiles>();
    const std::int64_t stride = p.qkv_stride();
    const Rows q{p.qkv + place.begin * stride + place.head * tensor_head, stride, place.length};
    const Rows k{q.base + p.stride(), stride, place.length}, v{k.base + p.stride(), stride, place.length};
    fetch<InOrder>(tiles.q, q, place.first);
    copy_async_commit();
    fetch<Spread>(tiles.k[0], k, 0);
    fetch<Spread>(tiles.v[0], v, 0);
    copy_async_commit();
    {
        const Turn<InOrder, tensor_rows> turn(p.rotary, place.first, place.length);
        copy_async_wait<1>();
        turn.apply(p.rotary, tiles.q);
    }
    const int own = warp() * warp_rows;
    const bool working = place.first + own < place.length;  // one answer for the warp
    const float scale = p.scale * log2_e;
    const DropArgument drop = head_dropout(p, place.head);
    const std::uint32_t limit = drop.threshold << 16;
    std::uint32_t left[2][4][4];
    block_barrier();  // q is turned
#pragma unroll
    for (int m = 0; m < 2; ++m)
#pragma unroll
        for (int i = 0; i < 4; ++i) load_left(left[m][i], tiles.q, own + 16 * m, i);
    Accumulator out[2][8]{};
    Softmax softmax;
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
        Accumulator s[2][8]{};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
#pragma unroll
            for (int n = 0; n < 8; n += 2) {
                std::uint32_t right[4];
                load_right(right, tiles.k[now], 8 * n, i);
#pragma unroll
                for (int m = 0; m < 2; ++m) multiply(s[m][n], s[m][n + 1], left[m][i], right);
            }
        }
        if (from + tensor_step > place.length) hide_rest(s, from, place.length);
#pragma unroll
        for (int m = 0; m < 2; ++m) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                softmax.add(s[m], out[m], m, half, scale);
                if constexpr (!Drop) continue;
                const auto row = static_cast<std::uint32_t>(place.first + own + warp_line(m, half));
#pragma unroll
                for (int group = 0; group < 2; ++group) {
                    const Draw bits = draw(drop, static_cast<std::uint32_t>(from / 8 + 4 * group + (lane() & 3)), row, place.sample);
#pragma unroll
                    for (int i = 0; i < 8; ++i)
                        if (!kept(bits.word[i / 2], i & 1, limit)) s[m][4 * group + i / 2][2 * half + (i & 1)] = 0;
                }
            }
        }
#pragma unroll
        for (int t = 0; t < 4; ++t) {
            std::uint32_t probability[2][4];
#pragma unroll
            for (int m = 0; m < 2; ++m) to_left(probability[m], s[m][2 * t], s[m][2 * t + 1]);
#pragma unroll
            for (int c = 0; c < 4; ++c) {
                std::uint32_t right[4];
                load_right_across(right, tiles.v[now], 16 * t, c);
#pragma unroll
                for (int m = 0; m < 2; ++m) multiply(out[m][2 * c], out[m][2 * c + 1], probability[m], right);
            }
        }
    }
    if (!working) return;
    float own_top = 0, own_sum = 1;  // lane q of a quad writes its row q
#pragma unroll
    for (int m = 0; m < 2; ++m) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const float sum = quad_sum(softmax.sum[m][half]), factor = drop.scale / sum;
            if ((lane() & 3) == 2 * m + half) own_sum = sum, own_top = softmax.top[m][half];
#pragma unroll
            for (int n = 0; n < 8; ++n) {
                out[m][n][2 * half] *= factor;
                out[m][n][2 * half + 1] *= factor;
            }
        }
    }
    const int row = place.first + own + 8 * (lane() & 3) + (lane() >> 2);
    if (row < place.length) store(p.log_sum + std::int64_t{place.head} * p.tokens + place.begin + row, own_top * ln_2 + logf(own_sum));
    put<InOrder>(tiles.q, out, p.out + place.begin * p.stride() + place.head * tensor_head, p.stride(), place.first, place.length);
}

}  // namespace rf::device
