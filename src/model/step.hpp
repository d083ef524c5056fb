#pragma once
/// What every block of the model is given while it works on one packed batch.

#include "comm/communicator.hpp"
#include "core/buffer.hpp"
#include "kernels/dropout.hpp"
#include "model/config.hpp"

#include <chrono>
#include <functional>

namespace rf {

/// Sequences laid one after another without padding, and what is asked of them. All views are i32, on the step's device.
/// A batch made to fit a captured step may have tokens after the last sequence: they take part in no attention and get no
/// gradient.
struct BatchView {
    ConstTensor ids;         ///< [T]
    ConstTensor segments;    ///< [T], or absent: all 0
    ConstTensor cu_seqlens;  ///< [S+1]
    ConstTensor sample;      ///< [S] sample number modulo 2^32
    TokenOrigin origin;      ///< [T] each
    ConstTensor id_tokens;   ///< [T] and
    ConstTensor id_begin;    ///< [U+1]: tokens grouped by id (kernels/embedding.hpp), for backward
    std::int64_t longest = 0;  ///< no sequence is longer
    ConstTensor read;         ///< [M] tokens whose last hidden states are asked for, rising; -1 at the end: a row of padding. Absent: all
    TokenOrigin read_origin;  ///< [M] each, theirs
    std::int64_t tokens() const { return ids.count(); }
};

/// Wall time spent in one part of a step. On a GPU it runs only when it may wait for the stream.
struct Stopwatch {
    double seconds = 0;
    bool waits = false;
};

/// Adds the time from its construction to its end.
class Timed {
public:
    Timed(Stopwatch* watch, const Stream& stream) : watch_(watch && (stream.device() == Device::cpu || watch->waits) ? watch : nullptr), stream_(stream) {
        if (watch_) watch_->seconds -= now();
    }
    ~Timed() {
        if (watch_) watch_->seconds += now();
    }
    Timed(const Timed&) = delete;
    Timed& operator=(const Timed&) = delete;

private:
    double now() const {
        stream_.synchronise();
        return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
    }
    Stopwatch* watch_;
    const Stream& stream_;
};

struct StepContext {
    const ModelConfig& model;
    Stream& stream;
    Arena& arena;
    Communicator& tensor;      ///< the ranks that split this copy of the model
    BatchView batch;
    ConstTensor rotary_table;  ///< [P, D/2, 2]
    Scalar alpha = 1;          ///< residual weight of this step
    bool training = false;     ///< dropout on
    bool fresh = false;        ///< gradients of Encoder::overwritten() hold nothing yet: backward overwrites them
    bool keeps = true;         ///< what backward needs; otherwise layers use the same memory one after the other
    std::uint64_t seed = 0;    ///< of dropout
    Stopwatch* backward = nullptr;  ///< counts the time of gradients where present
    /// Where present, backward calls it with an element of the flat gradient: from there on nothing more will be added.
    std::function<void(std::int64_t)> complete = {};

    /// Of products into overwritten gradients.
    double beta() const { return fresh ? 0 : 1; }
    /// Dropout number `detail` at this rate, or none outside training.
    Dropout dropout(double rate, std::uint32_t detail) const { return {training ? rate : 0, seed, detail}; }
};

/// Numbers of the dropouts: 0 embedding, 1 head, then two per layer; attention probabilities count their own.
constexpr std::uint32_t embedding_dropout = 0;
constexpr std::uint32_t head_dropout = 1;
constexpr std::uint32_t branch_dropout(std::int64_t layer, int branch) { return static_cast<std::uint32_t>(2 + 2 * layer + branch); }
/// attention.hpp multiplies by 256 and adds the head; the set bit keeps these apart from the numbers above.
constexpr std::uint32_t attention_dropout(std::int64_t layer) { return static_cast<std::uint32_t>(0x8000 + layer); }

}  // namespace rf
