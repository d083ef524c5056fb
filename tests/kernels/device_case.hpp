#pragma once
/// What an op test runs on: a device, a dtype, and tensors that travel between that device and the host. Test bodies hand ops
/// nothing else, so the same source runs on every device that `devices` lists.

#include "core/buffer.hpp"
#include "core/stream.hpp"
#include "tests/kernels/check_close.hpp"

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

namespace rf::test {

/// Every op test runs once on each of these.
inline std::vector<Device> devices() { return {Device::cpu}; }

/// The only place where a test moves bytes between host and device. Waits until they have arrived.
inline void copy_to_device(Device, void* to, const void* from, std::int64_t bytes) { std::memcpy(to, from, static_cast<std::size_t>(bytes)); }
inline void copy_to_host(Device, void* to, const void* from, std::int64_t bytes) { std::memcpy(to, from, static_cast<std::size_t>(bytes)); }

/// A tensor that owns its memory on a device. On the host its elements are doubles: exact for every dtype an op knows.
class DeviceTensor {
public:
    DeviceTensor() = default;  ///< an absent operand
    /// Zeros. An empty tensor still gets an address: a view without one counts as absent.
    DeviceTensor(Device device, Shape shape, Dtype dtype)
        : device_(device), buffer_(std::max<std::int64_t>(shape.count() * size_of(dtype), 1), device), view_{buffer_.data(), shape, dtype} {}

    operator Tensor() const { return view_; }
    operator ConstTensor() const { return view_; }
    Device device() const { return device_; }
    Tensor tensor() const { return view_; }

private:
    Device device_ = Device::cpu;
    Buffer buffer_;
    Tensor view_;
};

template <class T>
void to_device_as(const DeviceTensor& t, const std::vector<double>& values) {
    std::vector<T> typed;
    for (const double v : values) {
        if constexpr (std::is_same_v<T, bfloat16>) typed.push_back(bfloat16(static_cast<float>(v)));
        else typed.push_back(static_cast<T>(v));
    }
    copy_to_device(t.device(), t.tensor().data, typed.data(), t.tensor().bytes());
}

/// The values rounded to the dtype, on the device.
inline DeviceTensor to_device(Device device, Shape shape, Dtype dtype, const std::vector<double>& values) {
    BOOST_REQUIRE_EQUAL(static_cast<std::int64_t>(values.size()), shape.count());
    DeviceTensor t(device, shape, dtype);
    switch (dtype) {
        case Dtype::f64: to_device_as<double>(t, values); break;
        case Dtype::f32: to_device_as<float>(t, values); break;
        case Dtype::bf16: to_device_as<bfloat16>(t, values); break;
        case Dtype::i32: to_device_as<std::int32_t>(t, values); break;
        default: BOOST_FAIL("no test tensor of " << name_of(dtype));
    }
    return t;
}

template <class T>
std::vector<double> to_host_as(const DeviceTensor& t) {
    std::vector<T> typed(static_cast<std::size_t>(t.tensor().count()));
    copy_to_host(t.device(), typed.data(), t.tensor().data, t.tensor().bytes());
    std::vector<double> values;
    for (const T v : typed) {
        if constexpr (std::is_same_v<T, bfloat16>) values.push_back(static_cast<float>(v));
        else values.push_back(static_cast<double>(v));
    }
    return values;
}

inline std::vector<double> to_host(const DeviceTensor& t) {
    switch (t.tensor().dtype) {
        case Dtype::f64: return to_host_as<double>(t);
        case Dtype::f32: return to_host_as<float>(t);
        case Dtype::bf16: return to_host_as<bfloat16>(t);
        case Dtype::i32: return to_host_as<std::int32_t>(t);
        default: BOOST_FAIL("no test tensor of " << name_of(t.tensor().dtype)); return {};
    }
}

/// A device and the dtype an op is tried with there.
struct DeviceCase {
    Device device;
    Dtype dtype;

    DeviceTensor put(Shape shape, const std::vector<double>& values) const { return to_device(device, shape, dtype, values); }
    DeviceTensor zeros(Shape shape) const { return {device, shape, dtype}; }
    /// The same in the dtype that sums and parameter gradients are kept in.
    DeviceTensor put_wide(Shape shape, const std::vector<double>& values) const { return to_device(device, shape, accumulator_of(dtype), values); }
    DeviceTensor zeros_wide(Shape shape) const { return {device, shape, accumulator_of(dtype)}; }
    DeviceTensor put_list(const std::vector<double>& values) const {
        return to_device(device, {static_cast<std::int64_t>(values.size())}, Dtype::i32, values);
    }
    double tolerance(std::int64_t reduction_length) const { return test::tolerance(dtype, reduction_length); }
    std::string name() const { return std::string(device == Device::cpu ? "cpu " : "cuda ").append(name_of(dtype)); }
};

/// The dtypes of a device: f64 exists on the CPU only.
inline std::vector<DeviceCase> device_cases() {
    std::vector<DeviceCase> cases;
    for (const Device device : devices()) {
        cases.push_back({device, Dtype::f32});
        cases.push_back({device, Dtype::bf16});
        if (device == Device::cpu) cases.push_back({device, Dtype::f64});
    }
    return cases;
}

/// Where gradients are compared with differences.
inline DeviceCase exact_case() { return {Device::cpu, Dtype::f64}; }

inline void check_all(const std::vector<double>& values, const std::vector<double>& expected, double bound) {
    BOOST_REQUIRE_EQUAL(values.size(), expected.size());
    for (std::size_t i = 0; i < expected.size(); ++i)
        BOOST_TEST(std::abs(values[i] - expected[i]) <= bound * std::max(1.0, std::abs(expected[i])),
                   "element " << i << ": " << values[i] << " is not " << expected[i] << " within " << bound);
}
inline void check_all(const DeviceTensor& t, const std::vector<double>& expected, double bound) { check_all(to_host(t), expected, bound); }

}  // namespace rf::test
