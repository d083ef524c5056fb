#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

namespace rf {

/// Makes what somebody works on, one ahead on a thread of its own: `make(n)` for n = first, first + 1, ….
template <class Work>
class Prefetcher {
public:
    Prefetcher(std::function<Work(std::int64_t)> make, std::int64_t first) : make_(std::move(make)), thread_([this, first] { work(first); }) {}
    ~Prefetcher() {
        {
            const std::lock_guard hold(mutex_);
            stop_ = true;
        }
        changed_.notify_all();
        thread_.join();
    }
    Prefetcher(const Prefetcher&) = delete;
    Prefetcher& operator=(const Prefetcher&) = delete;

    /// The next one; waits when it is not ready. Errors of the thread come out here.
    Work next() {
        const auto begin = std::chrono::steady_clock::now();
        std::unique_lock hold(mutex_);
        changed_.wait(hold, [this] { return ready_ || error_; });
        if (error_) std::rethrow_exception(error_);
        Work made = std::move(*ready_);
        ready_.reset();
        changed_.notify_all();
        waited_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
        return made;
    }
    /// Seconds spent waiting so far.
    double waited() const { return waited_; }

private:
    void work(std::int64_t n) {
        try {
            while (true) {
                Work made = make_(n++);
                std::unique_lock hold(mutex_);
                changed_.wait(hold, [this] { return stop_ || !ready_; });
                if (stop_) return;
                ready_ = std::move(made);
                changed_.notify_all();
            }
        } catch (...) {
            const std::lock_guard hold(mutex_);
            error_ = std::current_exception();
            changed_.notify_all();
        }
    }

    std::function<Work(std::int64_t)> make_;
    double waited_ = 0;
    std::mutex mutex_;
    std::condition_variable changed_;
    std::optional<Work> ready_;
    std::exception_ptr error_;
    bool stop_ = false;
    std::thread thread_;
};

}  // namespace rf
