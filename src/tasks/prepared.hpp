#pragma once
/// Rows of a task as token ids, made once and kept in an HDF5 cache. E examples, N sequences, T tokens, P pieces, Q cells.
///
/// No more than half of the sequences a span task trains on in a batch may be without an answer (RoFormerV2's multi-task loader): the batch
/// maker's business, told by a cell (0, 0).
///
/// An example is what gets one answer: one sequence (classify, regress), the rows of its choices (multiple_choice), the candidates of
/// a list (rank), the windows of a text (span, entities, relations, events).

#include "tasks/guard.hpp"
#include "tasks/task_file.hpp"
#include "text/tokenizer.hpp"

#include <array>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace rf::tasks {

/// A half-open range of tokens of one sequence, or of characters.
struct Range {
    std::int32_t begin = 0, end = 0;
    bool operator==(const Range&) const = default;
};

/// A gold cell of the token-pair table: tokens counted from the sequence's [CLS], both inclusive. What the types mean:
/// Task::cell_types.
struct Cell {
    std::int32_t type = 0, start = 0, end = 0;
    auto operator<=>(const Cell&) const = default;
};

/// Many texts in one buffer.
class Texts {
public:
    std::size_t size() const { return begin.size() - 1; }
    std::string_view operator[](std::int64_t i) const {
        const auto from = static_cast<std::size_t>(begin[static_cast<std::size_t>(i)]);
        return std::string_view(bytes.data(), bytes.size()).substr(from, static_cast<std::size_t>(begin[static_cast<std::size_t>(i) + 1]) - from);
    }
    void add(std::string_view text) {
        bytes.insert(bytes.end(), text.begin(), text.end());
        begin.push_back(static_cast<std::int64_t>(bytes.size()));
    }
    std::vector<char> bytes;
    std::vector<std::int64_t> begin{0};
};

struct Prepared {
    std::vector<std::uint16_t> tokens;           ///< [T] with [CLS] and [SEP]
    std::vector<std::int64_t> sequence_begin{0}; ///< [N+1] first token of each
    std::vector<std::int64_t> example_begin{0};  ///< [E+1] first sequence of each
    std::vector<Range> pieces;                   ///< [P] inner tokens, without specials; each is corrupted by itself
    std::vector<std::int64_t> piece_begin{0};    ///< [N+1]
    std::vector<std::int32_t> label;             ///< [E] classify: class; multiple_choice: right row; -1: not known (test parts)
    std::vector<float> score;                    ///< regress [E]; rank [N] grade of each candidate; NaN: not known
    std::vector<std::int32_t> group;             ///< [E] multiple_choice: examples of one number share their choices; else empty
    std::vector<std::int32_t> source;            ///< [E] which of the split's sources (test parts of CLUE 1.0 and 1.1)
    std::vector<Cell> cells;                     ///< [Q] gold, sorted; span: no cell means (0, 0), the window has no answer
    std::vector<std::int64_t> cell_begin{0};     ///< [N+1]
    std::vector<Range> visible;                  ///< [N] tokens that may be answers (with [CLS] for span); token-pair kinds only
    std::vector<std::uint16_t> token_chars;      ///< [T, 2] characters a token covers, counted from text_at of its sequence; token-pair kinds only
    std::vector<std::int32_t> text_at;           ///< [N] where the sequence's window begins in the example's text; token-pair kinds only
    Texts text;                                  ///< [E] token-pair kinds: the text that answers are cut from; else empty
    Texts id;                                    ///< [E] as the data name it
    Texts gold;                                  ///< [E] JSON of what a scorer compares with: answers, entities, triples; else empty

    std::int64_t examples() const { return static_cast<std::int64_t>(example_begin.size()) - 1; }
    std::int64_t sequences() const { return static_cast<std::int64_t>(sequence_begin.size()) - 1; }
    std::int64_t length(std::int64_t sequence) const { return sequence_begin[static_cast<std::size_t>(sequence) + 1] - sequence_begin[static_cast<std::size_t>(sequence)]; }
    std::span<const std::uint16_t> sequence(std::int64_t i) const { return part(tokens, sequence_begin, i); }
    std::span<const Range> pieces_of(std::int64_t i) const { return part(pieces, piece_begin, i); }
    std::span<const Cell> cells_of(std::int64_t i) const { return part(cells, cell_begin, i); }

private:
    template <class T>
    static std::span<const T> part(const std::vector<T>& all, const std::vector<std::int64_t>& begin, std::int64_t i) {
        const auto from = static_cast<std::size_t>(begin[static_cast<std::size_t>(i)]), to = static_cast<std::size_t>(begin[static_cast<std::size_t>(i) + 1]);
        return std::span(all).subspan(from, to - from);
    }
};

/// Some examples alone, in the order given.
Prepared subset(const Prepared& all, std::span<const std::int64_t> examples);

/// What preparation met in one split, for the report.
struct Counts {
    std::int64_t rows = 0;       ///< read; dropped ones among them
    std::int64_t kept = 0;       ///< rows that became examples, or candidates of one
    std::int64_t examples = 0, sequences = 0, tokens = 0;
    std::int64_t truncated = 0;  ///< sequences (of spans: questions) that lost tokens
    std::map<std::string, std::int64_t> dropped;    ///< rows: why, how many
    std::map<std::string, std::int64_t> lost;       ///< labels of kept rows: why, how many
    std::map<std::string, std::int64_t> histogram;  ///< label (of cells: type), how many
    std::array<std::int64_t, 5> lengths{};          ///< percentiles 0, 50, 90, 99, 100 of the sequences' tokens
};
BOOST_DESCRIBE_STRUCT(Counts, (), (rows, kept, examples, sequences, tokens, truncated))

struct PreparedTask {
    Prepared part[3];  ///< by Split
    Counts counts[3];
    bool cached = false;
    const Prepared& operator[](Split split) const { return part[static_cast<int>(split)]; }
};

/// All splits, from their sources. Bad rows and marks beyond max_bad are UsageErrors with file and line.
PreparedTask prepare(const Task& task, const Tokenizer& tokenizer, const Guard& guard);

/// The same through the cache: `<folder>/<task>-<key>.h5`, whose key is a digest of sources, task file, vocabulary and guard. A process
/// that finds none makes it, whole or not at all: let one rank do it before the others.
PreparedTask prepare(const Task& task, const Tokenizer& tokenizer, const Guard& guard, const std::string& cache_folder);

}  // namespace rf::tasks
