#pragma once
/// A packed batch where the model's device can read it.

#include "core/event.hpp"
#include "data/batch.hpp"
#include "model/mlm_head.hpp"
#include "tasks/heads.hpp"
#include "tasks/lane_batch.hpp"

#include <compare>

namespace rf {

/// What a captured step is made for. Steps of nearly the same size share one.
struct BatchSizes {
    std::int64_t tokens = 0, sequences = 0, targets = 0;
    std::int64_t ids = 0;      ///< different ids
    std::int64_t longest = 0;
    int head = tasks::mlm_head;
    std::int64_t examples = 0, cells = 0;  ///< of a task
    friend auto operator<=>(const BatchSizes&, const BatchSizes&) = default;

    /// The batch's own.
    static BatchSizes of(const tasks::LaneBatch& batch, const IdGroups& groups);
    /// Each rounded up to a multiple of a sixteenth to an eighth of itself (and of 16): 3 % more tokens on average. Where every example
    /// has the same number of sequences the padded ones have it too.
    BatchSizes bucket() const;
};

/// Pinned host memory in turn: a piece is written again only when the copies from it are done.
class Staging {
public:
    Staging(Device device, std::size_t pieces);
    /// Hands the next piece, at least `bytes` long, to `send(memory)`, which writes there and puts copies from it on the stream.
    template <class Send>
    void pass(const Stream& stream, std::int64_t bytes, const Send& send) {
        Piece& piece = next(bytes);
        send(piece.memory.data());
        piece.copied.record(stream);
    }

private:
    struct Piece {
        Buffer memory;
        Event copied;
    };
    Piece& next(std::int64_t bytes);

    Device device_;
    std::vector<Piece> pieces_;
    std::size_t at_ = 0;
};

/// One batch on the device: on the CPU views of the batch itself, else a copy padded to `sizes` (BatchView, MlmHead and HeadLabels
/// say what padding means). Views hold until the next `load`.
class DeviceBatch {
public:
    void load(Stream& stream, Staging& staging, const tasks::LaneBatch& batch, const BatchSizes& sizes, IdGroups groups);
    /// What is read are the predicted positions, or the first token of each sequence of a task.
    const BatchView& view() const { return view_; }
    /// [M] of predicted positions.
    const ConstTensor& targets() const { return targets_; }
    int head() const { return head_; }
    /// Of a task's head, without `rotary`.
    const tasks::HeadLabels& labels() const { return labels_; }

private:
    void view_host(const tasks::LaneBatch& batch, std::int64_t longest);

    IdGroups groups_;
    std::vector<std::int32_t> read_sample_, read_position_;
    Buffer memory_;
    BatchView view_;
    ConstTensor targets_;
    int head_ = tasks::mlm_head;
    tasks::HeadLabels labels_;
};

}  // namespace rf
