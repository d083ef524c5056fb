#pragma once

#include <deque>
#include <string>

namespace rf {

/// Notes losses that stand out: more than six standard deviations above the mean of the last hundred (of fifty at least).
class SpikeWatch {
public:
    /// What is remarkable about this loss, or empty; then remembers it.
    std::string look_at(double loss);

private:
    std::deque<double> last_;
};

}  // namespace rf
