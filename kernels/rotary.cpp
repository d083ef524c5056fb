#include "kernels/rotary.hpp"

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

}  // namespace rf
