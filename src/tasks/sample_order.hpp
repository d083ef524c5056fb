#pragma once
/// In which order a task's training rows are learnt from, and the packed batches of its micro-steps.

#include "tasks/lane_batch.hpp"

namespace rf::tasks {

/// Sample numbers of a micro-step, so that its sequences have dropout masks of their own; 2^32 numbers last for 2^18 micro-steps.
inline constexpr std::uint64_t samples_of_micro_step = 1 << 14;

/// Training rows of one task in an endless order: epoch after epoch, each a fresh permutation, a pure function of (seed, task, number).
/// A unit is an example; of token-pair kinds a single sequence, since each has a loss of its own. Of a span task half of any run of
/// units at most (to within one) has no answer: these windows are spread evenly among the others.
class SampleOrder {
public:
    SampleOrder(const Task& task, const Prepared& train, int head, std::uint64_t seed, bool corrupt, const SpecialIds& special, std::int64_t vocab_size);

    /// Units of an epoch.
    std::int64_t epoch() const { return epoch_; }
    /// Sequences of a unit, on average.
    double sequences_of_unit() const;
    /// Number of unit `i`: an example, or a sequence.
    std::int64_t unit(std::int64_t i) const;
    /// Units [begin, end) dealt to `lanes` lanes of even token counts; lanes [first, first + count) of them. Their sequences get sample
    /// numbers from `sample` on.
    std::vector<LaneBatch> lanes_of(std::int64_t begin, std::int64_t end, std::uint64_t sample, int lanes, int first, int count) const;

private:
    const Task& task_;
    const Prepared& train_;
    LaneBatchMaker maker_;
    std::uint64_t seed_;
    bool corrupt_, by_sequence_;
    SpecialIds special_;
    std::int64_t vocab_size_;
    std::vector<std::int64_t> unanswered_;  ///< span: windows without an answer
    std::vector<std::int64_t> answered_;    ///< span: the others
    std::int64_t epoch_ = 0, without_ = 0;  ///< without_: units of an epoch that have no answer
};

}  // namespace rf::tasks
