#pragma once
/// Where and in which order work runs. On the CPU work is done when the call returns; on a GPU it is put on a CUDA stream
/// and runs later, in order.

#include "core/tensor.hpp"

#include <memory>
#include <string>

struct CUstream_st;  // what cudaStream_t points to

namespace rf {

class Stream {
public:
    /// For the GPU: a stream of its own on this rank's current device.
    explicit Stream(Device device = Device::cpu);
    ~Stream();
    Stream(const Stream&) = delete;
    Stream& operator=(const Stream&) = delete;

    Device device() const { return device_; }
    CUstream_st* handle() const { return handle_; }
    /// Waits until everything put here is done.
    void synchronise() const;
    /// What a library keeps for this stream (handles, workspace, cached plans), made by the op that needs it.
    std::shared_ptr<void>& matrix_library() { return matrix_library_; }

private:
    Device device_;
    CUstream_st* handle_ = nullptr;
    std::shared_ptr<void> matrix_library_;
};

/// A number known at the call, or one that stands in memory of the op's device when the op runs (an element of any float
/// dtype): then a captured step can be replayed with another value.
struct Scalar {
    Scalar(double number) : value(number) {}
    Scalar(const ConstTensor& one) : tensor(one) { RF_REQUIRE(one.shape.count() == 1, "a scalar has one element, not ", one.shape); }
    Scalar(const Tensor& one) : Scalar(ConstTensor(one)) {}

    double value = 1;
    ConstTensor tensor;  ///< absent: `value` counts
    /// On the CPU.
    double read() const {
        if (!tensor) return value;
        if (tensor.dtype == Dtype::f64) return *tensor.as<double>();
        if (tensor.dtype == Dtype::bf16) return static_cast<float>(*tensor.as<bfloat16>());
        return *tensor.as<float>();
    }
};

/// Whole tensors between the host and a stream's device (a plain copy on the CPU). They wait for the stream and return when
/// the copy is done: for beginnings, checkpoints and results, not for steps.
void upload(const Stream& stream, const void* from, const Tensor& to);
void download(const Stream& stream, const ConstTensor& from, void* to);

}  // namespace rf
