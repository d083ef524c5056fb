#pragma once
/// What an op test runs on: a device, a dtype, and tensors that travel between that device and the host. Test bodies hand ops
/// nothing else, so the same source runs on every device that `devices` lists.

#include "core/buffer.hpp"
#include "core/build.hpp"
#include "core/device_memory.hpp"
#include "core/stream.hpp"
#include "tests/kernels/check_close.hpp"

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <vector>

namespace rf::test {

/// Every op test runs once on each of these: the CPU, and the GPU or its emulator where this process has one.
inline std::vector<Device> devices() {
    std::vector<Device> all{Device::cpu};
    if constexpr (has_cuda)
        if (cuda::device_count() > 0) all.push_back(Device::cuda);
    return all;
}

/// One stream a device, from the first test to the last: ops and the copies of their operands and results are in its order.
struct DeviceStreams {
    static inline std::optional<Stream> cpu, cuda;
    DeviceStreams() {
        for (const Device device : devices()) (device == Device::cpu ? cpu : cuda).emplace(device);
    }
    ~DeviceStreams() { cpu.reset(), cuda.reset(); }
};
BOOST_TEST_GLOBAL_FIXTURE(DeviceStreams);

inline Stream& stream_of(Device device) { return *(device == Device::cpu ? DeviceStreams::cpu : DeviceStreams::cuda); }

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
    upload(stream_of(t.device()), typed.data(), t);
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
        case Dtype::u8: to_device_as<std::uint8_t>(t, values); break;
        default: BOOST_FAIL("no test tensor of " << name_of(dtype));
    }
    return t;
}

template <class T>
std::vector<double> to_host_as(const DeviceTensor& t) {
    std::vector<T> typed(static_cast<std::size_t>(t.tensor().count()));
    download(stream_of(t.device()), t, typed.data());
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
        case Dtype::u8: return to_host_as<std::uint8_t>(t);
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
    /// Scratch memory that an op may ask for on a GPU: what it holds must not matter. Absent on the CPU.
    DeviceTensor scratch(Shape shape) const {
        if (device == Device::cpu) return {};
        return to_device(device, shape, Dtype::f32, std::vector<double>(static_cast<std::size_t>(shape.count()), std::nan("")));
    }
    Stream& stream() const { return stream_of(device); }
    double tolerance(std::int64_t reduction_length) const { return of(dtype, reduction_length); }
    /// Of results in the dtype that sums are kept in.
    double wide_tolerance(std::int64_t reduction_length) const { return of(accumulator_of(dtype), reduction_length); }
    std::string name() const { return std::string(device == Device::cpu ? "cpu " : "cuda ").append(name_of(dtype)); }

private:
    /// A GPU has an exponential and a root of its own: its f32 numbers are held to 1e-5.
    double of(Dtype type, std::int64_t reduction_length) const {
        const double rule = test::tolerance(type, reduction_length);
        return device == Device::cuda && type == Dtype::f32 ? std::max(1e-5, rule) : rule;
    }
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
        BOOST_TEST((values[i] == expected[i] || std::abs(values[i] - expected[i]) <= bound * std::max(1.0, std::abs(expected[i]))),  // infinities are equal or wrong
                   "element " << i << ": " << values[i] << " is not " << expected[i] << " within " << bound);
}
inline void check_all(const DeviceTensor& t, const std::vector<double>& expected, double bound) { check_all(to_host(t), expected, bound); }

}  // namespace rf::test
