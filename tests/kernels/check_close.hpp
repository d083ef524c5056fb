#pragma once
/// How far two ways to compute a number may lie apart.

#include "core/dtype.hpp"

#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace rf::test {

/// Unit roundoff of the dtype times the root of the number of rounded additions (errors of a sum grow like a random walk), times 8 for
/// the operations around the sum.
inline double tolerance(Dtype dtype, std::int64_t reduction_length) {
    const double unit = dtype == Dtype::f64 ? 0x1p-53 : dtype == Dtype::f32 ? 0x1p-24 : 0x1p-8;
    return 8 * unit * std::sqrt(static_cast<double>(std::max<std::int64_t>(reduction_length, 1)));
}

/// |value - reference| <= bound * max(1, |reference|)
inline void check_close(double value, double reference, double bound) {
    BOOST_TEST(std::abs(value - reference) <= bound * std::max(1.0, std::abs(reference)),
               value << " is not " << reference << " within " << bound);
}

}  // namespace rf::test
