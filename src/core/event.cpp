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

CapturedWork::CapturedWork(CapturedWork&& other) noexcept : pieces_(std::exchange(other.pieces_, {})) {}
CapturedWork& CapturedWork::operator=(CapturedWork&& other) noexcept {
    std::swap(pieces_, other.pieces_);
    return *this;
}
CapturedWork::~CapturedWork() {
    if constexpr (has_cuda)
        for (CUgraphExec_st* piece : pieces_) cuda::destroy_graph(piece);
}

void CapturedWork::begin([[maybe_unused]] Stream& stream) {
    if constexpr (has_cuda) return cuda::begin_capture(stream.handle());
    fail("work is captured on a GPU only");
}
void CapturedWork::end([[maybe_unused]] Stream& stream) {
    if constexpr (has_cuda) pieces_.push_back(cuda::end_capture(stream.handle()));
}
void CapturedWork::replay([[maybe_unused]] Stream& stream, [[maybe_unused]] const std::function<void(std::size_t)>& between) const {
    if constexpr (has_cuda) {
        for (std::size_t i = 0; i < pieces_.size(); ++i) {
            if (i > 0) between(i - 1);
            cuda::replay(pieces_[i], stream.handle());
        }
    }
}

}  // namespace rf
