#pragma once
/// One supervised task, described by one JSON file: where its rows are, what their fields mean, how a row becomes token sequences.
///
/// Two small languages name the parts of a row. A *path* is keys and list indices joined by dots (`target.span1_text`, `answers.0`);
/// a *template* is text with paths in braces (`{name}与{place}`; `{keyword|；}` joins a list by what follows the bar). Where the rows
/// are items of a list inside a record (`each`), a name is looked up in the item, then in what holds it, and so on outwards; a
/// leading `^` starts the search one level further out. Entries of an object have `$key` and `$value`; `{$line}` is the line of a row.

#include "io/json.hpp"

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace rf::tasks {

/// What an example asks for; decides head, loss and metrics. `kinds()` is the one table of them.
enum class Kind { mlm, classify, regress, multiple_choice, span, entities, relations, events, rank };

struct KindInfo {
    Kind kind;
    std::string name;
    std::vector<std::string> metrics;  ///< the first is the default
    bool has_labels;                   ///< `labels` is a table that every example's label or type is looked up in
    bool has_cells;                    ///< labels are cells of a token-pair table
};
const std::vector<KindInfo>& kinds();
const KindInfo& info(Kind kind);

/// A second file whose rows are found by a key; its fields are looked up last.
struct Join {
    json::value files = nullptr;       ///< empty: no join
    std::string format = "tsv";
    std::vector<std::string> columns;
    std::string pattern;
    std::string key;        ///< path in the row
    std::string other_key;  ///< path in the second file's row; empty: the same
};
BOOST_DESCRIBE_STRUCT(Join, (), (files, format, columns, pattern, key, other_key))

/// A text with numbered gaps: every gap is a row with `left`, `right`, `blank` (its mark) and `number` (from 0).
struct Blanks {
    std::string text;                ///< path of the text; empty: the item itself
    std::string pattern;             ///< regular expression of a mark; empty: no gaps
    std::string others = "_____";    ///< stands for the other gaps
    std::int64_t keep = 0;           ///< characters kept around a gap, taken from the outer end of the longer side; 0: all
};
BOOST_DESCRIBE_STRUCT(Blanks, (), (text, pattern, others, keep))

/// How a file becomes rows (readers.hpp has the table of formats).
struct Reader {
    std::string format = "jsonl";
    std::vector<std::string> columns;  ///< tsv, csv: names of the columns (none: the first line has them); pattern: of the groups; blocks: of the lines
    std::string pattern;               ///< pattern: a regular expression that every line matches; conll: with two groups, character and tag
    std::string each;                  ///< path of the list whose items are the rows; "*": the record itself is the list
    Blanks blanks;
    Join join;
};
BOOST_DESCRIBE_STRUCT(Reader, (), (format, columns, pattern, each, blanks, join))

/// Files of one split, with the reader they need.
struct Source {
    std::vector<std::string> files;
    Reader reader;
};

/// A stretch of the text, or several: the items of `each`.
struct Mention {
    std::string each;              ///< path of the list; empty: the row itself
    std::string id;                ///< path of a name that relations refer to
    std::string type;              ///< template of the label
    std::string text;              ///< template; without `start` every place where it stands is meant
    std::string split;             ///< the text is several, separated by this
    std::string start, end;        ///< paths of character positions
    std::string ends = "exclusive";  ///< or "inclusive"
    std::string ref;               ///< path of the id of another mention, in place of all above
    std::string places = "all";    ///< of a text without `start`: "all" or "first"
    bool may_be_absent = false;    ///< a text that stands nowhere is no error
};
BOOST_DESCRIBE_STRUCT(Mention, (), (each, id, type, text, split, start, end, ends, ref, places, may_be_absent))

struct Relation {
    std::string each;
    bool chain = false;  ///< the item is a list (of coreferring marks): each of it and the next are a pair, `0` and `1`
    std::string type;    ///< template of the label
    Mention subject, object;
};
BOOST_DESCRIBE_STRUCT(Relation, (), (each, chain, type, subject, object))

/// Rows are kept when the value is in `keep` (where given) and not in `drop`; rows without the field (labels of test parts) are kept.
struct Filter {
    std::string value;  ///< template
    std::vector<std::string> keep, drop;
};
BOOST_DESCRIBE_STRUCT(Filter, (), (value, keep, drop))

/// Parts of `train` that are held out: a fixed function of the text, so the same rows on every machine, whatever their order.
struct Hashed {
    double dev = 0, test = 0;  ///< shares
    std::string by;            ///< template of what is hashed; empty: the first piece of the input (rows of one passage stay together)
};
BOOST_DESCRIBE_STRUCT(Hashed, (), (dev, test, by))

/// A text longer than `max_length` is read in windows. Of a span task they overlap; of entities, relations and events they follow one
/// another, cut at the end of a sentence where the second half of a window has one.
struct Windows {
    std::int64_t stride = 128;            ///< span: characters from window to window, at most a window
    std::int64_t longest_question = 128;  ///< span: characters; training rows with a longer one are dropped, others cut there
};
BOOST_DESCRIBE_STRUCT(Windows, (), (stride, longest_question))

struct HeadOptions {
    std::int64_t size = 64;  ///< per type, of token-pair heads
};
BOOST_DESCRIBE_STRUCT(HeadOptions, (), (size))

/// Answer files for a benchmark: written from the test part where the task has one (submission.hpp has the forms).
struct Submission {
    std::vector<std::string> files;  ///< of each source of `test`, in their order; empty: none is written
    std::string form;                ///< labels, answers, choices or entities
};
BOOST_DESCRIBE_STRUCT(Submission, (), (files, form))

struct TaskFile {
    std::string name;
    std::string kind;
    std::string about;                     ///< a line for readers
    Reader reader;                         ///< of all splits that do not bring their own
    json::value train = nullptr, dev = nullptr, test = nullptr;  ///< a path, or a list of paths and of {"files", "reader"}
    Hashed hashed;
    std::vector<Filter> filters;
    std::vector<std::string> input;        ///< templates of the pieces: [CLS] piece [SEP] piece [SEP] …
    std::string truncate = "longest";      ///< which piece gives up tokens: the longest (of equals the first), or "longest_last" (of equals the last; C3)
    std::string id = "id";                 ///< path; rows without one are numbered
    std::string label;                     ///< template: of the class, the score, the grade
    json::value labels = nullptr;          ///< the table in its order: a list, or {"files", "reader", "value"}
    std::vector<Mention> mark;             ///< wrapped in [[ ]] in the first piece
    std::string group;                     ///< template; rank: rows of one list; multiple_choice: rows whose answers must differ
    json::value choices = nullptr;         ///< a path of a list, or templates; {choice} in the input stands for each
    std::string choices_split;             ///< the path names one text, separated by this
    std::string answer;                    ///< template of the right choice
    std::string answer_is = "index";       ///< index, letter (A …) or text
    std::int64_t pad_choices = 0;          ///< fewer are filled up with `pad_text`
    std::string pad_text = "无效答案";
    std::vector<double> grades;            ///< rank with `choices`: of each
    Mention answers;                       ///< span: input is [question, context]; the answers in the context
    std::vector<std::string> no_answer;    ///< span: texts that say so; empty: every question has an answer
    std::vector<Mention> entities;         ///< entities, relations, events: input is [text]
    std::vector<Relation> relations;
    std::int64_t max_length = 128;         ///< tokens, [CLS] and [SEP] included
    Windows windows;
    HeadOptions head;
    std::string metric;                    ///< empty: the kind's first
    double weight = 1;
    bool corrupt = true;                   ///< masked_encode on training inputs (corrupt.hpp)
    bool guard = false;                    ///< texts of dev and test may stand in no task's training rows
    std::vector<std::string> texts;        ///< templates of these texts; empty: every piece
    Submission submission;
    std::int64_t max_bad = 0;              ///< rows and marks of a split that do not fit; they are dropped and counted, one more is an error
};
BOOST_DESCRIBE_STRUCT(TaskFile, (),
                      (name, kind, about, reader, train, dev, test, hashed, filters, input, truncate, id, label, labels, mark, group, choices, choices_split,
                       answer, answer_is, pad_choices, pad_text, grades, answers, no_answer, entities, relations, max_length, windows, head, metric, weight,
                       corrupt, guard, texts, submission, max_bad))

enum class Split { train, dev, test };
inline constexpr std::array splits{Split::train, Split::dev, Split::test};
const char* name(Split split);

/// A task file, read and checked: everything that can be told without its data.
struct Task {
    TaskFile file;
    Kind kind = Kind::classify;
    json::Place place;                 ///< the file, for messages
    std::string data;                  ///< folder that the paths of files start from
    std::vector<std::string> labels;   ///< the table; empty where the kind has none
    std::vector<Source> sources[3];    ///< by Split

    const std::vector<Source>& source(Split split) const { return sources[static_cast<int>(split)]; }
    std::int64_t label_count() const { return static_cast<std::int64_t>(labels.size()); }
    /// Number of a label, or -1.
    std::int64_t find_label(std::string_view label) const;
    /// Types of cells: spans 1; entities and events one a label; relations subject, object, then (heads, tails) of each label.
    std::int64_t cell_types() const;
    /// Whether cells of this type lie on or above the diagonal (start <= end); pairs of heads and of tails need not.
    bool cell_is_ordered(std::int64_t type) const;
};

/// The task that a checkpoint was made for, without its data: file and labels as they were stored.
Task stored_task(const json::value& file, const json::value& labels, const json::Place& place);

/// Reads task files. `data`: the folder their paths start from; empty: the folder of each file. Errors are UsageErrors with file and
/// key: unknown key, kind, metric or format, a file that is absent, two tasks of one name.
std::vector<Task> read_tasks(const std::vector<std::string>& files, const std::string& data);

}  // namespace rf::tasks
