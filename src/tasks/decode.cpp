#include "tasks/decode.hpp"

#include "tasks/assignment.hpp"
#include "text/unicode.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>

namespace rf::tasks {

namespace {

template <class T>
std::span<const T> part(const std::vector<T>& all, std::int64_t from, std::int64_t to) {
    return std::span(all).subspan(static_cast<std::size_t>(from), static_cast<std::size_t>(to - from));
}

template <class T>
T at(const std::vector<T>& all, std::int64_t i) {
    return all[static_cast<std::size_t>(i)];
}

/// Characters from the first of a token to the last of another, both of one window.
Range characters(const Prepared& p, std::int64_t sequence, std::int64_t first, std::int64_t last) {
    RF_REQUIRE(first >= 0 && first <= last && last < p.length(sequence), "tokens ", first, " to ", last, " of a sequence of ", p.length(sequence));
    const std::int64_t begin = at(p.sequence_begin, sequence);
    const std::int32_t from = at(p.text_at, sequence);
    return {from + at(p.token_chars, 2 * (begin + first)), from + at(p.token_chars, 2 * (begin + last) + 1)};
}

/// The cells of a window by type, of each type the best.
std::map<std::int32_t, std::vector<FoundCell>> cells_by_type(const Prepared& p, const Outputs& outputs, std::int64_t sequence) {
    std::map<std::int32_t, std::vector<FoundCell>> out;
    for (const FoundCell& cell : part(outputs.cells, at(outputs.cell_begin, sequence), at(outputs.cell_begin, sequence + 1))) out[cell.type].push_back(cell);
    for (auto& [type, cells] : out) keep_best(cells, static_cast<std::size_t>(p.length(sequence)));
    return out;
}

/// Puts findings in order and keeps, of those that `key` holds equal, the one of the highest score.
template <class T, class Key>
void sort_and_join(std::vector<T>& found, Key key) {
    std::sort(found.begin(), found.end(), [&](const T& a, const T& b) { return std::tuple(key(a), -a.score) < std::tuple(key(b), -b.score); });
    found.erase(std::unique(found.begin(), found.end(), [&](const T& a, const T& b) { return key(a) == key(b); }), found.end());
}

auto key(const Range& r) { return std::tuple(r.begin, r.end); }

}  // namespace

void check_outputs(const Task& task, const Prepared& prepared, const Outputs& outputs) {
    RF_REQUIRE(task.kind != Kind::mlm, "a task of kind mlm has no answers");
    RF_REQUIRE(outputs.sequences() == prepared.sequences(), "outputs of ", outputs.sequences(), " sequences for the ", prepared.sequences(), " of task ",
               task.file.name);
    if (!info(task.kind).has_cells) {
        const std::int64_t width = task.kind == Kind::classify ? task.label_count() : 1;
        RF_REQUIRE(prepared.sequences() == 0 || outputs.width == width, "task ", task.file.name, " has ", width, " scores a sequence, not ", outputs.width);
    }
    if (task.kind == Kind::span) {
        const auto n = static_cast<std::size_t>(prepared.sequences());
        RF_REQUIRE(outputs.cells.size() == n && outputs.probability.size() == n && outputs.no_answer.size() == n,
                   "a span task has one cell, one probability and one judgement a sequence");
    }
    RF_REQUIRE(prepared.group.empty() || prepared.group.size() == static_cast<std::size_t>(prepared.examples()), "some examples have a group, some have none");
}

std::span<const float> scores_of(const Prepared& prepared, const Outputs& outputs, std::int64_t example) {
    return part(outputs.logits, at(prepared.example_begin, example) * outputs.width, at(prepared.example_begin, example + 1) * outputs.width);
}

std::int64_t greatest(std::span<const float> scores) { return std::max_element(scores.begin(), scores.end()) - scores.begin(); }

std::vector<double> softmax(std::span<const float> scores) {
    std::vector<double> out(scores.begin(), scores.end());
    if (out.empty()) return out;
    const double top = *std::max_element(out.begin(), out.end());
    double sum = 0;
    for (double& p : out) sum += p = std::exp(p - top);
    for (double& p : out) p /= sum;
    return out;
}

double sigmoid(double score) { return 1 / (1 + std::exp(-score)); }

std::vector<std::int64_t> assigned_choices(const Prepared& prepared, const Outputs& outputs) {
    std::map<std::int32_t, std::vector<std::int64_t>> groups;
    for (std::int64_t e = 0; e < prepared.examples(); ++e) groups[at(prepared.group, e)].push_back(e);
    std::vector<std::int64_t> out(static_cast<std::size_t>(prepared.examples()));
    for (const auto& [group, members] : groups) {
        std::vector<float> scores;
        const std::size_t choices = scores_of(prepared, outputs, members.front()).size();
        for (const std::int64_t e : members) {
            const std::span<const float> row = scores_of(prepared, outputs, e);
            if (row.size() != choices)
                fail_usage("examples \"", prepared.id[members.front()], "\" and \"", prepared.id[e], "\" are of one group and have ", choices, " and ", row.size(),
                           " choices: those of a group share them");
            scores.insert(scores.end(), row.begin(), row.end());
        }
        const std::vector<std::int64_t> taken = assign(scores, static_cast<std::int64_t>(choices));
        for (std::size_t i = 0; i < members.size(); ++i) out[static_cast<std::size_t>(members[i])] = taken[i];
    }
    return out;
}

std::string cut(std::u32string_view text, Range characters) {
    RF_REQUIRE(characters.begin >= 0 && characters.begin <= characters.end && static_cast<std::size_t>(characters.end) <= text.size(), "characters ",
               characters.begin, " to ", characters.end, " of a text of ", text.size());
    return encode_utf8(text.substr(static_cast<std::size_t>(characters.begin), static_cast<std::size_t>(characters.end - characters.begin)));
}

std::vector<SpanAnswer> span_answers(const Task& task, const Prepared& prepared, const Outputs& outputs) {
    const bool may_be_none = !task.file.no_answer.empty();
    std::vector<SpanAnswer> out(static_cast<std::size_t>(prepared.examples()));
    for (std::int64_t e = 0; e < prepared.examples(); ++e) {
        SpanAnswer& answer = out[static_cast<std::size_t>(e)];
        answer.none = may_be_none;
        for (std::int64_t s = at(prepared.example_begin, e); s < at(prepared.example_begin, e + 1); ++s) {
            if (may_be_none && at(outputs.no_answer, s) != 0) continue;
            answer.none = false;
            const FoundCell cell = at(outputs.cells, s);
            // A window without a token to answer with has the cell (0, 0).
            if (cell.end > 0 && (answer.sequence < 0 || cell.score > answer.cell.score)) answer.sequence = s, answer.cell = cell;
        }
        if (answer.sequence < 0) continue;
        answer.characters = characters(prepared, answer.sequence, answer.cell.start, answer.cell.end);
        answer.text = cut(decode_utf8(prepared.text[e]), answer.characters);
        answer.probability = at(outputs.probability, answer.sequence);
    }
    return out;
}

std::vector<std::vector<Entity>> entities(const Prepared& prepared, const Outputs& outputs) {
    std::vector<std::vector<Entity>> out(static_cast<std::size_t>(prepared.examples()));
    for (std::int64_t e = 0; e < prepared.examples(); ++e) {
        std::vector<Entity>& found = out[static_cast<std::size_t>(e)];
        for (std::int64_t s = at(prepared.example_begin, e); s < at(prepared.example_begin, e + 1); ++s)
            for (const auto& [type, cells] : cells_by_type(prepared, outputs, s))
                for (const FoundCell& cell : cells) found.push_back({type, characters(prepared, s, cell.start, cell.end), cell.score});
        sort_and_join(found, [](const Entity& x) { return std::tuple(key(x.characters), x.type); });
    }
    return out;
}

namespace {

/// The triples of one window.
void find_triples(const Task& task, const Prepared& p, const Outputs& outputs, std::int64_t sequence, std::vector<Triple>& found) {
    auto cells = cells_by_type(p, outputs, sequence);
    std::multimap<std::int32_t, FoundCell> subjects, objects;  // by first token
    for (const FoundCell& cell : cells[0]) subjects.emplace(cell.start, cell);
    for (const FoundCell& cell : cells[1]) objects.emplace(cell.start, cell);
    for (std::int32_t label = 0; label < static_cast<std::int32_t>(task.label_count()); ++label) {
        std::map<std::pair<std::int32_t, std::int32_t>, double> tails;
        for (const FoundCell& cell : cells[3 + 2 * label]) tails[{cell.start, cell.end}] = cell.score;
        if (tails.empty()) continue;
        for (const FoundCell& head : cells[2 + 2 * label]) {
            const auto [subject, subject_end] = subjects.equal_range(head.start);
            const auto [object, object_end] = objects.equal_range(head.end);
            for (auto s = subject; s != subject_end; ++s)
                for (auto o = object; o != object_end; ++o) {
                    const auto tail = tails.find({s->second.end, o->second.end});
                    if (tail == tails.end()) continue;
                    found.push_back({label, characters(p, sequence, s->second.start, s->second.end), characters(p, sequence, o->second.start, o->second.end),
                                     std::min({head.score, tail->second, s->second.score, o->second.score})});
                }
        }
    }
}

}  // namespace

std::vector<std::vector<Triple>> triples(const Task& task, const Prepared& prepared, const Outputs& outputs) {
    std::vector<std::vector<Triple>> out(static_cast<std::size_t>(prepared.examples()));
    for (std::int64_t e = 0; e < prepared.examples(); ++e) {
        std::vector<Triple>& found = out[static_cast<std::size_t>(e)];
        for (std::int64_t s = at(prepared.example_begin, e); s < at(prepared.example_begin, e + 1); ++s) find_triples(task, prepared, outputs, s, found);
        sort_and_join(found, [](const Triple& x) { return std::tuple(key(x.subject), key(x.object), x.type); });
    }
    return out;
}

}  // namespace rf::tasks
