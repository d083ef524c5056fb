#include "convert/crc.hpp"

#include "core/cpu.hpp"

#include <array>
#include <cstring>

#ifdef __x86_64__
#include <immintrin.h>
#endif

namespace rf::convert {

namespace {

/// A checksum is the remainder of the message, a polynomial over bits, by another of degree 32. Both standards number bits from the highest power
/// down: bit 31 of a remainder stands for x^0, bit 0 of the message's first byte for its highest power.
class Crc {
public:
    constexpr explicit Crc(std::uint32_t polynomial) : polynomial_(polynomial) {
        for (std::uint32_t b = 0; b < 256; ++b) {
            std::uint32_t r = b;
            for (int bit = 0; bit < 8; ++bit) r = times_x(r);
            table_[0][b] = r;
        }
        for (std::size_t k = 1; k < table_.size(); ++k)
            for (std::size_t b = 0; b < 256; ++b) table_[k][b] = (table_[k - 1][b] >> 8) ^ table_[0][table_[k - 1][b] & 0xffU];
        for (std::size_t i = 0; i < 2; ++i) {
            far_[i] = static_cast<std::uint64_t>(power(512 + 63 - 64 * i)) << 32;
            near_[i] = static_cast<std::uint64_t>(power(128 + 63 - 64 * i)) << 32;
        }
    }

    std::uint32_t operator()(const void* data, std::int64_t count, std::uint32_t crc) const {
        const auto* bytes = static_cast<const unsigned char*>(data);
#ifdef __x86_64__
        static const bool can_fold = cpu_isa() != Isa::baseline && __builtin_cpu_supports("pclmul");
        if (can_fold && count >= 128) return folded(bytes, count, crc);
#endif
        return by_tables(bytes, count, crc);
    }

private:
    constexpr std::uint32_t times_x(std::uint32_t r) const { return (r >> 1) ^ ((r & 1U) ? polynomial_ : 0U); }
    constexpr std::uint32_t power(std::uint64_t n) const {
        std::uint32_t r = 0x80000000U;
        for (; n > 0; --n) r = times_x(r);
        return r;
    }

    /// Sixteen bytes at a time.
    std::uint32_t by_tables(const unsigned char* p, std::int64_t count, std::uint32_t crc) const {
        std::uint32_t r = ~crc;
        for (; count >= 16; count -= 16, p += 16) {
            std::uint64_t low, high;
            std::memcpy(&low, p, 8);
            std::memcpy(&high, p + 8, 8);
            low ^= r;
            r = 0;
            for (std::size_t k = 0; k < 8; ++k) r ^= table_[15 - k][(low >> (8 * k)) & 0xffU] ^ table_[7 - k][(high >> (8 * k)) & 0xffU];
        }
        for (; count > 0; --count, ++p) r = (r >> 8) ^ table_[0][(r ^ *p) & 0xffU];
        return ~r;
    }

#ifdef __x86_64__
    /// `block` moved to where `next` lies and added to it: its halves times the powers of x between, modulo the polynomial. A product of two reversed
    /// polynomials comes out times x, so the powers are one less.
    [[gnu::target("pclmul")]] static __m128i fold(__m128i block, __m128i powers, __m128i next) {
        return _mm_xor_si128(_mm_xor_si128(_mm_clmulepi64_si128(block, powers, 0x00), _mm_clmulepi64_si128(block, powers, 0x11)), next);
    }
    static __m128i at(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }

    /// By multiplication without carries (V. Gopal et al., Fast CRC Computation for Generic Polynomials Using PCLMULQDQ, 2009): four blocks of 16 bytes are
    /// folded over those 64 bytes further until one is left, which has the same remainder as everything before it.
    [[gnu::target("pclmul")]] std::uint32_t folded(const unsigned char* p, std::int64_t count, std::uint32_t crc) const {
        const __m128i far = at(far_.data()), near = at(near_.data());
        __m128i block[4];
        for (int i = 0; i < 4; ++i) block[i] = at(p + 16 * i);
        block[0] = _mm_xor_si128(block[0], _mm_cvtsi32_si128(static_cast<int>(~crc)));
        for (p += 64, count -= 64; count >= 64; p += 64, count -= 64)
            for (int i = 0; i < 4; ++i) block[i] = fold(block[i], far, at(p + 16 * i));
        for (int i = 1; i < 4; ++i) block[0] = fold(block[0], near, block[i]);
        unsigned char left[16];
        std::memcpy(left, &block[0], sizeof left);
        return by_tables(p, count, by_tables(left, sizeof left, ~0U));
    }
#endif

    std::uint32_t polynomial_;
    std::array<std::array<std::uint32_t, 256>, 16> table_{};      ///< [k][b]: byte b followed by k zero bytes
    std::array<std::uint64_t, 2> far_{}, near_{};                 ///< x to 512 and 128, for the half of a block with the higher powers and the other
};
constexpr Crc zip_crc(0xedb88320U), castagnoli_crc(0x82f63b78U);

}  // namespace

std::uint32_t crc32(const void* data, std::int64_t count, std::uint32_t crc) { return zip_crc(data, count, crc); }
std::uint32_t crc32c(const void* data, std::int64_t count, std::uint32_t crc) { return castagnoli_crc(data, count, crc); }

}  // namespace rf::convert
