#include "comm/progress.hpp"

#include <chrono>
#include <utility>

namespace rf {

namespace {
double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }
}  // namespace

int Progress::add_group(std::vector<int> ranks) {
    const std::lock_guard lock(mutex_);
    state_.groups.push_back({.ranks = std::move(ranks)});
    return static_cast<int>(state_.groups.size()) - 1;
}

void Progress::enter(int group, const char* name, double bytes) {
    const double now = seconds();
    const std::lock_guard lock(mutex_);
    ++state_.groups[static_cast<std::size_t>(group)].entered;
    state_.call = {.group = group, .name = name, .bytes = bytes, .since = now, .inside = true};
}

void Progress::leave() {
    const double now = seconds();
    const std::lock_guard lock(mutex_);
    inside_ += now - state_.call.since;
    state_.call.since = now;
    state_.call.inside = false;
}

Progress::State Progress::state() const {
    const std::lock_guard lock(mutex_);
    return state_;
}

double Progress::seconds_inside() const {
    const std::lock_guard lock(mutex_);
    return inside_;
}

}  // namespace rf
