#include "tasks/gaps.hpp"

#include "text/unicode.hpp"

namespace rf::tasks {

boost::regex compile_pattern(const std::string& pattern) {
    try {
        return boost::regex(pattern);
    } catch (const boost::regex_error& e) {
        fail_usage("\"", pattern, "\" is no regular expression: ", e.what());
    }
}

Gaps::Gaps(const Blanks& blanks) : options_(blanks), text_(blanks.text) {
    if (!blanks.pattern.empty()) mark_ = compile_pattern(blanks.pattern);
}

std::vector<Row> Gaps::rows(const Row& row) const {
    if (options_.pattern.empty()) return {row};
    const std::string text = text_of(text_.get(row), options_.text);
    const boost::sregex_iterator first(text.begin(), text.end(), mark_), none;
    if (first == none) bad_row("the text has no gap like \"", options_.pattern, "\"");
    std::vector<Row> out;
    for (auto at = first; at != none; ++at) {
        const auto begin = static_cast<std::size_t>(at->position()), end = begin + static_cast<std::size_t>(at->length());
        std::u32string left = decode_utf8(others(text.substr(0, begin))), right = decode_utf8(others(text.substr(end)));
        trim(left, right);
        boost::json::object fields{{"left", encode_utf8(left)}, {"right", encode_utf8(right)}, {"blank", at->str()}, {"number", out.size()}};
        out.push_back(row.inner(std::make_shared<json::value>(std::move(fields))));
    }
    return out;
}

std::string Gaps::others(const std::string& text) const {
    return boost::regex_replace(text, mark_, options_.others, boost::regex_constants::format_literal);
}

/// Takes characters from the outer end of the longer side, of the right one when both are equal, until both together hold `keep`.
void Gaps::trim(std::u32string& left, std::u32string& right) const {
    if (options_.keep == 0) return;
    const auto keep = static_cast<std::size_t>(options_.keep);
    std::size_t l = left.size(), r = right.size();
    while (l + r > keep) (l > r ? l : r)--;
    left = left.substr(left.size() - l);
    right.resize(r);
}

}  // namespace rf::tasks
