#pragma once
/// Owners of CUDA's events and captured steps. On the CPU, where work is done when a call returns, both do nothing.

#include "core/stream.hpp"

#include <cstddef>
#include <functional>
#include <vector>

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

/// Work of one stream, captured once and replayed with whatever its memory then holds; in pieces where other work, which is not
/// captured, has to come between.
class CapturedWork {
public:
    CapturedWork() = default;
    CapturedWork(CapturedWork&& other) noexcept;
    CapturedWork& operator=(CapturedWork&& other) noexcept;
    ~CapturedWork();
    explicit operator bool() const { return !pieces_.empty(); }
    /// `work` puts operations on the stream and must neither allocate nor wait. It may call cut().
    template <class Work>
    void capture(Stream& stream, const Work& work) {
        begin(stream);
        work();
        end(stream);
    }
    /// Inside of `work`: ends a piece and begins the next.
    void cut(Stream& stream) {
        end(stream);
        begin(stream);
    }
    /// Calls between(i) when piece i is on the stream and another one follows.
    void replay(Stream& stream, const std::function<void(std::size_t)>& between) const;

private:
    static void begin(Stream& stream);
    void end(Stream& stream);
    std::vector<CUgraphExec_st*> pieces_;
};

}  // namespace rf
