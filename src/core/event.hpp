#pragma once
/// Owners of CUDA's events and captured steps. On the CPU, where work is done when a call returns, both do nothing.

#include "core/stream.hpp"

struct CUevent_st;
struct CUgraphExec_st;

namespace rf {

/// A point in a stream that the host, or another stream, can wait for.
class Event {
public:
    explicit Event(Device device);
    Event(Event&& other) noexcept;
    Event& operator=(Event&&) = delete;
    ~Event();
    void record(const Stream& stream);
    /// Returns at once when nothing was recorded.
    void wait();
    /// What is put on `stream` from now on runs after the point. Nothing recorded: at once.
    void hold(const Stream& stream) const;

private:
    CUevent_st* handle_ = nullptr;
    bool recorded_ = false;
};

/// Work of one stream, captured once and replayed with whatever its memory then holds.
class CapturedWork {
public:
    CapturedWork() = default;
    CapturedWork(CapturedWork&& other) noexcept;
    CapturedWork& operator=(CapturedWork&& other) noexcept;
    ~CapturedWork();
    explicit operator bool() const { return handle_ != nullptr; }
    /// `work` puts operations on the stream and must neither allocate nor wait.
    template <class Work>
    void capture(Stream& stream, const Work& work) {
        begin(stream);
        work();
        end(stream);
    }
    void replay(Stream& stream) const;

private:
    static void begin(Stream& stream);
    void end(Stream& stream);
    CUgraphExec_st* handle_ = nullptr;
};

}  // namespace rf
