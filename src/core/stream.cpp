#include "core/stream.hpp"

#include "core/build.hpp"
#include "core/device_memory.hpp"

#include <cstring>

namespace rf {

namespace {
void require_available(Device device) {
    if constexpr (!has_cuda) RF_REQUIRE(device == Device::cpu, "this build has no CUDA");
}
}  // namespace

Stream::Stream(Device device) : device_(device) {
    require_available(device);
    if constexpr (has_cuda)
        if (device == Device::cuda) handle_ = cuda::make_stream();
}

Stream::~Stream() {
    matrix_library_.reset();
    if constexpr (has_cuda)
        if (handle_) cuda::destroy_stream(handle_);
}

void Stream::synchronise() const {
    if constexpr (has_cuda)
        if (device_ == Device::cuda) cuda::synchronise(handle_);
}

void upload(const Stream& stream, const void* from, const Tensor& to) {
    if (to.bytes() == 0) return;
    if constexpr (has_cuda)
        if (stream.device() == Device::cuda) return cuda::copy_now(stream.handle(), from, to.data, to.bytes());
    std::memcpy(to.data, from, static_cast<std::size_t>(to.bytes()));
}

void download(const Stream& stream, const ConstTensor& from, void* to) {
    if (from.bytes() == 0) return;
    if constexpr (has_cuda)
        if (stream.device() == Device::cuda) return cuda::copy_now(stream.handle(), from.data, to, from.bytes());
    std::memcpy(to, from.data, static_cast<std::size_t>(from.bytes()));
}

}  // namespace rf
