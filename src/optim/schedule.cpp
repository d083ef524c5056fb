#include "optim/schedule.hpp"

namespace rf {

Schedule::Schedule(const json::value& points, const json::Place& place) {
    if (!points.is_array()) json::fail_type(place, "a list of [update, value] points", points);
    if (points.as_array().empty()) fail_usage(place, ": expected at least one [update, value] point, found an empty list");
    for (const json::value& item : points.as_array()) {
        if (!item.is_array() || item.as_array().size() != 2) json::fail_type(place, "a list of [update, value] points", item);
        Point point{};
        json::read(item.as_array()[0], point.update, place);
        json::read(item.as_array()[1], point.value, place);
        if (!points_.empty() && point.update <= points_.back().update) fail_usage(place, ": the updates of the points must rise");
        if (point.update < 0 || point.value < 0) fail_usage(place, ": negative numbers make no schedule");
        points_.push_back(point);
    }
}

double Schedule::at(std::int64_t update) const {
    const auto x = static_cast<double>(update);
    if (x <= points_.front().update) return points_.front().value;
    for (std::size_t i = 1; i < points_.size(); ++i) {
        const Point &a = points_[i - 1], &b = points_[i];
        if (x <= b.update) return a.value + (b.value - a.value) * ((x - a.update) / (b.update - a.update));
    }
    return points_.back().value;
}

}  // namespace rf
