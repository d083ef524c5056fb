#pragma once
/// One row of a task as token sequences with their answer: the templates of the task file, truncation, windows, cells.

#include "tasks/prepared.hpp"
#include "tasks/row.hpp"

#include <functional>
#include <map>
#include <string>
#include <unordered_map>
#include <vector>

namespace rf::tasks {

struct Sequence {
    std::vector<std::uint16_t> tokens;
    std::vector<Range> pieces;
    std::vector<Cell> cells;
    Range visible;
    std::vector<std::uint16_t> token_chars;
    std::int32_t text_at = 0;
    float score = 0;  ///< rank
};

struct Example {
    std::vector<Sequence> sequences;
    std::int32_t label = -1;
    float score = 0;    ///< regress
    std::string group;  ///< multiple_choice, rank: key of the group, or empty
    std::string text, id, gold;
    std::int32_t source = 0;
};
void append(const Task& task, const Example& example, std::int32_t group, Prepared& out);

/// Told of everything that an example loses: labels between tokens or across windows (`lost`), marks that contradict the text (`bad`, which
/// may throw), sequences cut short.
struct Losses {
    std::function<void(const std::string&why)> lost, bad;
    std::function<void()> truncated;
};

class ExampleMaker {
public:
    /// Both outlive the maker. Templates that do not parse are UsageErrors.
    ExampleMaker(const Task& task, const Tokenizer& tokenizer);
    /// Throws BadRow. The example of a `rank` row in a group has one sequence; the caller joins them.
    Example make(const Row& row, Split split, const Losses& losses) const;
    /// What identifies the row for the guard: `texts`, or the pieces, and the pieces together.
    std::vector<std::string> texts(const Row& row) const;
    /// What a hashed split is a function of.
    std::string hash_text(const Row& row) const;
    /// Kept by the filters.
    bool is_wanted(const Row& row) const;

private:
    struct CompiledMention {
        std::string each;
        Path id, start, end, ref;
        Template type, text;
        std::string split;
        bool has_id = false, has_start = false, has_end = false, has_ref = false, inclusive = false, first = false, may_be_absent = false;
    };
    struct CompiledRelation {
        std::string each;
        bool chain = false;
        Template type;
        CompiledMention subject, object;
    };
    struct CompiledFilter {
        Template value;
        std::vector<std::string> keep, drop;
    };
    /// Characters of the text that a mark covers.
    struct Found {
        Range range;
        std::string type, id;
    };
    struct Text;
    /// Of a question: what may be answered, and where the answer to learn stands (empty: nowhere).
    struct Answers {
        std::vector<std::string> texts;
        Range place;
        bool none = false;   ///< the question has no answer
        bool known = false;  ///< false where a test part does not tell
    };
    using Ids = std::map<std::string, Range>;

    static CompiledMention compile(const Mention& mention, const json::Place& place);
    std::vector<std::string> render(const std::vector<Template>& templates, const Row& row) const;
    std::vector<std::string> pieces(const Row& row) const;
    Sequence sequence(const std::vector<std::string>& texts, const Losses& losses) const;
    void truncate(std::vector<std::size_t>& sizes, const Losses& losses) const;
    std::int32_t number_of(const std::string& label) const;
    void add_marks(std::string& text, const Row& row) const;
    void find(const CompiledMention& mention, const Row& row, std::u32string_view text, const Ids& ids, const Losses& losses,
              std::vector<Found>& out) const;

    void make_choices(const Row& row, Split split, const Losses& losses, Example& out) const;
    std::vector<Row> choice_rows(const Row& row) const;
    std::int32_t right_choice(const Row& row, const std::vector<Row>& choices) const;
    Answers find_answers(const Row& row, Split split, std::u32string_view context, const Losses& losses) const;
    void make_span(const Row& row, Split split, const Losses& losses, Example& out) const;
    void make_cells(const Row& row, Split split, const Losses& losses, Example& out) const;
    bool has_marks(const Row& row) const;

    const Task& task_;
    const TaskFile& file_;
    const Tokenizer& tokenizer_;
    std::unordered_map<std::string, std::int32_t> label_number_;
    std::vector<Template> input_, texts_, choices_;
    Template label_, answer_, group_, hashed_by_;
    Path id_, choice_list_;
    std::vector<CompiledFilter> filters_;
    std::vector<CompiledMention> marks_, entities_;
    CompiledMention answers_;
    std::vector<CompiledRelation> relations_;
};

/// Letters and digits of a text, in the tokenizer's lower case: what two texts are compared by.
std::string normalised(std::string_view text);

}  // namespace rf::tasks
