#include "tasks/prepared.hpp"
#include "tasks/rows_of.hpp"

#include <algorithm>
#include <cmath>
#include <unordered_map>

namespace rf::tasks {

namespace {

/// Everything that happens to the rows of one task.
class Preparation {
public:
    Preparation(const Task& task, const Tokenizer& tokenizer, const Guard& guard) : task_(task), guard_(guard), maker_(task, tokenizer) {}

    PreparedTask run() {
        const RowVisitor visitor{
            .act = [&](const Row& row, const RowPlace& place, Split split, std::int32_t source) { add(row, place, split, source); },
            .skipped = [&](Split split) { ++counts(split).rows, ++counts(split).dropped["left out by a filter"]; },
            .bad = [&](const BadRow& e, const RowPlace& place, Split split) { ++counts(split).rows, drop(e, place, split); }};
        visit_rows(task_, maker_, {splits.begin(), splits.end()}, visitor);
        for (const Split split : splits) finish(split);
        return std::move(out_);
    }

private:
    Counts& counts(Split split) { return out_.counts[static_cast<int>(split)]; }
    Prepared& part(Split split) { return out_.part[static_cast<int>(split)]; }

    void bad(const std::string& what, const RowPlace& place, Split split) {
        if (++bad_[static_cast<int>(split)] > task_.file.max_bad)
            fail_usage(place, ": ", what, " (task ", task_.file.name, " in ", task_.place.file,
                       task_.file.max_bad > 0 ? message("; more than max_bad ", task_.file.max_bad) : "", ")");
    }
    /// Troubles of one kind differ in what they quote and in numbers: the label "…" is not in the table of n labels.
    static std::string kind_of(std::string what) {
        const std::size_t first = what.find('"'), last = what.rfind('"');
        if (first != last) what.replace(first + 1, last - first - 1, "…");
        std::string out;
        for (const char c : what) {
            const bool digit = std::isdigit(static_cast<unsigned char>(c)) != 0;
            if (!digit) out += c;
            else if (!out.ends_with('n')) out += 'n';
        }
        return out;
    }
    void drop(const BadRow& e, const RowPlace& place, Split split) {
        bad(e.what(), place, split);
        ++counts(split).dropped[kind_of(e.what())];
    }

    void add(const Row& row, const RowPlace& place, Split split, std::int32_t source) {
        Counts& c = counts(split);
        ++c.rows;
        try {
            if (split == Split::train && is_guarded(row)) {
                ++c.dropped["stands in a guarded dev or test part"];
                return;
            }
            std::map<std::string, std::int64_t> lost;
            std::int64_t truncated = 0;
            const Losses losses{.lost = [&](const std::string& why) { ++lost[why]; },
                                .bad = [&](const std::string& why) { bad(why, place, split), ++lost[kind_of(why)]; },
                                .truncated = [&] { ++truncated; }};
            Example example = maker_.make(row, split, losses);
            example.source = source;
            if (example.id.empty()) example.id = std::to_string(c.rows - 1);
            for (const auto& [why, n] : lost) c.lost[why] += n;
            c.truncated += truncated;
            ++c.kept;
            keep(std::move(example), place, split);
        } catch (const BadRow& e) {
            drop(e, place, split);
        }
    }

    bool is_guarded(const Row& row) const {
        if (guard_.size() == 0) return false;
        const std::vector<std::string> texts = maker_.texts(row);
        std::string together, reversed;
        for (const std::string& text : texts) {
            if (guard_.holds(text)) return true;
            together += text, reversed.insert(0, text);
        }
        return texts.size() > 1 && (guard_.holds(together) || guard_.holds(reversed));
    }

    void keep(Example example, const RowPlace& place, Split split) {
        const int s = static_cast<int>(split);
        std::int32_t group = -1;
        if (!example.group.empty()) {
            // Lines are numbered in each file.
            const std::string key = task_.file.group.find("$line") == std::string::npos ? example.group : place.file + '\n' + example.group;
            group = groups_[s].emplace(key, static_cast<std::int32_t>(groups_[s].size())).first->second;
        }
        if (task_.kind != Kind::rank || group < 0) return append_counted(example, group, split);
        std::vector<Example>& lists = lists_[s];
        if (static_cast<std::size_t>(group) == lists.size()) lists.push_back(std::move(example));
        else lists[static_cast<std::size_t>(group)].sequences.push_back(std::move(example.sequences.front()));
    }

    /// Otherwise a list has neither a loss nor a figure.
    static bool has_order(const Example& list) {
        return std::any_of(list.sequences.begin(), list.sequences.end(), [&](const Sequence& s) { return s.score != list.sequences.front().score; });
    }

    void append_counted(const Example& example, std::int32_t group, Split split) {
        count_label(example, counts(split));
        append(task_, example, group, part(split));
    }

    void count_label(const Example& e, Counts& c) const {
        const auto number = [](float value) { return std::isnan(value) ? std::string("unknown") : message(value); };
        switch (task_.kind) {
            case Kind::classify: ++c.histogram[e.label < 0 ? "unknown" : task_.labels[static_cast<std::size_t>(e.label)]]; break;
            case Kind::multiple_choice: ++c.histogram[e.label < 0 ? "unknown" : message("choice ", e.label)]; break;
            case Kind::regress: ++c.histogram[number(e.score)]; break;
            case Kind::rank:
                for (const Sequence& s : e.sequences) ++c.histogram["grade " + number(s.score)];
                break;
            default:
                for (const Sequence& s : e.sequences) {
                    for (const Cell& cell : s.cells) count_cell(cell, c);
                    if (s.cells.empty()) ++c.histogram[task_.kind == Kind::span ? "unknown" : "windows without a mark"];
                }
        }
    }
    void count_cell(const Cell& cell, Counts& c) const {
        if (task_.kind == Kind::span) ++c.histogram[cell.end > 0 ? "windows with the answer" : "windows without"];
        else if (task_.kind != Kind::relations) ++c.histogram[task_.labels[static_cast<std::size_t>(cell.type)]];
        else if (cell.type >= 2 && cell.type % 2 == 0) ++c.histogram[task_.labels[static_cast<std::size_t>(cell.type / 2 - 1)]];
    }

    void finish(Split split) {
        Counts& c = counts(split);
        for (const Example& list : lists_[static_cast<int>(split)]) {
            if (split == Split::test || has_order(list)) {
                append_counted(list, -1, split);
            } else {
                const auto rows = static_cast<std::int64_t>(list.sequences.size());
                c.kept -= rows, c.dropped["in a list of one grade, which has no order"] += rows;
            }
        }
        const Prepared& p = part(split);
        c.examples = p.examples(), c.sequences = p.sequences(), c.tokens = static_cast<std::int64_t>(p.tokens.size());
        std::vector<std::int64_t> lengths;
        for (std::int64_t i = 0; i < p.sequences(); ++i) lengths.push_back(p.length(i));
        std::sort(lengths.begin(), lengths.end());
        constexpr std::array percent{0, 50, 90, 99, 100};
        for (std::size_t i = 0; i < percent.size() && !lengths.empty(); ++i) c.lengths[i] = lengths[(lengths.size() - 1) * percent[i] / 100];
        if (c.examples == 0 && ((split == Split::train && task_.kind != Kind::mlm) || !task_.source(split).empty()))
            fail_usage(task_.place.at(name(split)), ": none of ", c.rows, " rows became an example",
                       c.dropped.empty() ? "" : " (" + c.dropped.begin()->first + ")");
    }

    const Task& task_;
    const Guard& guard_;
    ExampleMaker maker_;
    PreparedTask out_;
    std::int64_t bad_[3] = {};
    std::unordered_map<std::string, std::int32_t> groups_[3];
    std::vector<Example> lists_[3];  ///< rank: candidates gather until the end
};

}  // namespace

PreparedTask prepare(const Task& task, const Tokenizer& tokenizer, const Guard& guard) { return Preparation(task, tokenizer, guard).run(); }

}  // namespace rf::tasks
