#pragma once
/// Attention's rotary table on any device, and the devices attention runs on.

#include "kernels/rotary.hpp"
#include "tests/kernels/device_case.hpp"

namespace rf::test {

inline DeviceTensor table_for(const DeviceCase& on, std::int64_t positions, std::int64_t channels) {
    const DeviceTensor host(Device::cpu, {positions, channels / 2, 2}, accumulator_of(on.dtype));
    rotary_table(host);
    return on.put_wide({positions, channels / 2, 2}, to_host(host));
}

}  // namespace rf::test
