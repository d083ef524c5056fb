#include "kernels/elementwise.hpp"

#include "core/device_memory.hpp"
#include "core/op_log.hpp"
#include "kernels/dispatch.hpp"

#include <algorithm>
#include <cstring>

namespace rf {

namespace {
constexpr std::int64_t run = 1 << 14;

template <class Body>
void for_runs(std::int64_t n, const Body& body) {
#pragma omp parallel for schedule(static)
    for (std::int64_t begin = 0; begin < n; begin += run) body(begin, std::min(run, n - begin));
}
}  // namespace

void add(Stream& stream, const Add& a) {
    RF_REQUIRE(a.x.count() == a.y.count() && a.x.dtype == a.y.dtype, "add of ", a.x.shape, " to ", a.y.shape);
    if constexpr (has_cuda)
        if (stream.device() == Device::cuda) return cuda::add(stream, a);
    const OpScope scope(stream, {.name = "add", .bytes = bytes_of(a.x, a.y, a.y)});
    dispatch(a.x.dtype, [&](auto type) {
        using T = decltype(type);
        for_runs(a.x.count(), [&](std::int64_t i, std::int64_t n) { rows_of<T>().add(raw<T>(a.x) + i, raw<T>(a.y) + i, n); });
    });
}

void add_scaled(Stream& stream, const AddScaled& a) {
    RF_REQUIRE(a.x.count() == a.y.count() && a.x.dtype == a.y.dtype, "add_scaled of ", a.x.shape, " to ", a.y.shape);
    if constexpr (has_cuda)
        if (stream.device() == Device::cuda) return cuda::add_scaled(stream, a);
    const OpScope scope(stream, {.name = "add_scaled", .bytes = bytes_of(a.x, a.y, a.y)});
    const double divisor = a.divisor.read(), factor = a.factor.read() / divisor;
    if (divisor == 0) return;
    dispatch(a.x.dtype, [&](auto type) {
        using T = decltype(type);
        for_runs(a.x.count(), [&](std::int64_t i, std::int64_t n) {
            rows_of<T>().add_scaled(raw<T>(a.x) + i, raw<T>(a.y) + i, n, static_cast<simd::Real<T>>(factor));
        });
    });
}

void cast(Stream& stream, const Cast& a) {
    RF_REQUIRE(a.x.count() == a.y.count(), "cast of ", a.x.shape, " to ", a.y.shape);
    const Dtype from = a.x.dtype, to = a.y.dtype;
    // Checked here: an error must not be thrown inside the parallel region below.
    const bool known = from == to || (from == Dtype::f32 && (to == Dtype::bf16 || to == Dtype::f64)) ||
                       (to == Dtype::f32 && (from == Dtype::bf16 || from == Dtype::f64));
    RF_REQUIRE(known, "no cast from ", name_of(from), " to ", name_of(to));
    if constexpr (has_cuda)
        if (stream.device() == Device::cuda) return from == to ? copy(stream, a.x, a.y) : cuda::cast(stream, a);
    const OpScope scope(stream, {.name = "cast", .bytes = bytes_of(a.x, a.y)});
    const auto& t = simd::table();
    for_runs(a.x.count(), [&](std::int64_t i, std::int64_t n) {
        if (from == to)
            std::memcpy(static_cast<char*>(a.y.data) + i * size_of(to), static_cast<const char*>(a.x.data) + i * size_of(to),
                        static_cast<std::size_t>(n * size_of(to)));
        else if (from == Dtype::bf16 && to == Dtype::f32)
            t.bf16.widen(raw<std::uint16_t>(a.x) + i, raw<float>(a.y) + i, n);
        else if (from == Dtype::f32 && to == Dtype::bf16)
            t.bf16.narrow(raw<float>(a.x) + i, raw<std::uint16_t>(a.y) + i, n);
        else if (from == Dtype::f32 && to == Dtype::f64)
            t.f32_to_f64(raw<float>(a.x) + i, raw<double>(a.y) + i, n);
        else
            t.f64_to_f32(raw<double>(a.x) + i, raw<float>(a.y) + i, n);
    });
}

void fill_zero(Stream& stream, const Tensor& y) {
    if constexpr (has_cuda)
        if (stream.device() == Device::cuda) return cuda::fill_zero(stream.handle(), y.data, y.bytes());
    const OpScope scope(stream, {.name = "fill_zero", .bytes = bytes_of(y)});
    for_runs(y.bytes(), [&](std::int64_t i, std::int64_t n) { std::memset(static_cast<char*>(y.data) + i, 0, static_cast<std::size_t>(n)); });
}

void copy(Stream& stream, const ConstTensor& from, const Tensor& to) {
    RF_REQUIRE(from.bytes() == to.bytes(), "copy of ", from.bytes(), " bytes to ", to.bytes());
    if constexpr (has_cuda)
        if (stream.device() == Device::cuda) return cuda::copy(stream.handle(), from.data, to.data, from.bytes());
    const OpScope scope(stream, {.name = "copy", .bytes = bytes_of(from, to)});
    const auto *source = static_cast<const char*>(from.data);
    auto* target = static_cast<char*>(to.data);
    for_runs(from.bytes(), [&](std::int64_t i, std::int64_t n) { std::memmove(target + i, source + i, static_cast<std::size_t>(n)); });
}

}  // namespace rf
