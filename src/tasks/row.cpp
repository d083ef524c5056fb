#include "tasks/row.hpp"

#include <algorithm>
#include <charconv>

namespace rf::tasks {

namespace {

/// The child of a value under a key (of an object) or an index (of a list).
const json::value* child(const json::value& v, std::string_view key) {
    if (const auto* object = v.if_object()) return object->if_contains(boost::json::string_view(key.data(), key.size()));
    const auto* list = v.if_array();
    if (!list) return nullptr;
    std::size_t index = 0;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), index);
    return error == std::errc{} && end == key.data() + key.size() && index < list->size() ? &(*list)[index] : nullptr;
}

std::vector<std::string> split_at_dots(std::string_view text) {
    std::vector<std::string> keys;
    while (!text.empty()) {
        const std::size_t dot = text.find('.');
        keys.emplace_back(text.substr(0, dot));
        text = dot == std::string_view::npos ? std::string_view{} : text.substr(dot + 1);
    }
    return keys;
}

/// The rows that `row`'s value `at` holds: items of a list, entries of an object.
std::vector<Row> expand(const Row& row, const json::value& at, const std::string& path) {
    std::vector<Row> out;
    if (const auto* list = at.if_array()) {
        for (const json::value& item : *list) out.push_back(row.inner(row.share(item)));
    } else if (const auto* object = at.if_object()) {
        for (const auto& [key, item] : *object)
            out.push_back(row.inner(std::make_shared<json::value>(boost::json::object{{"$key", key}, {"$value", item}})));
    } else {
        bad_row("\"", path, "\" is no list");
    }
    return out;
}

}  // namespace

Row Row::inner(std::shared_ptr<const json::value> item) const {
    Row out = *this;
    out.chain_.push_back(std::move(item));
    return out;
}

Row Row::joined(std::shared_ptr<const json::value> fields) const {
    Row out = *this;
    out.chain_.insert(out.chain_.begin(), std::move(fields));
    return out;
}

const json::value* Row::find(std::string_view name, std::size_t skip) const {
    for (std::size_t i = chain_.size() - std::min(skip, chain_.size()); i-- > 0;)
        if (const json::value* found = child(*chain_[i], name)) return found;
    return nullptr;
}

const json::value* Row::level(std::size_t skip) const { return skip < chain_.size() ? chain_[chain_.size() - 1 - skip].get() : nullptr; }

Path::Path(std::string text) : text_(std::move(text)) {
    std::string_view rest = text_;
    for (; rest.starts_with('^'); rest.remove_prefix(1)) ++skip_;
    if (rest != ".") keys_ = split_at_dots(rest);
}

const json::value* Path::find(const Row& row) const {
    const json::value* at = keys_.empty() ? row.level(skip_) : nullptr;
    for (std::size_t i = 0; i < keys_.size(); ++i) {
        std::string key = keys_[i];
        if (key.starts_with('[') && key.ends_with(']')) {
            const json::value* named = row.find(key.substr(1, key.size() - 2), 0);
            if (!named) return nullptr;
            key = text_of(*named, key);
        }
        at = i == 0 ? row.find(key, skip_) : child(*at, key);
        if (!at) return nullptr;
    }
    return at;
}

const json::value& Path::get(const Row& row) const {
    const json::value* found = find(row);
    if (!found) bad_row("the field \"", text_, "\" is missing");
    return *found;
}

std::int64_t Path::integer(const Row& row) const {
    const json::value& v = get(row);
    if (v.is_int64()) return v.as_int64();
    if (v.is_string()) {
        const auto& s = v.as_string();
        std::int64_t n = 0;
        const auto [end, error] = std::from_chars(s.data(), s.data() + s.size(), n);
        if (error == std::errc{} && end == s.data() + s.size()) return n;
    }
    bad_row("\"", text_, "\" is no whole number: ", boost::json::serialize(v));
}

Template::Template(const std::string& text, const json::Place& place) {
    std::string_view rest = text;
    while (!rest.empty()) {
        const std::size_t open = rest.find('{');
        if (open != 0) {
            parts_.push_back({.literal = std::string(rest.substr(0, open))});
            rest = open == std::string_view::npos ? std::string_view{} : rest.substr(open);
            continue;
        }
        const std::size_t close = rest.find('}');
        if (close == std::string_view::npos) fail_usage(place, ": \"", text, "\" opens a brace and does not close it");
        std::string_view name = rest.substr(1, close - 1);
        Part part{.is_path = true};
        if (const std::size_t bar = name.find('|'); bar != std::string_view::npos) {
            part.joins = true;
            part.joiner = std::string(name.substr(bar + 1));
            name = name.substr(0, bar);
        }
        if (name.ends_with('?')) part.optional = true, name.remove_suffix(1);
        part.path = Path(std::string(name));
        parts_.push_back(std::move(part));
        rest.remove_prefix(close + 1);
    }
    optional_ = std::all_of(parts_.begin(), parts_.end(), [](const Part& p) { return p.is_path && p.optional; });
}

std::string Template::render(const Row& row) const {
    std::string out;
    for (const Part& part : parts_) {
        if (!part.is_path) {
            out += part.literal;
            continue;
        }
        if (part.path.text() == "$line") {
            out += std::to_string(row.line());
            continue;
        }
        const json::value* found = part.optional ? part.path.find(row) : &part.path.get(row);
        if (!found || (part.optional && found->is_null())) continue;
        if (!found->is_array()) {
            out += text_of(*found, part.path.text());
            continue;
        }
        if (!part.joins) bad_row("\"", part.path.text(), "\" is a list; {", part.path.text(), "|…} joins one");
        bool first = true;
        for (const json::value& item : found->as_array()) {
            if (!first) out += part.joiner;
            out += text_of(item, part.path.text());
            first = false;
        }
    }
    return out;
}

bool Template::has_fields(const Row& row) const {
    return std::all_of(parts_.begin(), parts_.end(),
                       [&](const Part& part) { return !part.is_path || part.path.text() == "$line" || part.path.find(row); });
}

bool Template::is_present(const Row& row) const {
    return std::all_of(parts_.begin(), parts_.end(), [&](const Part& part) {
        const json::value* found = part.is_path ? part.path.find(row) : nullptr;
        return !part.is_path || part.path.text() == "$line" || (found && !found->is_null());
    });
}

std::string text_of(const json::value& value, std::string_view what) {
    if (value.is_string()) return std::string(value.as_string());
    if (value.is_structured() || value.is_null())
        bad_row("\"", what, "\" is no text: ", value.is_null() ? "null" : value.is_array() ? "a list" : "an object");
    return boost::json::serialize(value);
}

std::vector<Row> items(const Row& row, const std::string& path) {
    std::vector<Row> rows{row};
    std::string_view rest = path;
    std::size_t skip = 0;
    for (; rest.starts_with('^'); rest.remove_prefix(1)) ++skip;
    if (rest.empty() && skip == 0) return rows;
    const std::vector<std::string> keys = split_at_dots(rest);
    for (std::size_t i = 0; i < keys.size(); ++i) {
        std::vector<Row> next;
        for (const Row& outer : rows) {
            const bool spread = keys[i] == "*";
            const json::value* at = spread ? &outer.item() : outer.find(keys[i], i == 0 ? skip : 0);
            if (!at) bad_row("the field \"", path, "\" is missing");
            if (spread && at->is_object() && at->as_object().contains("$value")) at = &at->as_object().at("$value");
            if (!spread && !at->is_array() && i + 1 < keys.size()) {
                next.push_back(outer.inner(outer.share(*at)));
                continue;
            }
            const std::vector<Row> inside = expand(outer, *at, path);
            next.insert(next.end(), inside.begin(), inside.end());
        }
        rows = std::move(next);
    }
    return rows;
}

std::vector<Row> pairs(const Row& row, bool chain) {
    if (!chain) return {row};
    if (!row.item().is_array()) bad_row("a chain is a list");
    const boost::json::array& list = row.item().as_array();
    std::vector<Row> out;
    for (std::size_t i = 1; i < list.size(); ++i) out.push_back(row.inner(std::make_shared<json::value>(boost::json::array{list[i - 1], list[i]})));
    return out;
}

}  // namespace rf::tasks
