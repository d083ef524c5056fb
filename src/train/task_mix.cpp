#include "train/task_mix.hpp"

#include "core/check.hpp"
#include "core/philox.hpp"

#include <algorithm>

namespace rf {

TaskMix::TaskMix(std::vector<double> weights, std::uint64_t seed) : rising_(std::move(weights)), seed_(seed), drawn_(rising_.size(), 0) {
    RF_REQUIRE(!rising_.empty(), "a mix of no tasks");
    for (std::size_t i = 1; i < rising_.size(); ++i) rising_[i] += rising_[i - 1];
    const double all = rising_.back();
    for (double& sum : rising_) sum /= all;
    rising_.back() = 1;
}

int TaskMix::task_of(std::int64_t micro_step) const {
    const auto number = static_cast<std::uint64_t>(micro_step);
    const PhiloxCounter word = philox({0, static_cast<std::uint32_t>(number), static_cast<std::uint32_t>(number >> 32), philox_stream(Purpose::task, 0)}, philox_key(seed_));
    return static_cast<int>(std::upper_bound(rising_.begin(), rising_.end(), uniform(word[0])) - rising_.begin());
}

std::int64_t TaskMix::earlier(std::int64_t micro_step) {
    if (micro_step < at_) {
        std::fill(drawn_.begin(), drawn_.end(), 0);
        at_ = 0;
    }
    while (at_ < micro_step) ++drawn_[static_cast<std::size_t>(task_of(at_++))];
    return drawn_[static_cast<std::size_t>(task_of(micro_step))];
}

}  // namespace rf
