#pragma once
/// Element types. f32 and bf16 exist on every device, f64 on the CPU only (gradient checks).

#include <bit>
#include <cstdint>
#include <string_view>
#include <type_traits>

namespace rf {

enum class Dtype : std::uint8_t { f32, bf16, f64, i32, u16, u8 };

/// Brain float: the upper half of an IEEE binary32. Conversion rounds to nearest even; NaN stays NaN.
struct bfloat16 {
    std::uint16_t bits = 0;

    bfloat16() = default;
    explicit bfloat16(float value) : bits(round(std::bit_cast<std::uint32_t>(value))) {}
    explicit operator float() const { return std::bit_cast<float>(std::uint32_t{bits} << 16); }

    static constexpr std::uint16_t round(std::uint32_t u) {
        if ((u & 0x7fffffffU) > 0x7f800000U) return static_cast<std::uint16_t>((u >> 16) | 0x40U);
        return static_cast<std::uint16_t>((u + 0x7fffU + ((u >> 16) & 1U)) >> 16);
    }
};

constexpr std::int64_t size_of(Dtype dtype) {
    switch (dtype) {
        case Dtype::f64: return 8;
        case Dtype::f32:
        case Dtype::i32: return 4;
        case Dtype::bf16:
        case Dtype::u16: return 2;
        case Dtype::u8: return 1;
    }
    return 0;
}

constexpr std::string_view name_of(Dtype dtype) {
    switch (dtype) {
        case Dtype::f64: return "f64";
        case Dtype::f32: return "f32";
        case Dtype::i32: return "i32";
        case Dtype::bf16: return "bf16";
        case Dtype::u16: return "u16";
        case Dtype::u8: return "u8";
    }
    return "?";
}

/// Structs are bytes; a number that no Dtype holds is none of them.
template <class T> constexpr Dtype dtype_of_bytes() {
    static_assert(!std::is_arithmetic_v<T> || sizeof(T) == 1, "no Dtype holds numbers of this type");
    return Dtype::u8;
}
template <class T> inline constexpr Dtype dtype_of = dtype_of_bytes<T>();
template <> inline constexpr Dtype dtype_of<float> = Dtype::f32;
template <> inline constexpr Dtype dtype_of<bfloat16> = Dtype::bf16;
template <> inline constexpr Dtype dtype_of<double> = Dtype::f64;
template <> inline constexpr Dtype dtype_of<std::int32_t> = Dtype::i32;
template <> inline constexpr Dtype dtype_of<std::uint16_t> = Dtype::u16;

/// The type sums and gradients are kept in: f64 stays f64, everything else accumulates in f32.
constexpr Dtype accumulator_of(Dtype dtype) { return dtype == Dtype::f64 ? Dtype::f64 : Dtype::f32; }

}  // namespace rf
