#pragma once
/// What several kernels share: vectors of a row, warp sums, dropout bits by counter, scalars from either side.

#include "device.cuh"
#include "kernels/dropout.hpp"

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
        const std::uint32_t h0 = multiply_high(0xD2511F53U, c0), l0 = 0xD2511F53U * c0;
        const std::uint32_t h1 = multiply_high(0xCD9E8D57U, c2), l1 = 0xCD9E8D57U * c2;
        c0 = h1 ^ c1 ^ k0;
        c1 = l1;
        c2 = h0 ^ c3 ^ k1;
        c3 = l0;
        k0 += 0x9E3779B9U;
        k1 += 0xBB67AE85U;
    }
    return {{c0, c1, c2, c3}};
}
__device__ inline float keep(const DropArgument& d, std::uint32_t bits, float x) { return bits >= d.threshold ? x * d.scale : 0.0F; }

}  // namespace rf::device
