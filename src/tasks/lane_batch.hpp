#pragma once
/// What one lane of a micro-step works on: packed sequences and what is asked of them.

#include "data/batch.hpp"
#include "tasks/prepared.hpp"

#include <functional>
#include <utility>

namespace rf::tasks {

/// What the head of a task is to learn or to be judged by, as lists of HeadLabels (heads.hpp): E examples, S sequences, Q cells.
struct LabelLists {
    std::vector<std::int32_t> rows;        ///< [S] first token of each sequence
    std::vector<std::int32_t> label;       ///< [E]
    std::vector<float> score;              ///< [S]
    std::vector<std::int32_t> list_begin;  ///< [E+1]
    std::vector<std::int32_t> cells;       ///< [Q, 3]
    std::vector<std::int32_t> cell_begin;  ///< [S+1]
    std::vector<std::int32_t> visible;     ///< [S, 2]
    std::int64_t counted = 0;              ///< what the head's loss is a sum over: examples, or sequences of token-pair kinds
};

/// The head number of masked language modelling; heads of tasks count from 0.
inline constexpr int mlm_head = -1;

struct LaneBatch {
    LaneBatch() = default;
    /// Of masked language modelling.
    explicit LaneBatch(PackedBatch predicted) : packed(std::move(predicted)) {}

    PackedBatch packed;  ///< with predicted positions for the MLM head alone
    int head = mlm_head;
    LabelLists labels;   ///< of another head

    /// What a mean loss is a mean over: predicted tokens, examples or sequences.
    std::int64_t counted() const { return head == mlm_head ? static_cast<std::int64_t>(packed.targets.size()) : labels.counted; }
};

/// Sequences that training examples have, where the kind asks for the same number of each: those of a multiple choice; else 0. Examples
/// of dev and test may have others.
std::int64_t choices_of(const Task& task, const PreparedTask& prepared);

/// Puts sequences of one task into a batch.
class LaneBatchMaker {
public:
    /// May change the ids of sequence `row` of an example before they are packed.
    using Change = std::function<void(std::span<std::int32_t> ids, std::span<const Range> pieces, std::uint32_t row)>;

    LaneBatchMaker(const Task& task, const Prepared& prepared, int head) : task_(task), prepared_(prepared), head_(head) {}
    LaneBatch empty() const;
    /// The whole example; its sequences get the sample numbers `sample`, `sample` + 1, ….
    void add_example(LaneBatch& batch, std::int64_t example, std::uint64_t sample, const Change& change = {}) const;
    /// One sequence alone, of a token-pair kind.
    void add_sequence(LaneBatch& batch, std::int64_t sequence, std::uint64_t sample, const Change& change = {}) const;

private:
    void pack(LaneBatch& batch, std::int64_t sequence, std::uint32_t row, std::uint64_t sample, const Change& change) const;
    const Task& task_;
    const Prepared& prepared_;
    int head_;
};

}  // namespace rf::tasks
