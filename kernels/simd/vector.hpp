#pragma once
/// Sixteen-lane vectors (GCC vector extensions), their loads and stores, exp() and Philox. Everything has internal
/// linkage, so a file compiled for AVX-512 shares no function with the rest of the program.

#include "kernels/simd/table.hpp"

#include <immintrin.h>

#define RF_INLINE inline __attribute__((always_inline))

namespace rf::simd {
namespace {

constexpr int lanes = 16;
typedef float f32x16 __attribute__((vector_size(64)));
typedef double f64x16 __attribute__((vector_size(128)));
typedef std::int32_t i32x16 __attribute__((vector_size(64)));
typedef std::int64_t i64x16 __attribute__((vector_size(128)));
typedef std::uint16_t u16x16 __attribute__((vector_size(32)));
typedef std::uint32_t u32x16 __attribute__((vector_size(64)));
typedef std::uint64_t u64x16 __attribute__((vector_size(128)));
typedef std::uint64_t u64x8 __attribute__((vector_size(64)));

template <class R> struct VectorOf;
template <> struct VectorOf<float> { using type = f32x16; };
template <> struct VectorOf<double> { using type = f64x16; };
/// What a storage type is computed in.
template <class T> using Vector = typename VectorOf<Real<T>>::type;

/// How many lanes of a vector lie inside the row.
struct All {};
struct First {
    int count;
};

/// body(i, which lanes) over a row of n elements, sixteen at a time.
template <class Body>
RF_INLINE void for_lanes(std::int64_t n, const Body& body) {
    std::int64_t i = 0;
    for (; i + lanes <= n; i += lanes) body(i, All{});
    if (i < n) body(i, First{static_cast<int>(n - i)});
}

template <class V, class T>
RF_INLINE V load_raw(const T* p, All) {
    V v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
}
template <class V, class T>
RF_INLINE V load_raw(const T* p, First first) {
    T padded[lanes] = {};
    for (int i = 0; i < first.count; ++i) padded[i] = p[i];
    return load_raw<V>(padded, All{});
}
template <class V, class T>
RF_INLINE void store_raw(T* p, V v, All) {
    __builtin_memcpy(p, &v, sizeof v);
}
template <class V, class T>
RF_INLINE void store_raw(T* p, V v, First first) {
    T padded[lanes];
    store_raw(padded, v, All{});
    for (int i = 0; i < first.count; ++i) p[i] = padded[i];
}

/// Lanes outside the row load as zero and are not stored.
template <class Which> RF_INLINE f32x16 load(const float* p, Which which) { return load_raw<f32x16>(p, which); }
template <class Which> RF_INLINE f64x16 load(const double* p, Which which) { return load_raw<f64x16>(p, which); }
template <class Which> RF_INLINE f32x16 load(const std::uint16_t* p, Which which) {
    return reinterpret_cast<f32x16>(__builtin_convertvector(load_raw<u16x16>(p, which), u32x16) << 16);
}
template <class Which> RF_INLINE void store(float* p, f32x16 v, Which which) { store_raw(p, v, which); }
template <class Which> RF_INLINE void store(double* p, f64x16 v, Which which) { store_raw(p, v, which); }
/// To bf16: nearest, ties to even; NaN stays NaN.
template <class Which> RF_INLINE void store(std::uint16_t* p, f32x16 v, Which which) {
    const u32x16 u = reinterpret_cast<u32x16>(v);
    const u32x16 rounded = (u + 0x7fffU + ((u >> 16) & 1U)) >> 16;
    const u32x16 quiet = (u >> 16) | 0x40U;
    const u32x16 bits = (u & 0x7fffffffU) > 0x7f800000U ? quiet : rounded;
    store_raw(p, __builtin_convertvector(bits, u16x16), which);
}

/// Joins the lanes in one fixed tree: halves are added, sixteen to one.
template <class R, class V>
RF_INLINE R sum_lanes(V v) {
    R a[lanes];
    __builtin_memcpy(a, &v, sizeof v);
    for (int width = lanes / 2; width > 0; width /= 2)
        for (int i = 0; i < width; ++i) a[i] += a[i + width];
    return a[0];
}
RF_INLINE float sum(f32x16 v) { return sum_lanes<float>(v); }
RF_INLINE double sum(f64x16 v) { return sum_lanes<double>(v); }

RF_INLINE float root(float x) { return __builtin_sqrtf(x); }
RF_INLINE double root(double x) { return __builtin_sqrt(x); }
/// Square roots are rounded correctly everywhere, so the way they are taken does not change bits.
template <class R, class V>
RF_INLINE V root_lanes(V v) {
    R a[lanes];
    __builtin_memcpy(a, &v, sizeof v);
    for (int i = 0; i < lanes; ++i) a[i] = root(a[i]);
    __builtin_memcpy(&v, a, sizeof v);
    return v;
}
RF_INLINE f32x16 root(f32x16 v) {
#ifdef __AVX512F__
    return reinterpret_cast<f32x16>(_mm512_maskz_sqrt_ps(0xffff, reinterpret_cast<__m512>(v)));
#else
    return root_lanes<float>(v);
#endif
}
RF_INLINE f64x16 root(f64x16 v) { return root_lanes<double>(v); }

/// e^x: x = n ln2 + r with n whole and |r| <= ln2 / 2, a polynomial for e^r, then n added to the exponent. Relative
/// error below 2e-7. Zero where the result would be subnormal. The polynomial and the split of ln2 are those of
/// S. Moshier's Cephes library (expf). NaN stays NaN.
RF_INLINE f32x16 exp(f32x16 x) {
    const float round_shift = 12582912.0F;  // 1.5 * 2^23: adding it leaves the nearest whole number in the low bits
    const f32x16 shifted = x * 1.44269504088896341F + round_shift;
    const f32x16 n = shifted - round_shift;
    const f32x16 r = x - n * 0.693359375F - n * -2.12194440e-4F;
    f32x16 p = r * 1.9875691500e-4F + 1.3981999507e-3F;
    p = p * r + 8.3334519073e-3F;
    p = p * r + 4.1665795894e-2F;
    p = p * r + 1.6666665459e-1F;
    p = p * r + 5.0000001201e-1F;
    p = p * (r * r) + r + 1.0F;
    const f32x16 y = reinterpret_cast<f32x16>(reinterpret_cast<u32x16>(p) + (reinterpret_cast<u32x16>(shifted) << 23));
    const f32x16 zero{}, infinity = zero + __builtin_inff();
    return x < -87.0F ? zero : (x > 88.7F ? infinity : y);
}

/// The same for f64, with the Taylor series to r^13 (remainder below 1e-17 for |r| <= ln2 / 2).
RF_INLINE f64x16 exp(f64x16 x) {
    const double round_shift = 6755399441055744.0;  // 1.5 * 2^52
    const f64x16 shifted = x * 1.4426950408889634074 + round_shift;
    const f64x16 n = shifted - round_shift;
    const f64x16 r = x - n * 6.93145751953125e-1 - n * 1.42860682030941723212e-6;
    f64x16 p = f64x16{} + 1.0;
    for (int k = 13; k > 0; --k) p = p * r * (1.0 / k) + 1.0;
    const f64x16 y = reinterpret_cast<f64x16>(reinterpret_cast<u64x16>(p) + (reinterpret_cast<u64x16>(shifted) << 52));
    const f64x16 zero{}, infinity = zero + __builtin_inf();
    return x < -708.0 ? zero : (x > 709.7 ? infinity : y);
}

/// a * m for lanes that hold 32-bit numbers in 64 bits: one instruction, which the compiler does not find by itself.
RF_INLINE u64x8 multiply_32(u64x8 a, std::uint32_t m) {
#if defined(__AVX512F__)
    return reinterpret_cast<u64x8>(_mm512_maskz_mul_epu32(0xff, reinterpret_cast<__m512i>(a), _mm512_set1_epi64(m)));
#elif defined(__AVX2__)
    __m256i part[2];
    __builtin_memcpy(part, &a, sizeof a);
    for (__m256i& p : part) p = _mm256_mul_epu32(p, _mm256_set1_epi64x(m));
    __builtin_memcpy(&a, part, sizeof a);
    return a;
#else
    __m128i part[4];
    __builtin_memcpy(part, &a, sizeof a);
    for (__m128i& p : part) p = _mm_mul_epu32(p, _mm_set1_epi64x(m));
    __builtin_memcpy(&a, part, sizeof a);
    return a;
#endif
}

struct WideProduct {
    u32x16 high, low;
};
RF_INLINE WideProduct multiply(u32x16 a, std::uint32_t m) {
    const u64x8 pairs = reinterpret_cast<u64x8>(a), low_half = u64x8{} + 0xffffffffU;
    const u64x8 even = multiply_32(pairs, m), odd = multiply_32(pairs >> 32, m);
    return {reinterpret_cast<u32x16>((even >> 32) | (odd & ~low_half)),
            reinterpret_cast<u32x16>((even & low_half) | (odd << 32))};
}

/// One Philox4x32-10 draw gives eight 16-bit draws; sixteen counters give `block` of them.
constexpr int block = 8 * lanes;

/// The draws of elements [first, first + block) of a row, in order; `first` is a multiple of `block`. The same bits as
/// rf::philox (core/philox.hpp), where the constants are explained.
RF_INLINE void draw_block(const DropRow& row, std::int64_t first, std::uint16_t* out) {
    const u32x16 iota = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    u32x16 c0 = iota + static_cast<std::uint32_t>(first / 8), c1 = u32x16{} + row.position, c2 = u32x16{} + row.sample,
           c3 = u32x16{} + row.stream;
    std::uint32_t k0 = row.key[0], k1 = row.key[1];
    for (int round = 0; round < 10; ++round) {
        const WideProduct p0 = multiply(c0, 0xD2511F53U), p1 = multiply(c2, 0xCD9E8D57U);
        c0 = p1.high ^ c1 ^ k0;
        c1 = p1.low;
        c2 = p0.high ^ c3 ^ k1;
        c3 = p0.low;
        k0 += 0x9E3779B9U;
        k1 += 0xBB67AE85U;
    }
    // Words of one counter lie in four vectors; in memory they follow each other.
    const u32x16 lower = {0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23}, upper = lower + 8;
    const u64x8 front = {0, 8, 1, 9, 2, 10, 3, 11}, back = front + 4;
    const u64x8 a = reinterpret_cast<u64x8>(__builtin_shuffle(c0, c1, lower)),
                b = reinterpret_cast<u64x8>(__builtin_shuffle(c2, c3, lower)),
                c = reinterpret_cast<u64x8>(__builtin_shuffle(c0, c1, upper)),
                d = reinterpret_cast<u64x8>(__builtin_shuffle(c2, c3, upper));
    const u64x8 words[4] = {__builtin_shuffle(a, b, front), __builtin_shuffle(a, b, back),
                            __builtin_shuffle(c, d, front), __builtin_shuffle(c, d, back)};
    __builtin_memcpy(out, words, sizeof words);
}

/// Dropout along a row: `at(i)` for i = 0, 16, 32, … in order, then apply to any vector of these lanes.
template <class R>
class Dropper {
public:
    using V = typename VectorOf<R>::type;
    RF_INLINE explicit Dropper(const DropRow& row) : row_(row), scale_(static_cast<R>(row.scale)) {}

    RF_INLINE void at(std::int64_t i) {
        if (row_.threshold == 0) return;
        if (i % block == 0) draw_block(row_, i, bits_);
        const u32x16 draws = __builtin_convertvector(load_raw<u16x16>(bits_ + i % block, All{}), u32x16);
        keep_ = draws >= row_.threshold;
    }
    RF_INLINE V operator()(V x) const {
        if (row_.threshold == 0) return x;
        if constexpr (sizeof(R) == 8)
            return __builtin_convertvector(keep_, i64x16) ? x * scale_ : V{};
        else
            return keep_ ? x * scale_ : V{};
    }

private:
    const DropRow& row_;
    R scale_;
    i32x16 keep_{};
    alignas(64) std::uint16_t bits_[block];
};

}  // namespace
}  // namespace rf::simd
