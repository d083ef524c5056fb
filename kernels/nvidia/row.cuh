#pragma once
/// What several kernels share: vectors of a row, warp sums, dropout bits by counter, scalars from either side.

#include <device.cuh>  // of this folder or of tests/emulator: the include path decides, so no quotes
#include "kernels/dropout.hpp"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <initializer_list>
#include <type_traits>

namespace rf::device {

/// A `Scalar` as kernels take it.
struct ScalarArgument {
    const void* memory = nullptr;
    int bytes = 0;  ///< of the element: 2 (bf16), 4 or 8
    float value = 1;

    __device__ float read() const {
        if (!memory) return value;
        if (bytes == 2) return to_float(*static_cast<const bfloat16*>(memory));
        if (bytes == 4) return *static_cast<const float*>(memory);
        return static_cast<float>(*static_cast<const double*>(memory));
    }
};
inline ScalarArgument argument(const Scalar& s) {
    return {s.tensor.data, static_cast<int>(size_of(s.tensor.dtype)), static_cast<float>(s.value)};
}

/// Sum over a warp in a fixed butterfly; every lane has it.
__device__ inline float warp_sum(float x) {
    for (int mask = 16; mask > 0; mask >>= 1) x += shuffle_xor(x, mask);
    return x;
}
__device__ inline double warp_sum(double x) {
    for (int mask = 16; mask > 0; mask >>= 1) x += shuffle_xor(x, mask);
    return x;
}
__device__ inline float warp_max(float x) {
    for (int mask = 16; mask > 0; mask >>= 1) {
        const float other = shuffle_xor(x, mask);
        x = other > x ? other : x;
    }
    return x;
}

/// Dropout as kernels take it; the bits are those of kernels/dropout.hpp.
struct DropArgument {
    std::uint32_t threshold = 0;  ///< 0: off
    std::uint32_t key0 = 0, key1 = 0, stream = 0;
    float scale = 1;
};
inline DropArgument argument(const Dropout& d) {
    const PhiloxKey key = philox_key(d.seed);
    return {d.threshold(), key[0], key[1], philox_stream(Purpose::dropout, d.detail), static_cast<float>(d.scale())};
}

/// Four words of Philox4x32-10: the same as rf::philox, in registers.
struct Draw {
    std::uint32_t word[4];
    /// 16 bits of element e (modulo 8).
    __device__ std::uint32_t bits(int e) const { return (word[(e & 7) >> 1] >> ((e & 1) * 16)) & 0xffffU; }
};
__device__ inline Draw draw(const DropArgument& d, std::uint32_t eighth, std::uint32_t position, std::uint32_t sample) {
    std::uint32_t c0 = eighth, c1 = position, c2 = sample, c3 = d.stream, k0 = d.key0, k1 = d.key1;
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        const std::uint64_t p0 = std::uint64_t{0xD2511F53U} * c0, p1 = std::uint64_t{0xCD9E8D57U} * c2;  // one wide product each
        c0 = static_cast<std::uint32_t>(p1 >> 32) ^ c1 ^ k0;
        c1 = static_cast<std::uint32_t>(p1);
        c2 = static_cast<std::uint32_t>(p0 >> 32) ^ c3 ^ k1;
        c3 = static_cast<std::uint32_t>(p0);
        k0 += 0x9E3779B9U;
        k1 += 0xBB67AE85U;
    }
    return {{c0, c1, c2, c3}};
}
__device__ inline float keep(const DropArgument& d, std::uint32_t bits, float x) { return bits >= d.threshold ? x * d.scale : 0.0F; }

// --- rows in pieces of eight neighbours, the unit of a Philox draw ---

/// Sizes are passed to kernels as 32-bit numbers where a row or a count of rows is meant; offsets of elements are 64-bit.
inline int narrow(std::int64_t n, const char* what) {
    RF_REQUIRE(n >= 0 && n < std::int64_t{1} << 31, what, " is ", n, "; kernels count up to 2^31");
    return static_cast<int>(n);
}
inline unsigned blocks_for(std::int64_t work, std::int64_t per_block) { return static_cast<unsigned>((work + per_block - 1) / per_block); }

/// Whether rows of `row` elements at these addresses can be moved 16 bytes at a time.
inline bool whole_packs(std::int64_t row, std::initializer_list<const void*> rows) {
    bool whole = row % 8 == 0;
    for (const void* p : rows) whole = whole && reinterpret_cast<std::uintptr_t>(p) % 16 == 0;
    return whole;
}

/// Calls body(T{}) with the storage type of a dtype kernels know.
template <class Body>
void dispatch(Dtype dtype, const Body& body) {
    if (dtype == Dtype::f32) return body(float{});
    if (dtype == Dtype::bf16) return body(bfloat16{});
    fail("no CUDA kernel for ", name_of(dtype), " (f64 exists on the CPU only)");
}

/// Eight neighbours of a row, as they lie in memory.
template <class T> struct Eight;
template <> struct Eight<float> {
    float v[8];
    __device__ float operator[](int k) const { return v[k]; }
};
template <> struct Eight<bfloat16> {
    Pack<std::uint32_t, 4> pairs;
    __device__ float operator[](int k) const {
        const std::uint32_t pair = pairs.v[k >> 1];
        return std::bit_cast<float>(k & 1 ? pair & 0xffff0000U : pair << 16);
    }
};

template <class T>
__device__ inline Eight<T> make_eight(const float (&v)[8]) {
    if constexpr (sizeof(T) == 2)
        return {{{pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]), pack_bf16(v[4], v[5]), pack_bf16(v[6], v[7])}}};
    else
        return {{v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7]}};
}

/// Lanes 2i and 2i+1 hold eights a and b: then 2i has the lower halves of both and 2i+1 the upper ones, or back. With a
/// pair's four halves so dealt, each 16-byte access of a warp to f32 covers whole sectors.
__device__ inline void exchange_halves(float (&v)[8]) {
    const bool odd = lane() & 1;
#pragma unroll
    for (int k = 0; k < 4; ++k) {
        const float other = shuffle_xor(odd ? v[k] : v[4 + k], 1);
        v[k] = odd ? other : v[k];
        v[4 + k] = odd ? v[4 + k] : other;
    }
}

/// Elements 8 e … 8 e + 7 of a row of n; those past its end are 0. The whole warp must call, with e = lane modulo 2.
/// `Whole`: n % 8 == 0 and the row lies on 16 bytes; else one element at a time.
template <bool Whole, class T>
__device__ inline Eight<T> load_eight(const T* row, int e, int n) {
    if constexpr (!Whole) {
        float v[8];
#pragma unroll
        for (int k = 0; k < 8; ++k) v[k] = 8 * e + k < n ? to_float(load(row + 8 * e + k)) : 0.0F;
        return make_eight<T>(v);
    } else if constexpr (sizeof(T) == 2) {
        if (8 * e >= n) return {};
        return {std::bit_cast<Pack<std::uint32_t, 4>>(load(reinterpret_cast<const Pack<T, 8>*>(row + 8 * e)))};
    } else {
        Eight<T> x{};
        const int half = lane() & 1, first = 8 * (e & ~1) + 4 * half;
#pragma unroll
        for (int part = 0; part < 2; ++part) {
            if (first + 8 * part >= n) continue;
            const auto four = load(reinterpret_cast<const Pack<T, 4>*>(row + first + 8 * part));
#pragma unroll
            for (int k = 0; k < 4; ++k) x.v[4 * part + k] = four.v[k];
        }
        exchange_halves(x.v);
        return x;
    }
}

/// The way back; what lies past the row's end is dropped.
template <bool Whole, class T>
__device__ inline void store_eight(T* row, int e, int n, const float (&v)[8]) {
    if constexpr (!Whole) {
#pragma unroll
        for (int k = 0; k < 8; ++k)
            if (8 * e + k < n) store(row + 8 * e + k, from_float<T>(v[k]));
    } else if constexpr (sizeof(T) == 2) {
        if (8 * e >= n) return;
        store(reinterpret_cast<Pack<T, 8>*>(row + 8 * e), std::bit_cast<Pack<T, 8>>(make_eight<T>(v).pairs));
    } else {
        float x[8];
#pragma unroll
        for (int k = 0; k < 8; ++k) x[k] = v[k];
        exchange_halves(x);
        const int half = lane() & 1, first = 8 * (e & ~1) + 4 * half;
#pragma unroll
        for (int part = 0; part < 2; ++part)
            if (first + 8 * part < n)
                store(reinterpret_cast<Pack<T, 4>*>(row + first + 8 * part), Pack<T, 4>{{x[4 * part], x[4 * part + 1], x[4 * part + 2], x[4 * part + 3]}});
    }
}

/// Where dropout finds the sample and position of token t.
struct OriginArgument {
    const std::int32_t* sample = nullptr;
    const std::int32_t* position = nullptr;
};
inline OriginArgument argument(const Dropout& d, const TokenOrigin& o) {
    if (!d.active()) return {};
    return {o.sample.as<std::int32_t>(), o.position.as<std::int32_t>()};
}

/// Dropout of one token's row.
struct RowDrop {
    DropArgument drop;
    std::uint32_t sample = 0, position = 0;

    __device__ RowDrop(const DropArgument& d, const OriginArgument& origin, std::int64_t token) : drop(d) {
        if (d.threshold == 0) return;
        sample = static_cast<std::uint32_t>(load(origin.sample + token));
        position = static_cast<std::uint32_t>(load(origin.position + token));
    }
    /// On elements 8 e … 8 e + 7.
    __device__ void operator()(float (&v)[8], int e) const {
        if (drop.threshold == 0) return;
        const Draw bits = draw(drop, static_cast<std::uint32_t>(e), position, sample);
#pragma unroll
        for (int k = 0; k < 8; ++k) v[k] = keep(drop, bits.bits(k), v[k]);
    }
};

/// How many of the n rising numbers lie below `key` (as unsigned numbers: negative ones stand at the end). The whole warp
/// searches together, 32 places a round.
__device__ inline int count_below(const std::int32_t* rising, int n, std::uint32_t key) {
    int found = 0;  // all before it lie below, and nothing at found + n or after it
    while (n > 0) {
        const int run = (n + 31) / 32, probe = run * (lane() + 1) - 1;
        int below = probe < n && static_cast<std::uint32_t>(load(rising + found + probe)) < key;
        for (int mask = 16; mask > 0; mask >>= 1) below += shuffle_xor(below, mask);
        found += below * run;
        n = std::min(run - 1, n - below * run);
    }
    return found;
}

}  // namespace rf::device
