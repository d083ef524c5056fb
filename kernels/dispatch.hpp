#pragma once
/// From a dtype tag to a storage type and the row functions for it.

#include "core/build.hpp"
#include "kernels/dropout.hpp"
#include "kernels/simd/table.hpp"

namespace rf {

/// Row functions for one storage type: float, double, or std::uint16_t (the bits of a bf16).
template <class T>
const simd::RowTable<T>& rows_of() {
    if constexpr (std::is_same_v<T, float>) return simd::table().f32;
    else if constexpr (std::is_same_v<T, double>) return simd::table().f64;
    else return simd::table().bf16;
}

/// The same for accumulators.
template <class R>
const simd::RealTable<R>& reals_of() {
    if constexpr (std::is_same_v<R, float>) return simd::table().real32;
    else return simd::table().real64;
}

/// Calls body(T{}) with the storage type of a floating dtype.
template <class Body>
void dispatch(Dtype dtype, const Body& body) {
    switch (dtype) {
        case Dtype::f32: return body(float{});
        case Dtype::bf16: return body(std::uint16_t{});
        case Dtype::f64: return body(double{});
        default: fail("no kernel for ", name_of(dtype));
    }
}

/// The data as storage type T, unchecked: bf16 is seen as its bits.
template <class T> T* raw(const Tensor& t) { return static_cast<T*>(t.data); }
template <class T> const T* raw(const ConstTensor& t) { return static_cast<const T*>(t.data); }

inline const std::int32_t* indices(const ConstTensor& t) { return t ? t.as<std::int32_t>() : nullptr; }

/// Dropout of token t's row.
inline simd::DropRow drop_row(const Dropout& drop, std::uint32_t sample, std::uint32_t position, std::uint32_t detail) {
    const PhiloxKey key = philox_key(drop.seed);
    return {.threshold = drop.threshold(),
            .key = {key[0], key[1]},
            .position = position,
            .sample = sample,
            .stream = philox_stream(Purpose::dropout, detail),
            .scale = drop.scale()};
}
inline simd::DropRow drop_row(const Dropout& drop, const TokenOrigin& origin, std::int64_t t) {
    if (!drop.active()) return {};
    return drop_row(drop, static_cast<std::uint32_t>(origin.sample.as<std::int32_t>()[t]),
                    static_cast<std::uint32_t>(origin.position.as<std::int32_t>()[t]), drop.detail);
}

inline void require_origin(const Dropout& drop, const TokenOrigin& origin, std::int64_t tokens) {
    RF_REQUIRE(!drop.active() || (origin.sample.shape == Shape{tokens} && origin.position.shape == Shape{tokens}),
               "dropout needs the sample and position of all ", tokens, " tokens");
}

}  // namespace rf
