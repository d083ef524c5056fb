#pragma once
/// From a corpus to packed batches: which sequences an update sees, how they are dealt to gradient lanes, and the thread
/// that prepares the next update while this one is worked on.

#include "data/masking.hpp"

#include <chrono>
#include <condition_variable>
#include <exception>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

namespace rf {

/// Sequences one after another without padding.
struct PackedBatch {
    std::vector<std::int32_t> ids;          ///< [T]
    std::vector<std::int32_t> position;     ///< [T] 0 at [CLS]
    std::vector<std::int32_t> token_sample; ///< [T]
    std::vector<std::int32_t> sample;       ///< [S] sample number modulo 2^32
    std::vector<std::int32_t> cu_seqlens;   ///< [S+1]
    std::vector<std::int32_t> rows;         ///< [M] predicted positions in the batch
    std::vector<std::int32_t> targets;      ///< [M]

    std::int64_t tokens() const { return static_cast<std::int64_t>(ids.size()); }
    std::int64_t sequences() const { return static_cast<std::int64_t>(sample.size()); }
    double squared_lengths() const;
    void clear();
    void append(const Example& example, std::uint64_t sample_number);
};

/// Lane of each sequence so that lanes hold even token counts: longest first, each to the lane with the fewest tokens so
/// far (lowest number on ties). A pure function of the lengths.
std::vector<int> deal_to_lanes(const std::vector<std::int64_t>& lengths, int lanes);

/// What decides the stream of training samples; all of it is part of a run's identity.
struct SampleStream {
    const Corpus& corpus;
    std::uint64_t seed = 1;
    std::int64_t sequences = 512;   ///< of one update
    std::int64_t max_length = 512;
    int lanes = 1;
    Window window = Window::head;
    Masking masking;
    SpecialIds special;
    std::int64_t vocab_size = 12000;
    std::int64_t held_out = 0;      ///< documents kept for evaluation: a fixed draw, whatever the seed

    /// Document of sample i: epoch i / n of a fresh permutation of the n training documents.
    std::int64_t document_of(std::int64_t sample) const;
    std::int64_t training_documents() const { return corpus.documents() - held_out; }
    /// Packed batches of lanes [first, first + count) of an update.
    std::vector<PackedBatch> lanes_of(std::int64_t update, int first, int count) const;
    /// Held-out documents [begin, end) with masks that never change.
    PackedBatch held_out_batch(std::int64_t begin, std::int64_t end) const;
};

/// Makes what updates work on, one ahead on a thread of its own: `make(n)` for n = first, first + 1, ….
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
