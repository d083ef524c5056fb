/// Where the marks of a row stand in its text.

#include "tasks/examples.hpp"
#include "text/unicode.hpp"

#include <algorithm>

namespace rf::tasks {

void ExampleMaker::find(const CompiledMention& m, const Row& row, std::u32string_view text, const Ids& ids, const Losses& losses,
                        std::vector<Found>& out) const {
    const auto size = static_cast<std::int64_t>(text.size());
    const auto place_text = [&](const Row& item, const std::string& utf8, Found found) {
        const std::u32string part = decode_utf8(utf8);
        if (m.has_start) {
            const std::int64_t begin = m.start.integer(item);
            std::int64_t end = begin + std::max<std::int64_t>(static_cast<std::int64_t>(part.size()), 1);
            if (m.has_end) end = m.end.integer(item) + (m.inclusive ? 1 : 0);
            const bool inside = begin >= 0 && begin < end && end <= size;
            if (!inside || (!m.text.empty() && text.substr(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin)) != part))
                return losses.bad(message("a mark at ", begin, " to ", end, " does not match the text", m.text.empty() ? "" : " \"" + utf8 + '"'));
            found.range = {static_cast<std::int32_t>(begin), static_cast<std::int32_t>(end)};
            out.push_back(std::move(found));
            return;
        }
        if (part.empty()) return;
        std::size_t at = text.find(part);
        if (at == std::u32string_view::npos) {
            const std::string why = message('"', utf8, "\" does not stand in the text");
            return m.may_be_absent ? losses.lost("a text that stands nowhere") : losses.bad(why);
        }
        for (; at != std::u32string_view::npos; at = m.first ? std::u32string_view::npos : text.find(part, at + part.size())) {
            found.range = {static_cast<std::int32_t>(at), static_cast<std::int32_t>(at + part.size())};
            out.push_back(found);
        }
    };
    for_each_item(row, m.each, [&](const Row& item) {
        if (m.has_ref) {
            const std::string id = text_of(m.ref.get(item), m.ref.text());
            const auto found = ids.find(id);
            if (found == ids.end()) return losses.bad(message("no mark has the id \"", id, "\""));
            out.push_back({found->second, "", id});
            return;
        }
        Found found{{}, m.type.render(item), m.has_id ? text_of(m.id.get(item), m.id.text()) : ""};
        const std::string whole = m.text.render(item);
        if (m.split.empty()) return place_text(item, whole, found);
        for (std::size_t from = 0; from <= whole.size();) {
            const std::size_t to = std::min(whole.find(m.split, from), whole.size());
            place_text(item, whole.substr(from, to - from), found);
            from = to + m.split.size();
        }
    });
}

/// [[ ]] around the marked stretches, as they stand: from the last to the first, so that positions stay true.
void ExampleMaker::add_marks(std::string& text, const Row& row) const {
    std::u32string letters = decode_utf8(text);
    std::vector<Found> found;
    const Losses strict{.lost = {}, .bad = [](const std::string& why) { bad_row(why); }, .truncated = {}};
    for (const CompiledMention& m : marks_) find(m, row, letters, {}, strict, found);
    std::sort(found.begin(), found.end(), [](const Found& a, const Found& b) { return a.range.begin > b.range.begin; });
    for (const Found& f : found) {
        letters.insert(static_cast<std::size_t>(f.range.end), U"]]");
        letters.insert(static_cast<std::size_t>(f.range.begin), U"[[");
    }
    text = encode_utf8(letters);
}

}  // namespace rf::tasks
