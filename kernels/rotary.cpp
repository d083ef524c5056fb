#include "kernels/rotary.hpp"

#include "kernels/dispatch.hpp"

#include <cmath>

namespace rf {

void rotary_table(const Tensor& table, double base) {
    RF_REQUIRE(table.shape.rank == 3 && table.shape[2] == 2, "the table must be [P, D/2, 2]");
    const std::int64_t pairs = table.shape[1];
    const auto put = [&](std::int64_t at, double value) {
        if (table.dtype == Dtype::f64) table.as<double>()[at] = value;
        else table.as<float>()[at] = static_cast<float>(value);
    };
    for (std::int64_t m = 0; m < table.shape[0]; ++m) {
        for (std::int64_t i = 0; i < pairs; ++i) {
            const double angle = static_cast<double>(m) * std::pow(base, -static_cast<double>(i) / static_cast<double>(pairs));
            put((m * pairs + i) * 2, std::cos(angle));
            put((m * pairs + i) * 2 + 1, std::sin(angle));
        }
    }
}

namespace {

void turn(Stream& stream, const Rotary& a, double direction) {
    require_cpu(stream);
    RF_REQUIRE(a.qkv.shape.rank == 4 && a.qkv.shape[1] == 3, "qkv must be [T, 3, h, D]");
    const std::int64_t tokens = a.qkv.shape[0], heads = a.qkv.shape[2], d = a.qkv.shape[3];
    RF_REQUIRE(a.position.shape == Shape{tokens}, "position must be [T]");
    RF_REQUIRE(a.table.shape.rank == 3 && a.table.shape[1] * 2 == d, "the table must be [P, D/2, 2]");
    dispatch(a.qkv.dtype, [&](auto type) {
        using T = decltype(type);
        using R = simd::Real<T>;
        const auto rotate = rows_of<T>().rotate;
        const std::int32_t* position = indices(a.position);
#pragma omp parallel for schedule(static)
        for (std::int64_t t = 0; t < tokens; ++t) {
            RF_ASSERT(position[t] < a.table.shape[0]);
            const R* angles = raw<R>(a.table) + position[t] * d;
            // Query and key heads are neighbours in memory.
            for (std::int64_t head = 0; head < 2 * heads; ++head)
                rotate(raw<T>(a.qkv) + (t * 3 * heads + head) * d, angles, d, static_cast<R>(direction));
        }
    });
}

}  // namespace

void rotary(Stream& stream, const Rotary& args) { turn(stream, args, 1); }
void rotary_backward(Stream& stream, const Rotary& args) { turn(stream, args, -1); }

}  // namespace rf
