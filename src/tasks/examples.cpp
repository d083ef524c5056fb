#include "tasks/examples.hpp"

#include "text/splitter.hpp"
#include "text/unicode.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <numeric>

namespace rf::tasks {

namespace {

bool is_blank_text(const std::string& text) { return text.find_first_not_of(" \t\r\n") == std::string::npos; }

bool contains(const std::vector<std::string>& list, const std::string& item) { return std::find(list.begin(), list.end(), item) != list.end(); }

float number_in(const std::string& text) {
    float value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || end != text.data() + text.size() || !std::isfinite(value)) bad_row("\"", text, "\" is no number");
    return value;
}

constexpr float unknown_score = std::numeric_limits<float>::quiet_NaN();

}  // namespace

std::string normalised(std::string_view text) {
    struct Sink {
        std::u32string out;
        void letter(char32_t c, std::size_t) { out.push_back(c); }
        void single(char32_t c, std::size_t) {
            if (!unicode::is_punctuation(c)) out.push_back(c);
        }
        void space() {}
    } sink;
    static const Splitter splitter;
    splitter.split(decode_utf8(text), sink);
    return encode_utf8(sink.out);
}

void append(const Task& task, const Example& example, std::int32_t group, Prepared& out) {
    const bool cells = info(task.kind).has_cells;
    for (const Sequence& s : example.sequences) {
        out.tokens.insert(out.tokens.end(), s.tokens.begin(), s.tokens.end());
        out.sequence_begin.push_back(static_cast<std::int64_t>(out.tokens.size()));
        out.pieces.insert(out.pieces.end(), s.pieces.begin(), s.pieces.end());
        out.piece_begin.push_back(static_cast<std::int64_t>(out.pieces.size()));
        out.cells.insert(out.cells.end(), s.cells.begin(), s.cells.end());
        out.cell_begin.push_back(static_cast<std::int64_t>(out.cells.size()));
        if (task.kind == Kind::rank) out.score.push_back(s.score);
        if (!cells) continue;
        out.visible.push_back(s.visible);
        out.token_chars.insert(out.token_chars.end(), s.token_chars.begin(), s.token_chars.end());
        out.text_at.push_back(s.text_at);
    }
    out.example_begin.push_back(out.sequences());
    if (task.kind == Kind::classify || task.kind == Kind::multiple_choice) out.label.push_back(example.label);
    if (task.kind == Kind::regress) out.score.push_back(example.score);
    if (task.kind == Kind::multiple_choice && group >= 0) out.group.push_back(group);
    if (cells) out.text.add(example.text), out.gold.add(example.gold);
    out.id.add(example.id);
    out.source.push_back(example.source);
}

ExampleMaker::CompiledMention ExampleMaker::compile(const Mention& m, const json::Place& place) {
    const auto one_of = [&](const std::string& value, const char* key, const char* a, const char* b) {
        if (value != a && value != b) fail_usage(place.at(key), ": expected \"", a, "\" or \"", b, "\", found \"", value, '"');
        return value == a;
    };
    CompiledMention out{.each = m.each,
                        .id = Path(m.id),
                        .start = Path(m.start),
                        .end = Path(m.end),
                        .ref = Path(m.ref),
                        .type = Template(m.type, place.at("type")),
                        .text = Template(m.text, place.at("text")),
                        .split = m.split,
                        .has_id = !m.id.empty(),
                        .has_start = !m.start.empty(),
                        .has_end = !m.end.empty(),
                        .has_ref = !m.ref.empty()};
    out.may_be_absent = m.may_be_absent;
    out.inclusive = one_of(m.ends, "ends", "inclusive", "exclusive");
    out.first = one_of(m.places, "places", "first", "all");
    return out;
}

ExampleMaker::ExampleMaker(const Task& task, const Tokenizer& tokenizer) : task_(task), file_(task.file), tokenizer_(tokenizer) {
    const json::Place& place = task.place;
    for (std::size_t i = 0; i < task.labels.size(); ++i) label_number_[task.labels[i]] = static_cast<std::int32_t>(i);
    for (const std::string& t : file_.input) input_.emplace_back(t, place.at("input"));
    for (const std::string& t : file_.texts) texts_.emplace_back(t, place.at("texts"));
    label_ = Template(file_.label, place.at("label"));
    answer_ = Template(file_.answer, place.at("answer"));
    group_ = Template(file_.group, place.at("group"));
    hashed_by_ = Template(file_.hashed.by, place.at("hashed.by"));
    id_ = Path(file_.id);
    if (file_.choices.is_string()) choice_list_ = Path(std::string(file_.choices.as_string()));
    else if (!file_.choices.is_null()) {
        std::vector<std::string> choices;
        json::read(file_.choices, choices, place.at("choices"));
        for (const std::string& t : choices) choices_.emplace_back(t, place.at("choices"));
    }
    for (const Filter& f : file_.filters) filters_.push_back({Template(f.value, place.at("filters.value")), f.keep, f.drop});
    for (const Mention& m : file_.mark) marks_.push_back(compile(m, place.at("mark")));
    for (const Mention& m : file_.entities) entities_.push_back(compile(m, place.at("entities")));
    answers_ = compile(file_.answers, place.at("answers"));
    for (const Relation& r : file_.relations)
        relations_.push_back({r.each, r.chain, Template(r.type, place.at("relations.type")), compile(r.subject, place.at("relations.subject")),
                              compile(r.object, place.at("relations.object"))});
}

bool ExampleMaker::is_wanted(const Row& row) const {
    return std::all_of(filters_.begin(), filters_.end(), [&](const CompiledFilter& f) {
        if (!f.value.has_fields(row)) return true;
        const std::string value = f.value.render(row);
        return (f.keep.empty() || contains(f.keep, value)) && !contains(f.drop, value);
    });
}

std::vector<std::string> ExampleMaker::render(const std::vector<Template>& templates, const Row& row) const {
    std::vector<std::string> out;
    for (const Template& t : templates) {
        out.push_back(t.render(row));
        if (is_blank_text(out.back()) && !t.may_be_empty())
            bad_row("the text of \"", file_.input[std::min(out.size(), file_.input.size()) - 1], "\" is empty");
    }
    return out;
}

std::vector<std::string> ExampleMaker::pieces(const Row& row) const {
    std::vector<std::string> out = render(input_, row);
    if (!marks_.empty()) add_marks(out.front(), row);
    return out;
}

std::vector<std::string> ExampleMaker::texts(const Row& row) const {
    if (!texts_.empty()) {
        std::vector<std::string> out;
        for (const Template& t : texts_) out.push_back(t.render(row));
        return out;
    }
    // The rows of a choice share the other pieces.
    if (!file_.choices.is_null()) return render(input_, choice_rows(row).front());
    return render(input_, row);
}

std::string ExampleMaker::hash_text(const Row& row) const {
    if (!hashed_by_.empty()) return hashed_by_.render(row);
    if (!file_.choices.is_null()) return input_.front().render(choice_rows(row).front());
    return (task_.kind == Kind::span ? input_[1] : input_.front()).render(row);
}

std::int32_t ExampleMaker::number_of(const std::string& label) const {
    const auto found = label_number_.find(label);
    if (found == label_number_.end()) bad_row("the label \"", label, "\" is not in the table of ", task_.labels.size(), " labels");
    return found->second;
}

/// bert4keras truncate_sequences: while the pieces are too long together, the longest loses its last token. There [SEP] counts with its
/// piece and a leading [CLS] with the first; of a pair both have one ([CLS] a [SEP], [CLS] b [SEP]).
void ExampleMaker::truncate(std::vector<std::size_t>& sizes, const Losses& losses) const {
    const std::size_t room = static_cast<std::size_t>(file_.max_length) - 1 - sizes.size();
    const bool last = file_.truncate == "longest_last";
    std::size_t sum = std::accumulate(sizes.begin(), sizes.end(), std::size_t{0});
    if (sum > room) losses.truncated();
    for (; sum > room; --sum) {
        std::size_t longest = 0;
        for (std::size_t i = 1; i < sizes.size(); ++i)
            if (last ? sizes[i] >= sizes[longest] + (longest == 0 ? 1 : 0) : sizes[i] > sizes[longest]) longest = i;
        --sizes[longest];
    }
}

Sequence ExampleMaker::sequence(const std::vector<std::string>& texts, const Losses& losses) const {
    std::vector<std::vector<std::int32_t>> ids;
    std::vector<std::size_t> sizes;
    for (const std::string& text : texts) {
        ids.push_back(tokenizer_.encode(text));
        sizes.push_back(ids.back().size());
    }
    if (std::all_of(sizes.begin(), sizes.end(), [](std::size_t n) { return n == 0; })) bad_row("the text holds no token");
    truncate(sizes, losses);
    const Vocabulary& v = tokenizer_.vocabulary();
    Sequence out;
    out.tokens.push_back(static_cast<std::uint16_t>(v.cls()));
    for (std::size_t i = 0; i < ids.size(); ++i) {
        const auto begin = static_cast<std::int32_t>(out.tokens.size());
        out.tokens.insert(out.tokens.end(), ids[i].begin(), ids[i].begin() + static_cast<std::ptrdiff_t>(sizes[i]));
        out.pieces.push_back({begin, static_cast<std::int32_t>(out.tokens.size())});
        out.tokens.push_back(static_cast<std::uint16_t>(v.sep()));
    }
    return out;
}

std::vector<Row> ExampleMaker::choice_rows(const Row& row) const {
    std::vector<std::string> texts;
    if (!choices_.empty()) {
        for (const Template& t : choices_) texts.push_back(t.render(row));
    } else {
        const json::value& list = choice_list_.get(row);
        if (!file_.choices_split.empty()) {
            const std::string all = text_of(list, choice_list_.text());
            for (std::size_t from = 0; from <= all.size();) {
                const std::size_t to = std::min(all.find(file_.choices_split, from), all.size());
                texts.push_back(all.substr(from, to - from));
                from = to + file_.choices_split.size();
            }
        } else {
            if (!list.is_array()) bad_row("\"", choice_list_.text(), "\" is no list");
            for (const json::value& item : list.as_array()) texts.push_back(text_of(item, choice_list_.text()));
        }
    }
    while (texts.size() < static_cast<std::size_t>(file_.pad_choices)) texts.push_back(file_.pad_text);
    if (texts.size() < 2) bad_row("only ", texts.size(), " choices");
    std::vector<Row> out;
    for (const std::string& text : texts) out.push_back(row.inner(std::make_shared<json::value>(boost::json::object{{"choice", text}})));
    return out;
}

std::int32_t ExampleMaker::right_choice(const Row& row, const std::vector<Row>& choices) const {
    const std::string answer = answer_.render(row);
    if (file_.answer_is == "text") {
        for (std::size_t i = 0; i < choices.size(); ++i)
            if (choices[i].item().at("choice").as_string() == answer) return static_cast<std::int32_t>(i);
        bad_row("the answer \"", answer, "\" is none of the choices");
    }
    std::int64_t index = -1;
    if (file_.answer_is == "letter") {
        if (answer.size() == 1 && std::isalpha(static_cast<unsigned char>(answer[0])))
            index = std::toupper(static_cast<unsigned char>(answer[0])) - 'A';
    } else {
        const auto [end, error] = std::from_chars(answer.data(), answer.data() + answer.size(), index);
        if (error != std::errc{} || end != answer.data() + answer.size()) index = -1;
    }
    if (index < 0 || index >= static_cast<std::int64_t>(choices.size()))
        bad_row("the answer \"", answer, "\" names none of the ", choices.size(), " choices");
    return static_cast<std::int32_t>(index);
}

void ExampleMaker::make_choices(const Row& row, Split split, const Losses& losses, Example& out) const {
    const std::vector<Row> choices = choice_rows(row);
    for (const Row& choice : choices) out.sequences.push_back(sequence(pieces(choice), losses));
    if (task_.kind == Kind::rank) {
        for (std::size_t i = 0; i < choices.size(); ++i) out.sequences[i].score = static_cast<float>(file_.grades[i]);
    } else if (split != Split::test || answer_.is_present(row)) {
        out.label = right_choice(row, choices);
    }
}

Example ExampleMaker::make(const Row& row, Split split, const Losses& losses) const {
    Example out;
    if (const json::value* id = id_.find(row)) out.id = text_of(*id, file_.id);
    if (!group_.empty()) out.group = group_.render(row);
    const bool known = split != Split::test || label_.is_present(row);
    if (task_.kind == Kind::span) {
        make_span(row, split, losses, out);
    } else if (info(task_.kind).has_cells) {
        make_cells(row, split, losses, out);
    } else if (!file_.choices.is_null()) {
        make_choices(row, split, losses, out);
    } else {
        out.sequences.push_back(sequence(pieces(row), losses));
        if (task_.kind == Kind::classify && known) out.label = number_of(label_.render(row));
        if (task_.kind == Kind::regress) out.score = known ? number_in(label_.render(row)) : unknown_score;
        if (task_.kind == Kind::rank) out.sequences.front().score = known ? number_in(label_.render(row)) : unknown_score;
    }
    return out;
}

}  // namespace rf::tasks
