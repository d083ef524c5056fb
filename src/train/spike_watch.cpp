#include "train/spike_watch.hpp"

#include <cmath>
#include <cstdio>

namespace rf {

std::string SpikeWatch::look_at(double loss) {
    constexpr std::size_t window = 100, least = 50;
    constexpr double deviations = 6;
    std::string remark;
    if (last_.size() >= least) {
        double mean = 0, square = 0;
        for (const double x : last_) mean += x / static_cast<double>(last_.size());
        for (const double x : last_) square += (x - mean) * (x - mean) / static_cast<double>(last_.size());
        const double away = (loss - mean) / std::sqrt(square);
        char text[120];
        std::snprintf(text, sizeof text, "loss %.4f, %.1f standard deviations above the mean %.4f of the last %zu", loss, away, mean, last_.size());
        if (away > deviations) remark = text;
    }
    if (last_.size() == window) last_.pop_front();
    last_.push_back(loss);
    return remark;
}

}  // namespace rf
