#pragma once
/// Where and in which order work runs. On the CPU work is done when the call returns.

#include "core/tensor.hpp"

namespace rf {

class Stream {
public:
    explicit Stream(Device device = Device::cpu) : device_(device) {}
    Device device() const { return device_; }

private:
    Device device_;
};

}  // namespace rf
