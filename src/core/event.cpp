#include "core/event.hpp"

#include "core/build.hpp"
#include "core/device_memory.hpp"

#include <utility>

namespace rf {

Event::Event([[maybe_unused]] Device device) {
    if constexpr (has_cuda)
        if (device == Device::cuda) handle_ = cuda::make_event();
}
Event::Event(Event&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)), recorded_(std::exchange(other.recorded_, false)) {}
Event::~Event() {
    if constexpr (has_cuda)
        if (handle_) cuda::destroy_event(handle_);
}

void Event::record([[maybe_unused]] const Stream& stream) {
    if constexpr (has_cuda) {
        if (!handle_) return;
        cuda::record(handle_, stream.handle());
        recorded_ = true;
    }
}

void Event::wait() {
    if constexpr (has_cuda)
        if (recorded_) cuda::wait(handle_);
    recorded_ = false;
}

void Event::hold([[maybe_unused]] const Stream& stream) const {
    if constexpr (has_cuda)
        if (recorded_) cuda::wait(handle_, stream.handle());
}

CapturedWork::CapturedWork(CapturedWork&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
CapturedWork& CapturedWork::operator=(CapturedWork&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
}
CapturedWork::~CapturedWork() {
    if constexpr (has_cuda)
        if (handle_) cuda::destroy_graph(handle_);
}

void CapturedWork::begin([[maybe_unused]] Stream& stream) {
    if constexpr (has_cuda) return cuda::begin_capture(stream.handle());
    fail("work is captured on a GPU only");
}
void CapturedWork::end([[maybe_unused]] Stream& stream) {
    if constexpr (has_cuda) handle_ = cuda::end_capture(stream.handle());
}
void CapturedWork::replay([[maybe_unused]] Stream& stream) const {
    if constexpr (has_cuda) cuda::replay(handle_, stream.handle());
}

}  // namespace rf
