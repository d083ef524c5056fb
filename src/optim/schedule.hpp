#pragma once

#include "io/json.hpp"

#include <cstdint>
#include <vector>

namespace rf {

/// Piecewise-linear function of the update number: straight lines between the points, constant outside them.
/// Updates count from 1, so a warm-up from 0 never gives a first update of nothing.
class Schedule {
public:
    Schedule() = default;
    /// Points [[update, value], …], updates rising. Errors are UsageErrors naming `place`.
    Schedule(const json::value& points, const json::Place& place);
    double at(std::int64_t update) const;

private:
    struct Point {
        double update;
        double value;
    };
    std::vector<Point> points_;
};

}  // namespace rf
