#pragma once
/// Vectors of sixteen lanes, their loads and stores, exp() and Philox. Everything has internal linkage, so a file compiled for
/// AVX-512 shares no function with the rest of the program.

#include "kernels/simd/table.hpp"

#include <immintrin.h>

#include <type_traits>
#include <utility>

#define RF_INLINE inline __attribute__((always_inline))

namespace rf::simd {
namespace {

constexpr int lanes = 16;

/// Bytes of the instruction set's vectors. The compiler takes wider ones apart, number by number, wherever lanes are compared,
/// selected or converted, so sixteen lanes are made of parts of this size.
#if defined(__AVX512F__)
constexpr int native = 64;
#elif defined(__AVX2__)
constexpr int native = 32;
#else
constexpr int native = 16;
#endif

/// Sixteen numbers. Operators work lane by lane, as those of GCC's vectors do.
template <class E>
struct Lanes {
    static constexpr int width = native / static_cast<int>(sizeof(E)) < lanes ? native / static_cast<int>(sizeof(E)) : lanes;
    static constexpr int parts = lanes / width;
    typedef E Part __attribute__((vector_size(width * sizeof(E))));
    Part part[parts];
};

template <class Body, std::size_t... P>
RF_INLINE void for_parts(const Body& body, std::index_sequence<P...>) {
    (body(std::integral_constant<std::size_t, P>{}), ...);
}
/// body(p) for p = 0, 1, … below `n`, each a constant, so that parts stay in registers.
template <int n, class Body>
RF_INLINE void for_parts(const Body& body) {
    for_parts(body, std::make_index_sequence<n>{});
}
#define RF_PARTS(E) for_parts<Lanes<E>::parts>([&](auto p) __attribute__((always_inline)) {
#define RF_PARTS_END })

template <class E> struct SignedOf;
template <> struct SignedOf<float> { using type = std::int32_t; };
template <> struct SignedOf<double> { using type = std::int64_t; };
template <> struct SignedOf<std::int32_t> { using type = std::int32_t; };
template <> struct SignedOf<std::int64_t> { using type = std::int64_t; };
template <> struct SignedOf<std::uint32_t> { using type = std::int32_t; };
/// What a comparison gives: all bits of a lane or none.
template <class E> using Mask = Lanes<typename SignedOf<E>::type>;
/// The other operand of an operator: converted, never deduced.
template <class E> using Number = std::type_identity_t<E>;

template <class E>
RF_INLINE Lanes<E> fill(Number<E> x) {
    Lanes<E> r;
    RF_PARTS(E) r.part[p] = x - typename Lanes<E>::Part{}; RF_PARTS_END;  // adding 0 would be an addition: it turns -0 into 0
    return r;
}

#define RF_LANES_OPERATOR(op)                                                                              \
    template <class E>                                                                                     \
    RF_INLINE Lanes<E> operator op(Lanes<E> a, Lanes<E> b) {                                               \
        RF_PARTS(E) a.part[p] = a.part[p] op b.part[p]; RF_PARTS_END;                                      \
        return a;                                                                                          \
    }                                                                                                      \
    template <class E>                                                                                     \
    RF_INLINE Lanes<E> operator op(Lanes<E> a, Number<E> b) {                                              \
        RF_PARTS(E) a.part[p] = a.part[p] op b; RF_PARTS_END;                                              \
        return a;                                                                                          \
    }                                                                                                      \
    template <class E>                                                                                     \
    RF_INLINE Lanes<E>& operator op##=(Lanes<E>& a, Lanes<E> b) {                                          \
        return a = a op b;                                                                                 \
    }
RF_LANES_OPERATOR(+)
RF_LANES_OPERATOR(-)
RF_LANES_OPERATOR(*)
RF_LANES_OPERATOR(/)
RF_LANES_OPERATOR(&)
RF_LANES_OPERATOR(^)
#undef RF_LANES_OPERATOR

#define RF_LANES_COMPARISON(op)                                                              \
    template <class E>                                                                       \
    RF_INLINE Mask<E> operator op(Lanes<E> a, Lanes<E> b) {                                  \
        Mask<E> r;                                                                           \
        RF_PARTS(E) r.part[p] = a.part[p] op b.part[p]; RF_PARTS_END;                        \
        return r;                                                                            \
    }                                                                                        \
    template <class E>                                                                       \
    RF_INLINE Mask<E> operator op(Lanes<E> a, Number<E> b) {                                 \
        return a op fill<E>(b);                                                              \
    }
RF_LANES_COMPARISON(<)
RF_LANES_COMPARISON(>)
RF_LANES_COMPARISON(>=)
RF_LANES_COMPARISON(!=)
#undef RF_LANES_COMPARISON

/// a where the mask is set, b elsewhere.
template <class E>
RF_INLINE Lanes<E> select(Mask<E> mask, Lanes<E> a, Lanes<E> b) {
    RF_PARTS(E) a.part[p] = mask.part[p] ? a.part[p] : b.part[p]; RF_PARTS_END;
    return a;
}

/// The same bits as another type of the same size.
template <class To, class E>
RF_INLINE Lanes<To> bits_as(Lanes<E> v) {
    Lanes<To> r;
    RF_PARTS(E) r.part[p] = reinterpret_cast<typename Lanes<To>::Part>(v.part[p]); RF_PARTS_END;
    return r;
}

/// Lane by lane in another type. Both sides go in pieces that the wider one's parts hold.
template <class To, class E>
RF_INLINE Lanes<To> convert_lanes(Lanes<E> v) {
    constexpr int width = Lanes<To>::width < Lanes<E>::width ? Lanes<To>::width : Lanes<E>::width;
    typedef E From __attribute__((vector_size(width * sizeof(E))));
    typedef To Into __attribute__((vector_size(width * sizeof(To))));
    Lanes<To> r;
    for_parts<lanes / width>([&](auto p) __attribute__((always_inline)) {
        From from;
        __builtin_memcpy(&from, reinterpret_cast<const char*>(&v) + p * sizeof from, sizeof from);
        const Into into = __builtin_convertvector(from, Into);
        __builtin_memcpy(reinterpret_cast<char*>(&r) + p * sizeof into, &into, sizeof into);
    });
    return r;
}

/// Sixteen constants, a function of the lane.
template <class E, class F, std::size_t... L>
RF_INLINE Lanes<E> constants(const F& f, std::index_sequence<L...>) {
    const E values[lanes] = {static_cast<E>(f(static_cast<int>(L)))...};
    Lanes<E> r;
    __builtin_memcpy(&r, values, sizeof r);
    return r;
}
template <class E, class F>
RF_INLINE Lanes<E> constants(const F& f) {
    return constants<E>(f, std::make_index_sequence<lanes>{});
}

/// Lane i of the result is lane order(i) of v; order stays within the part.
template <class E, class F>
RF_INLINE Lanes<E> shuffle(Lanes<E> v, const F& order) {
    const Mask<E> from = constants<typename SignedOf<E>::type>([&](int i) { return order(i) % Lanes<E>::width; });
    RF_PARTS(E) v.part[p] = __builtin_shuffle(v.part[p], from.part[p]); RF_PARTS_END;
    return v;
}

/// What a storage type is computed in.
template <class T> using Vector = Lanes<Real<T>>;

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

/// Asks for what lies 2 KiB further, of a run over arrays larger than the caches: the processor's own reading ahead ends with every page.
template <class E>
RF_INLINE void expect_further(const E* x) { __builtin_prefetch(reinterpret_cast<const char*>(x) + 2048); }

template <class E>
RF_INLINE Lanes<E> load_raw(const E* from, All) {
    Lanes<E> v;
    RF_PARTS(E) __builtin_memcpy(&v.part[p], from + p * Lanes<E>::width, sizeof v.part[p]); RF_PARTS_END;
    return v;
}
template <class E>
RF_INLINE Lanes<E> load_raw(const E* from, First first) {
    E padded[lanes] = {};
    for (int i = 0; i < first.count; ++i) padded[i] = from[i];
    return load_raw(padded, All{});
}
template <class E>
RF_INLINE void store_raw(E* to, Lanes<E> v, All) {
    RF_PARTS(E) __builtin_memcpy(to + p * Lanes<E>::width, &v.part[p], sizeof v.part[p]); RF_PARTS_END;
}
template <class E>
RF_INLINE void store_raw(E* to, Lanes<E> v, First first) {
    E padded[lanes];
    store_raw(padded, v, All{});
    for (int i = 0; i < first.count; ++i) to[i] = padded[i];
}

/// Sixteen 16-bit numbers as 32-bit ones.
template <class Which>
RF_INLINE Lanes<std::uint32_t> load_16(const std::uint16_t* from, Which which) {
    if constexpr (std::is_same_v<Which, First>) {
        std::uint16_t padded[lanes] = {};
        for (int i = 0; i < which.count; ++i) padded[i] = from[i];
        return load_16(padded, All{});
    } else {
        typedef std::uint16_t Narrow __attribute__((vector_size(Lanes<std::uint32_t>::width * 2)));
        Lanes<std::uint32_t> r;
        RF_PARTS(std::uint32_t)
            Narrow narrow;
            __builtin_memcpy(&narrow, from + p * Lanes<std::uint32_t>::width, sizeof narrow);
            r.part[p] = __builtin_convertvector(narrow, Lanes<std::uint32_t>::Part);
        RF_PARTS_END;
        return r;
    }
}
/// The low halves of 32-bit numbers below 2^16.
template <class Which>
RF_INLINE void store_16(std::uint16_t* to, Lanes<std::uint32_t> v, Which which) {
    if constexpr (std::is_same_v<Which, First>) {
        std::uint16_t padded[lanes];
        store_16(padded, v, All{});
        for (int i = 0; i < which.count; ++i) to[i] = padded[i];
    } else {
#if defined(__AVX512F__)
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_maskz_cvtepi32_epi16(0xffff, reinterpret_cast<__m512i>(v.part[0])));
#elif defined(__AVX2__)
        // Packs within each half of the registers, so the quarters come in the order 0 2 1 3.
        const __m256i packed = _mm256_packus_epi32(reinterpret_cast<__m256i>(v.part[0]), reinterpret_cast<__m256i>(v.part[1]));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm256_permute4x64_epi64(packed, 0xd8));
#else
        std::uint32_t wide[lanes];
        store_raw(wide, v, All{});
        for (int i = 0; i < lanes; ++i) to[i] = static_cast<std::uint16_t>(wide[i]);
#endif
    }
}

/// Lanes outside the row load as zero and are not stored.
template <class Which> RF_INLINE Lanes<float> load(const float* from, Which which) { return load_raw(from, which); }
template <class Which> RF_INLINE Lanes<double> load(const double* from, Which which) { return load_raw(from, which); }
template <class Which> RF_INLINE Lanes<float> load(const std::uint16_t* from, Which which) {
    Lanes<std::uint32_t> v = load_16(from, which);
    RF_PARTS(std::uint32_t) v.part[p] <<= 16; RF_PARTS_END;
    return bits_as<float>(v);
}
template <class Which> RF_INLINE void store(float* to, Lanes<float> v, Which which) { store_raw(to, v, which); }
template <class Which> RF_INLINE void store(double* to, Lanes<double> v, Which which) { store_raw(to, v, which); }
/// To bf16: nearest, ties to even; NaN stays NaN.
template <class Which> RF_INLINE void store(std::uint16_t* to, Lanes<float> v, Which which) {
    const Lanes<std::uint32_t> u = bits_as<std::uint32_t>(v);
    Lanes<std::uint32_t> bits;
    RF_PARTS(std::uint32_t)
        const auto x = u.part[p];
        const auto rounded = (x + 0x7fffU + ((x >> 16) & 1U)) >> 16, quiet = (x >> 16) | 0x40U;
        // Below 2^31 a signed comparison is the same, and every instruction set has one.
        using Signed = Lanes<std::int32_t>::Part;
        bits.part[p] = reinterpret_cast<Signed>(x & 0x7fffffffU) > 0x7f800000 ? quiet : rounded;
    RF_PARTS_END;
    store_16(to, bits, which);
}

/// a * b + c: rounded once where the instruction set can. Only sums of products whose bits may differ between sets are made with it.
RF_INLINE Lanes<float> multiply_add(Lanes<float> a, Lanes<float> b, Lanes<float> c) {
    RF_PARTS(float)
#if defined(__AVX512F__)
        c.part[p] = reinterpret_cast<Lanes<float>::Part>(
            _mm512_fmadd_ps(reinterpret_cast<__m512>(a.part[p]), reinterpret_cast<__m512>(b.part[p]), reinterpret_cast<__m512>(c.part[p])));
#elif defined(__FMA__)
        c.part[p] = reinterpret_cast<Lanes<float>::Part>(
            _mm256_fmadd_ps(reinterpret_cast<__m256>(a.part[p]), reinterpret_cast<__m256>(b.part[p]), reinterpret_cast<__m256>(c.part[p])));
#else
        c.part[p] += a.part[p] * b.part[p];
#endif
    RF_PARTS_END;
    return c;
}
RF_INLINE Lanes<double> multiply_add(Lanes<double> a, Lanes<double> b, Lanes<double> c) { return a * b + c; }

/// Joins the lanes in one fixed tree: halves are added, sixteen to one.
template <class E>
RF_INLINE E sum(Lanes<E> v) {
    E a[lanes];
    store_raw(a, v, All{});
    for (int width = lanes / 2; width > 0; width /= 2)
        for (int i = 0; i < width; ++i) a[i] += a[i + width];
    return a[0];
}

/// Square roots are rounded correctly everywhere, so the way they are taken does not change bits.
RF_INLINE float root(float x) { return __builtin_sqrtf(x); }
RF_INLINE double root(double x) { return __builtin_sqrt(x); }
RF_INLINE Lanes<float> root(Lanes<float> v) {
    RF_PARTS(float)
#if defined(__AVX512F__)
        v.part[p] = reinterpret_cast<Lanes<float>::Part>(_mm512_maskz_sqrt_ps(0xffff, reinterpret_cast<__m512>(v.part[p])));
#elif defined(__AVX2__)
        v.part[p] = reinterpret_cast<Lanes<float>::Part>(_mm256_sqrt_ps(reinterpret_cast<__m256>(v.part[p])));
#else
        v.part[p] = reinterpret_cast<Lanes<float>::Part>(_mm_sqrt_ps(reinterpret_cast<__m128>(v.part[p])));
#endif
    RF_PARTS_END;
    return v;
}
RF_INLINE Lanes<double> root(Lanes<double> v) {
    double a[lanes];
    store_raw(a, v, All{});
    for (double& x : a) x = root(x);
    return load_raw(a, All{});
}

/// Bit i says whether lane i of the mask is set.
RF_INLINE std::uint32_t bits_of(Mask<float> mask) {
    std::uint32_t bits = 0;
    RF_PARTS(std::int32_t)
#if defined(__AVX512F__)
        bits |= static_cast<std::uint32_t>(_mm512_movepi32_mask(reinterpret_cast<__m512i>(mask.part[p])));
#elif defined(__AVX2__)
        bits |= static_cast<std::uint32_t>(_mm256_movemask_ps(reinterpret_cast<__m256>(mask.part[p]))) << (p * 8);
#else
        bits |= static_cast<std::uint32_t>(_mm_movemask_ps(reinterpret_cast<__m128>(mask.part[p]))) << (p * 4);
#endif
    RF_PARTS_END;
    return bits;
}
RF_INLINE std::uint32_t bits_of(Mask<double> mask) {
    std::int64_t a[lanes];
    store_raw(a, mask, All{});
    std::uint32_t bits = 0;
    for (int i = 0; i < lanes; ++i) bits |= a[i] != 0 ? 1U << i : 0U;
    return bits;
}

/// e^x: x = n ln2 + r with n whole and |r| <= ln2 / 2, a polynomial for e^r, then n added to the exponent. Relative
/// error below 2e-7. Zero where the result would be subnormal. The polynomial and the split of ln2 are those of
/// S. Moshier's Cephes library (expf). NaN stays NaN. For x that is at most 88.
RF_INLINE Lanes<float> finite_exp(Lanes<float> x) {
    const float round_shift = 12582912.0F;  // 1.5 * 2^23: adding it leaves the nearest whole number in the low bits
    const Lanes<float> shifted = x * 1.44269504088896341F + round_shift;
    const Lanes<float> n = shifted - round_shift;
    const Lanes<float> r = x - n * 0.693359375F - n * -2.12194440e-4F;
    Lanes<float> y = r * 1.9875691500e-4F + 1.3981999507e-3F;
    y = y * r + 8.3334519073e-3F;
    y = y * r + 4.1665795894e-2F;
    y = y * r + 1.6666665459e-1F;
    y = y * r + 5.0000001201e-1F;
    y = y * (r * r) + r + 1.0F;
    Lanes<std::uint32_t> bits = bits_as<std::uint32_t>(y);
    const Lanes<std::uint32_t> exponent = bits_as<std::uint32_t>(shifted);
    RF_PARTS(std::uint32_t) bits.part[p] += exponent.part[p] << 23; RF_PARTS_END;
    return select<float>(x < -87.0F, Lanes<float>{}, bits_as<float>(bits));
}
RF_INLINE Lanes<float> exp(Lanes<float> x) { return select<float>(x > 88.7F, fill<float>(__builtin_inff()), finite_exp(x)); }

/// The same for f64, with the Taylor series to r^13 (remainder below 1e-17 for |r| <= ln2 / 2).
RF_INLINE Lanes<double> exp(Lanes<double> x) {
    const double round_shift = 6755399441055744.0;  // 1.5 * 2^52
    const Lanes<double> shifted = x * 1.4426950408889634074 + round_shift;
    const Lanes<double> n = shifted - round_shift;
    const Lanes<double> r = x - n * 6.93145751953125e-1 - n * 1.42860682030941723212e-6;
    Lanes<double> y = fill<double>(1.0);
    for (int k = 13; k > 0; --k) y = y * r * (1.0 / k) + 1.0;
    Lanes<std::uint64_t> bits = bits_as<std::uint64_t>(y);
    const Lanes<std::uint64_t> exponent = bits_as<std::uint64_t>(shifted);
    RF_PARTS(std::uint64_t) bits.part[p] += exponent.part[p] << 52; RF_PARTS_END;
    const Lanes<double> finite = select<double>(x > 709.7, fill<double>(__builtin_inf()), bits_as<double>(bits));
    return select<double>(x < -708.0, Lanes<double>{}, finite);
}
RF_INLINE Lanes<double> finite_exp(Lanes<double> x) { return exp(x); }

/// High and low words of a * m, lane by lane.
struct WideProduct {
    Lanes<std::uint32_t> high, low;
};
RF_INLINE WideProduct multiply(Lanes<std::uint32_t> a, std::uint32_t m) {
    WideProduct r;
    RF_PARTS(std::uint32_t)
        using Part = Lanes<std::uint32_t>::Part;
#if defined(__AVX512F__)
        const __m512i v = reinterpret_cast<__m512i>(a.part[p]), times = _mm512_set1_epi64(m);
        const __m512i even = _mm512_maskz_mul_epu32(0xff, v, times), odd = _mm512_maskz_mul_epu32(0xff, _mm512_maskz_srli_epi64(0xff, v, 32), times);
        r.high.part[p] = reinterpret_cast<Part>(_mm512_mask_blend_epi32(0xaaaa, _mm512_maskz_srli_epi64(0xff, even, 32), odd));
        r.low.part[p] = reinterpret_cast<Part>(_mm512_mask_blend_epi32(0xaaaa, even, _mm512_maskz_slli_epi64(0xff, odd, 32)));
#elif defined(__AVX2__)
        const __m256i v = reinterpret_cast<__m256i>(a.part[p]), times = _mm256_set1_epi64x(m);
        const __m256i even = _mm256_mul_epu32(v, times), odd = _mm256_mul_epu32(_mm256_srli_epi64(v, 32), times);
        r.high.part[p] = reinterpret_cast<Part>(_mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa));
        r.low.part[p] = reinterpret_cast<Part>(_mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xaa));
#else
        const __m128i v = reinterpret_cast<__m128i>(a.part[p]), times = _mm_set1_epi64x(m), low_half = _mm_set1_epi64x(0xffffffff);
        const __m128i even = _mm_mul_epu32(v, times), odd = _mm_mul_epu32(_mm_srli_epi64(v, 32), times);
        r.high.part[p] = reinterpret_cast<Part>(_mm_or_si128(_mm_srli_epi64(even, 32), _mm_andnot_si128(low_half, odd)));
        r.low.part[p] = reinterpret_cast<Part>(_mm_or_si128(_mm_and_si128(even, low_half), _mm_slli_epi64(odd, 32)));
#endif
    RF_PARTS_END;
    return r;
}

/// One Philox4x32-10 draw gives eight 16-bit draws; sixteen counters give `block` of them.
constexpr int block = 8 * lanes;

/// The draws of elements [first, first + block) of a row, in order; `first` is a multiple of `block`. The same bits as
/// rf::philox (core/philox.hpp), where the constants are explained.
RF_INLINE void draw_block(const DropRow& row, std::int64_t first, std::uint16_t* out) {
    using U = Lanes<std::uint32_t>;
    U c0 = constants<std::uint32_t>([](int i) { return i; }) + static_cast<std::uint32_t>(first / 8), c1 = fill<std::uint32_t>(row.position),
      c2 = fill<std::uint32_t>(row.sample), c3 = fill<std::uint32_t>(row.stream);
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
    // Words of one counter lie in four vectors; in memory they follow each other. Four counters at a time.
    const U* words[4] = {&c0, &c1, &c2, &c3};
    for_parts<lanes / 4>([&](auto p) __attribute__((always_inline)) {
        __m128i w[4];
        for (int k = 0; k < 4; ++k) __builtin_memcpy(&w[k], reinterpret_cast<const char*>(words[k]) + p * 16, 16);
        const __m128i low01 = _mm_unpacklo_epi32(w[0], w[1]), low23 = _mm_unpacklo_epi32(w[2], w[3]), high01 = _mm_unpackhi_epi32(w[0], w[1]),
                      high23 = _mm_unpackhi_epi32(w[2], w[3]);
        const __m128i counters[4] = {_mm_unpacklo_epi64(low01, low23), _mm_unpackhi_epi64(low01, low23), _mm_unpacklo_epi64(high01, high23),
                                     _mm_unpackhi_epi64(high01, high23)};
        __builtin_memcpy(out + p * 32, counters, sizeof counters);
    });
}

/// Dropout along a row: `at(i)` for i = 0, 16, 32, … in order, then apply to any vector of these lanes.
template <class R>
class Dropper {
public:
    using V = Lanes<R>;
    RF_INLINE explicit Dropper(const DropRow& row) : row_(row), scale_(static_cast<R>(row.scale)) {}

    RF_INLINE void at(std::int64_t i) {
        if (row_.threshold == 0) return;
        if (i % block == 0) draw_block(row_, i, bits_);
        // Draws and threshold are below 2^17: a signed comparison is the same, and every instruction set has one.
        keep_ = bits_as<std::int32_t>(load_16(bits_ + i % block, All{})) >= static_cast<std::int32_t>(row_.threshold);
    }
    RF_INLINE V operator()(V x) const {
        if (row_.threshold == 0) return x;
        if constexpr (sizeof(R) == 8)
            return select<R>(convert_lanes<std::int64_t>(keep_), x * scale_, V{});
        else
            return select<R>(keep_, x * scale_, V{});
    }

private:
    const DropRow& row_;
    R scale_;
    Lanes<std::int32_t> keep_{};
    alignas(64) std::uint16_t bits_[block];
};

}  // namespace
}  // namespace rf::simd
