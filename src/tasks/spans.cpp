/// Marks of a text as cells of a token-pair table, and the windows of long texts.

#include "tasks/examples.hpp"
#include "text/unicode.hpp"

#include <algorithm>
#include <limits>

namespace rf::tasks {

using boost::json::array;
using boost::json::object;

/// A text and its tokens, with the characters that each covers.
struct ExampleMaker::Text {
    std::u32string letters;
    std::vector<std::int32_t> ids;
    std::vector<TokenSpan> spans;

    Text(const Tokenizer& tokenizer, std::u32string_view text) : letters(text) { tokenizer.encode(letters, ids, spans); }

    /// The tokens that cover exactly these characters (what the tokenizer drops at their ends aside), or an empty range: a mark may begin
    /// or end inside a token.
    Range tokens(Range characters) const {
        const auto first =
            std::lower_bound(spans.begin(), spans.end(), characters.begin, [](const TokenSpan& s, std::int32_t at) { return s.begin < at; });
        const auto last =
            std::lower_bound(spans.begin(), spans.end(), characters.end, [](const TokenSpan& s, std::int32_t at) { return s.end <= at; });
        if (first >= last || (first != spans.begin() && (first - 1)->end > characters.begin) || (last != spans.end() && last->begin < characters.end))
            return {};
        return {static_cast<std::int32_t>(first - spans.begin()), static_cast<std::int32_t>(last - spans.begin())};
    }
    std::string utf8(Range characters) const {
        return encode_utf8(std::u32string_view(letters).substr(static_cast<std::size_t>(characters.begin),
                                                               static_cast<std::size_t>(characters.end - characters.begin)));
    }
};

namespace {

/// Writes the characters of tokens into a sequence, counted from the first of its window.
void add_chars(Sequence& s, std::span<const TokenSpan> spans, std::int64_t from) {
    for (const TokenSpan& span : spans) {
        if (span.end - from > std::numeric_limits<std::uint16_t>::max()) bad_row("more than 65535 characters in a window of the text");
        s.token_chars.push_back(static_cast<std::uint16_t>(span.begin - from));
        s.token_chars.push_back(static_cast<std::uint16_t>(span.end - from));
    }
}

void add_piece(Sequence& s, std::span<const std::int32_t> ids) {
    const auto begin = static_cast<std::int32_t>(s.tokens.size());
    s.tokens.insert(s.tokens.end(), ids.begin(), ids.end());
    s.pieces.push_back({begin, static_cast<std::int32_t>(s.tokens.size())});
}

void add_special(Sequence& s, std::int32_t id) { s.tokens.push_back(static_cast<std::uint16_t>(id)); }

/// For every character where it begins once the text is in lower case, decomposed and without nonspacing marks: [characters + 1]. Windows
/// are measured there (bert4keras lowercase_and_normalize comes before the splitting).
std::vector<std::int64_t> normalised_begins(std::u32string_view text) {
    std::vector<std::int64_t> begins{0};
    begins.reserve(text.size() + 1);
    for (const char32_t c : text) {
        std::int64_t n = 1;
        if (c >= 0x80 && !(c >= 0x4E00 && c <= 0x9FFF)) {
            const std::u32string parts = unicode::lower_and_decompose(c);
            n = std::count_if(parts.begin(), parts.end(), [](char32_t part) { return !unicode::is_nonspacing_mark(part); });
        }
        begins.push_back(begins.back() + n);
    }
    return begins;
}

/// First tokens of windows that follow one another; each ends behind the last end of a sentence in its second half, where there is one.
std::vector<std::int64_t> cut_at_sentences(std::u32string_view text, std::span<const TokenSpan> spans, std::int64_t room) {
    constexpr std::u32string_view ends = U"。！？!?；;…\n";
    std::vector<std::int64_t> begins{0};
    const auto total = static_cast<std::int64_t>(spans.size());
    while (total - begins.back() > room) {
        std::int64_t cut = begins.back() + room;
        for (std::int64_t t = cut; t > begins.back() + room / 2; --t) {
            // From the token before the cut to the one behind it, so that line ends count, which are no tokens.
            const auto from = static_cast<std::size_t>(spans[static_cast<std::size_t>(t) - 1].begin),
                       to = static_cast<std::size_t>(spans[static_cast<std::size_t>(t)].begin);
            if (text.substr(from, to - from).find_first_of(ends) == std::u32string_view::npos) continue;
            cut = t;
            break;
        }
        begins.push_back(cut);
    }
    begins.push_back(total);
    return begins;
}

}  // namespace

ExampleMaker::Answers ExampleMaker::find_answers(const Row& row, Split split, std::u32string_view context, const Losses& losses) const {
    Answers out;
    for_each_item(row, answers_.each, [&](const Row& item) {
        out.texts.push_back(answers_.text.render(item));
        out.none = out.none || std::find(file_.no_answer.begin(), file_.no_answer.end(), out.texts.back()) != file_.no_answer.end();
        const std::u32string part = decode_utf8(out.texts.back());
        if (out.none || part.empty() || out.place.end > 0) return;  // the first that is found is the one to learn
        const std::int64_t given = answers_.has_start ? answers_.start.integer(item) : 0;
        const auto distance = [&](std::size_t at) { return std::abs(static_cast<std::int64_t>(at) - given); };
        // Where the text stands nearest to the place given: published positions are off by some characters at times.
        std::size_t best = context.find(part);
        for (std::size_t at = best; at != std::u32string_view::npos; at = context.find(part, at + 1))
            if (distance(at) < distance(best)) best = at;
        if (best != std::u32string_view::npos) out.place = {static_cast<std::int32_t>(best), static_cast<std::int32_t>(best + part.size())};
    });
    if (out.none) out.place = {};
    const bool found = out.none || out.place.end > 0;
    if (!found && split == Split::train) bad_row("the answer \"", out.texts.empty() ? "" : out.texts.front(), "\" does not stand in the context");
    if (!found && split == Split::dev) losses.bad("an answer does not stand in the context");
    out.known = found || split != Split::test;
    return out;
}

/// [CLS] question [SEP] context window [SEP]; around an answer that a training window holds whole, its left, itself and its right are
/// encoded each by itself (RoFormerV2's multi-task snippets).
void ExampleMaker::make_span(const Row& row, Split split, const Losses& losses, Example& out) const {
    const std::vector<std::string> texts = pieces(row);
    std::u32string question = decode_utf8(texts[0]);
    std::vector<std::int64_t> begins = normalised_begins(question);
    if (begins.back() > file_.windows.longest_question) {
        if (split == Split::train) bad_row("a question of more than ", file_.windows.longest_question, " characters");
        losses.truncated();
        question.resize(static_cast<std::size_t>(std::upper_bound(begins.begin(), begins.end(), file_.windows.longest_question) - begins.begin()) -
                        1);
        begins.resize(question.size() + 1);
    }
    const std::int64_t room = file_.max_length - begins.back() - 3;
    if (room < 1) bad_row("max_length ", file_.max_length, " has no room for a context beside the question");

    const std::u32string context = decode_utf8(texts[1]);
    const Answers answers = find_answers(row, split, context, losses);
    const Range answer = answers.place;

    const std::vector<std::int64_t> at = normalised_begins(context);
    const auto character = [&](std::int64_t normal) {
        return static_cast<std::int32_t>(std::lower_bound(at.begin(), at.end(), normal) - at.begin());
    };
    const Vocabulary& v = tokenizer_.vocabulary();
    const Text asked(tokenizer_, question);
    bool reached = false;
    const std::int64_t step = std::min(file_.windows.stride, room);  // leaves nothing out between windows
    for (std::int64_t left = 0;; left += step) {
        const std::int32_t from = character(left), to = std::min(character(left + room), static_cast<std::int32_t>(context.size()));
        const bool holds = answer.end > 0 && from <= answer.begin && answer.end <= to;
        Sequence s;
        add_special(s, v.cls());
        add_piece(s, asked.ids);
        add_special(s, v.sep());
        s.text_at = from;
        s.token_chars.resize(2 * s.tokens.size());
        s.visible.begin = static_cast<std::int32_t>(s.tokens.size());
        Cell cell;
        const auto put = [&](std::int32_t begin, std::int32_t end) {
            const Text part(tokenizer_, std::u32string_view(context).substr(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin)));
            const auto first = static_cast<std::int32_t>(s.tokens.size());
            add_chars(s, part.spans, from - begin);
            add_piece(s, part.ids);
            if (holds && begin == answer.begin && end == answer.end && !part.ids.empty())
                cell = {0, first, static_cast<std::int32_t>(s.tokens.size()) - 1};
            if (!holds || split == Split::train) return;
            const Range tokens = part.tokens({answer.begin - begin, answer.end - begin});
            if (tokens.end > 0) cell = {0, first + tokens.begin, first + tokens.end - 1};
        };
        if (holds && split == Split::train) put(from, answer.begin), put(answer.begin, answer.end), put(answer.end, to);
        else put(from, to);
        s.visible.end = static_cast<std::int32_t>(s.tokens.size());
        add_special(s, v.sep());
        s.token_chars.resize(2 * s.tokens.size());
        if (holds && cell.end == 0) losses.lost("an answer begins or ends inside a token");
        if (answers.known) s.cells.push_back(cell);
        reached = reached || holds;
        if (static_cast<std::int64_t>(s.tokens.size()) > file_.max_length) bad_row("a window of more than ", file_.max_length, " tokens");
        out.sequences.push_back(std::move(s));
        if (left + room >= at.back()) break;
    }
    if (answer.end > 0 && !reached) {
        if (split == Split::train) bad_row("an answer longer than every window");
        losses.lost("an answer longer than every window");
    }
    out.text = texts[1];
    if (!answers.known) return;
    array list;
    for (const std::string& text : answers.texts) list.emplace_back(text);
    out.gold = boost::json::serialize(object{{"answers", std::move(list)}, {"none", answers.none}});
}

/// Rows of a test part may come without their marks.
bool ExampleMaker::has_marks(const Row& row) const {
    const auto there = [&](const std::string& each) { return each.empty() || Path(each.substr(0, each.find('.'))).find(row); };
    return std::all_of(entities_.begin(), entities_.end(), [&](const CompiledMention& m) { return there(m.each); }) &&
           std::all_of(relations_.begin(), relations_.end(), [&](const CompiledRelation& r) { return there(r.each); });
}

/// [CLS] text [SEP], in windows that follow one another.
void ExampleMaker::make_cells(const Row& row, Split split, const Losses& losses, Example& out) const {
    const std::vector<std::string> texts = pieces(row);
    const Text text(tokenizer_, decode_utf8(texts.front()));
    if (text.ids.empty()) bad_row("the text holds no token");
    Ids ids;
    std::vector<Found> marks;
    const bool known = split != Split::test || has_marks(row);
    if (known)
        for (const CompiledMention& m : entities_) find(m, row, text.letters, ids, losses, marks);
    for (const Found& f : marks)
        if (!f.id.empty()) ids[f.id] = f.range;

    struct Labelled {
        std::int32_t type;
        Range first, second;  ///< tokens, half-open; `second` of relations
    };
    std::vector<Labelled> labelled;
    array gold;
    if (task_.kind == Kind::relations && known) {
        const auto add = [&](const CompiledRelation& r, const Row& item) {
            const std::int32_t type = number_of(r.type.render(item));
            std::vector<Found> subject, object_;
            find(r.subject, item, text.letters, ids, losses, subject);
            find(r.object, item, text.letters, ids, losses, object_);
            if (subject.empty() || object_.empty()) return;
            const Range s = subject.front().range, o = object_.front().range;
            gold.push_back(object{{"type", task_.labels[static_cast<std::size_t>(type)]}, {"subject", text.utf8(s)}, {"object", text.utf8(o)}});
            labelled.push_back({type, text.tokens(s), text.tokens(o)});
        };
        for (const CompiledRelation& r : relations_)
            for_each_item(row, r.each, [&](const Row& item) {
                for (const Row& pair : pairs(item, r.chain)) add(r, pair);
            });
    } else {
        for (const Found& f : marks) {
            const std::int32_t type = number_of(f.type);
            gold.push_back(object{{"type", f.type}, {"start", f.range.begin}, {"end", f.range.end}});
            labelled.push_back({type, text.tokens(f.range), {0, 1}});
        }
    }
    std::erase_if(labelled, [&](const Labelled& l) {
        const bool aside = l.first.end == 0 || l.second.end == 0;
        if (aside) losses.lost("a mark begins or ends inside a token");
        return aside;
    });

    const Vocabulary& v = tokenizer_.vocabulary();
    const std::vector<std::int64_t> begins = cut_at_sentences(text.letters, text.spans, file_.max_length - 2);
    const auto window_of = [&](std::int32_t token) { return std::upper_bound(begins.begin(), begins.end() - 1, token) - begins.begin() - 1; };
    for (std::size_t w = 0; w + 1 < begins.size(); ++w) {
        const auto from = static_cast<std::size_t>(begins[w]), size = static_cast<std::size_t>(begins[w + 1]) - from;
        Sequence s;
        add_special(s, v.cls());
        add_piece(s, std::span(text.ids).subspan(from, size));
        add_special(s, v.sep());
        s.visible = s.pieces.front();
        s.text_at = static_cast<std::int32_t>(text.spans[from].begin);
        s.token_chars.resize(2);
        add_chars(s, std::span(text.spans).subspan(from, size), s.text_at);
        s.token_chars.resize(2 * s.tokens.size());
        out.sequences.push_back(std::move(s));
    }
    const bool is_pair = task_.kind == Kind::relations;
    for (const Labelled& l : labelled) {
        const auto w = window_of(l.first.begin);
        if (w != window_of(l.first.end - 1) || (is_pair && (w != window_of(l.second.begin) || w != window_of(l.second.end - 1)))) {
            losses.lost(is_pair ? "a relation across windows" : "a mark across windows");
            continue;
        }
        const auto shift = static_cast<std::int32_t>(1 - begins[static_cast<std::size_t>(w)]);
        std::vector<Cell>& cells = out.sequences[static_cast<std::size_t>(w)].cells;
        const Range a{l.first.begin + shift, l.first.end + shift - 1}, b{l.second.begin + shift, l.second.end + shift - 1};
        if (!is_pair) {
            cells.push_back({l.type, a.begin, a.end});
            continue;
        }
        cells.push_back({0, a.begin, a.end});
        cells.push_back({1, b.begin, b.end});
        cells.push_back({2 + 2 * l.type, a.begin, b.begin});
        cells.push_back({3 + 2 * l.type, a.end, b.end});
    }
    for (Sequence& s : out.sequences) {
        std::sort(s.cells.begin(), s.cells.end());
        s.cells.erase(std::unique(s.cells.begin(), s.cells.end()), s.cells.end());
    }
    out.text = texts.front();
    if (known) out.gold = boost::json::serialize(gold);
}

}  // namespace rf::tasks
