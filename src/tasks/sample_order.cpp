#include "tasks/sample_order.hpp"

#include "data/corpus.hpp"
#include "tasks/corrupt.hpp"
#include "tasks/rows_of.hpp"

#include <algorithm>

namespace rf::tasks {

namespace {
/// Tells the orders of a task's answered and unanswered windows apart.
constexpr std::uint64_t unanswered_key = 0x9e3779b97f4a7c15;  // 2^64 / golden ratio
}  // namespace

SampleOrder::SampleOrder(const Task& task, const Prepared& train, int head, std::uint64_t seed, bool corrupt, const SpecialIds& special, std::int64_t vocab_size)
    : task_(task),
      train_(train),
      maker_(task, train, head),
      seed_(seed ^ text_hash(task.file.name).low),
      corrupt_(corrupt),
      by_sequence_(info(task.kind).has_cells),
      special_(special),
      vocab_size_(vocab_size) {
    epoch_ = by_sequence_ ? train.sequences() : train.examples();
    if (task.kind != Kind::span) return;
    for (std::int64_t s = 0; s < train.sequences(); ++s) {
        const auto cells = train.cells_of(s);
        (cells.empty() || (cells[0].start == 0 && cells[0].end == 0) ? unanswered_ : answered_).push_back(s);
    }
    if (answered_.empty()) fail_usage(task.place.at("train"), ": no window of a training row holds its answer");
    without_ = std::min(unanswered_.size(), answered_.size());
    epoch_ = static_cast<std::int64_t>(answered_.size()) + without_;
}

double SampleOrder::sequences_of_unit() const {
    return by_sequence_ ? 1 : static_cast<double>(train_.sequences()) / static_cast<double>(std::max<std::int64_t>(train_.examples(), 1));
}

std::int64_t SampleOrder::unit(std::int64_t i) const {
    const auto shuffled = [](std::int64_t n, std::int64_t size, std::uint64_t seed) { return permute(n % size, size, seed, static_cast<std::uint32_t>(n / size)); };
    if (answered_.empty()) return shuffled(i, epoch_, seed_);
    // Of the first n units floor(n without / epoch) have no answer.
    const std::int64_t round = i / epoch_, at = i % epoch_;
    const std::int64_t before = at * without_ / epoch_, after = (at + 1) * without_ / epoch_;
    if (after > before)
        return unanswered_[static_cast<std::size_t>(shuffled(round * without_ + before, static_cast<std::int64_t>(unanswered_.size()), seed_ ^ unanswered_key))];
    const auto n = static_cast<std::int64_t>(answered_.size());
    return answered_[static_cast<std::size_t>(shuffled(round * n + at - before, n, seed_))];
}

std::vector<LaneBatch> SampleOrder::lanes_of(std::int64_t begin, std::int64_t end, std::uint64_t sample, int lanes, int first, int count) const {
    const auto n = static_cast<std::size_t>(end - begin);
    std::vector<std::int64_t> units(n), lengths(n);
    std::vector<std::uint64_t> samples(n);
    for (std::size_t i = 0; i < n; ++i) {
        const std::int64_t u = units[i] = unit(begin + static_cast<std::int64_t>(i));
        const auto at = static_cast<std::size_t>(u);
        const std::int64_t from = by_sequence_ ? u : train_.example_begin[at], to = by_sequence_ ? u + 1 : train_.example_begin[at + 1];
        lengths[i] = train_.sequence_begin[static_cast<std::size_t>(to)] - train_.sequence_begin[static_cast<std::size_t>(from)];
        samples[i] = sample;
        sample += static_cast<std::uint64_t>(to - from);
    }
    const std::vector<int> lane_of = deal_to_lanes(lengths, lanes);
    std::vector<LaneBatch> batches(static_cast<std::size_t>(count), maker_.empty());
    for (std::size_t i = 0; i < n; ++i) {
        if (lane_of[i] < first || lane_of[i] >= first + count) continue;
        LaneBatch& batch = batches[static_cast<std::size_t>(lane_of[i] - first)];
        const LaneBatchMaker::Change change = [&](std::span<std::int32_t> ids, std::span<const Range> pieces, std::uint32_t row) {
            if (corrupt_) corrupt(ids, pieces, special_, vocab_size_, seed_, static_cast<std::uint64_t>(begin) + i, row);
        };
        if (by_sequence_) maker_.add_sequence(batch, units[i], samples[i], change);
        else maker_.add_example(batch, units[i], samples[i], change);
    }
    return batches;
}

}  // namespace rf::tasks
