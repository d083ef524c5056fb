#include "io/json.hpp"

#include "io/files.hpp"

#include <boost/json/basic_parser_impl.hpp>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <set>
#include <sstream>
#include <utility>

namespace rf::json {

namespace bj = boost::json;

namespace {

std::size_t distance(std::string_view a, std::string_view b) {
    std::vector<std::size_t> row(b.size() + 1);
    for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
    for (std::size_t i = 1; i <= a.size(); ++i) {
        std::size_t diagonal = row[0];
        row[0] = i;
        for (std::size_t j = 1; j <= b.size(); ++j) {
            const std::size_t above = row[j];
            row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1])});
            diagonal = above;
        }
    }
    return row[b.size()];
}

/// The library keeps the last of two equal keys; a doubled key is a mistake worth an error. And its numbers of 17 digits are often off by a last bit:
/// here they are read once more, in their order.
class StrictHandler {
public:
    constexpr static std::size_t max_object_size = std::size_t(-1);
    constexpr static std::size_t max_array_size = std::size_t(-1);
    constexpr static std::size_t max_key_size = std::size_t(-1);
    constexpr static std::size_t max_string_size = std::size_t(-1);

    std::vector<std::set<std::string>> keys;
    std::string partial, doubled, digits;
    std::vector<double> numbers;

    bool on_document_begin(bj::error_code&) { return true; }
    bool on_document_end(bj::error_code&) { return true; }
    bool on_object_begin(bj::error_code&) { keys.emplace_back(); return true; }
    bool on_object_end(std::size_t, bj::error_code&) { keys.pop_back(); return true; }
    bool on_array_begin(bj::error_code&) { return true; }
    bool on_array_end(std::size_t, bj::error_code&) { return true; }
    bool on_key_part(bj::string_view s, std::size_t, bj::error_code&) { partial.append(s.data(), s.size()); return true; }
    bool on_key(bj::string_view s, std::size_t, bj::error_code&) {
        partial.append(s.data(), s.size());
        if (!keys.back().insert(partial).second && doubled.empty()) doubled = partial;
        partial.clear();
        return true;
    }
    bool on_string_part(bj::string_view, std::size_t, bj::error_code&) { return true; }
    bool on_string(bj::string_view, std::size_t, bj::error_code&) { return true; }
    bool on_number_part(bj::string_view s, bj::error_code&) { digits.append(s.data(), s.size()); return true; }
    bool on_int64(std::int64_t, bj::string_view, bj::error_code&) { digits.clear(); return true; }
    bool on_uint64(std::uint64_t, bj::string_view, bj::error_code&) { digits.clear(); return true; }
    bool on_double(double about, bj::string_view s, bj::error_code&) {
        digits.append(s.data(), s.size());
        std::from_chars(digits.data(), digits.data() + digits.size(), about);  // out of range: as the library has it
        numbers.push_back(about);
        digits.clear();
        return true;
    }
    bool on_bool(bool, bj::error_code&) { return true; }
    bool on_null(bj::error_code&) { return true; }
    bool on_comment_part(bj::string_view, bj::error_code&) { return true; }
    bool on_comment(bj::string_view, bj::error_code&) { return true; }
};

/// Puts the numbers in their places, which come in the order of the text.
void put_numbers(value& v, const double*& next) {
    if (v.is_double()) v = *next++;
    else if (v.is_array())
        for (value& item : v.as_array()) put_numbers(item, next);
    else if (v.is_object())
        for (auto& item : v.as_object()) put_numbers(item.value(), next);
}

struct Parsed {
    value found;
    bj::error_code error;
    std::size_t read = 0;  ///< bytes, until the end or the error
    std::string doubled;   ///< a key given twice
};

Parsed parse_text(std::string_view text) {
    Parsed out;
    bj::basic_parser<StrictHandler> scan{bj::parse_options{}};
    out.read = scan.write_some(false, text.data(), text.size(), out.error);
    if (!out.error)
        if (const std::size_t rest = text.find_first_not_of(" \t\r\n", out.read); rest != std::string_view::npos) out.error = bj::error::extra_data, out.read = rest;
    if (out.error) return out;
    out.doubled = scan.handler().doubled;
    if (!out.doubled.empty()) return out;
    out.found = bj::parse({text.data(), text.size()});
    const double* next = scan.handler().numbers.data();
    put_numbers(out.found, next);
    return out;
}

const char* kind_name(const value& v) {
    switch (v.kind()) {
        case bj::kind::null: return "null";
        case bj::kind::bool_: return "true or false";
        case bj::kind::int64:
        case bj::kind::uint64: return "an integer";
        case bj::kind::double_: return "a number";
        case bj::kind::string: return "a string";
        case bj::kind::array: return "a list";
        case bj::kind::object: return "an object";
    }
    return "?";
}

/// Everything but lists and objects; only numbers differ from what the library prints.
void print_scalar(std::ostream& out, const value& v) {
    if (!v.is_double() || !std::isfinite(v.as_double())) {
        out << bj::serialize(v);
        return;
    }
    // Shortest text that reads back to the same number, without the library's exponent form; a whole one as such.
    if (std::nearbyint(v.as_double()) == v.as_double() && std::abs(v.as_double()) < 1e15) {
        out << static_cast<std::int64_t>(v.as_double());
        return;
    }
    char text[40];
    for (int digits = 1; digits <= 17; ++digits) {
        std::snprintf(text, sizeof text, "%.*g", digits, v.as_double());
        if (std::strtod(text, nullptr) == v.as_double()) break;
    }
    out << text;
}

void print_line(std::ostream& out, const value& v) {
    const char* separator = "";
    if (v.is_object()) {
        out << '{';
        for (const auto& [key, item] : v.as_object()) {
            out << std::exchange(separator, ", ") << bj::serialize(bj::string(key)) << ": ";
            print_line(out, item);
        }
        out << '}';
    } else if (v.is_array()) {
        out << '[';
        for (const value& item : v.as_array()) {
            out << std::exchange(separator, ", ");
            print_line(out, item);
        }
        out << ']';
    } else if (v.is_double() && !std::isfinite(v.as_double())) {
        out << "null";
    } else {
        print_scalar(out, v);
    }
}

void print(std::ostream& out, const value& v, const std::string& indent) {
    const std::string deeper = indent + "  ";
    if (v.is_object() && !v.as_object().empty()) {
        const char* separator = "{\n";
        for (const auto& [key, item] : v.as_object()) {
            out << separator << deeper << bj::serialize(bj::string(key)) << ": ";
            print(out, item, deeper);
            separator = ",\n";
        }
        out << '\n' << indent << '}';
    } else {
        print_line(out, v);
    }
}

}  // namespace

value parse(std::string_view text, const std::string& name) {
    const Parsed parsed = parse_text(text);
    if (parsed.error) {
        const std::string_view before = text.substr(0, std::min(parsed.read, text.size()));
        const auto line = 1 + std::count(before.begin(), before.end(), '\n');
        const std::size_t newline = before.rfind('\n');
        fail_usage(name, ":", line, ":", before.size() - (newline == std::string_view::npos ? 0 : newline + 1) + 1,
                   ": not valid JSON (", parsed.error.message(), ")");
    }
    if (!parsed.doubled.empty()) fail_usage(name, ": the key \"", parsed.doubled, "\" is given twice");
    return parsed.found;
}

value parse_file(const std::string& path) {
    std::string text;
    try {
        text = read_file(path);
    } catch (const Error& e) {
        throw UsageError(e.what());
    }
    return parse(text, path);
}

std::string pretty(const value& v) {
    std::ostringstream out;
    print(out, v, "");
    out << '\n';
    return out.str();
}

std::string line(const value& v) {
    std::ostringstream out;
    print_line(out, v);
    return out.str();
}

void set(value& root, std::string_view assignment) {
    const std::size_t equals = assignment.find('=');
    if (equals == std::string_view::npos || equals == 0) fail_usage("--set ", assignment, ": expected key.path=value");
    std::string_view path = assignment.substr(0, equals), text = assignment.substr(equals + 1);
    Parsed parsed = parse_text(text);
    if (!parsed.doubled.empty()) fail_usage("--set ", assignment, ": the key \"", parsed.doubled, "\" is given twice");
    value item = std::move(parsed.found);
    if (parsed.error) item = bj::string(bj::string_view(text.data(), text.size()));
    value* at = &root;
    while (true) {
        if (!at->is_object()) {
            // A model named by file can be refined: --set model.vocab_size=… keeps the file under "file".
            bj::object object;
            if (at->is_string()) object["file"] = *at;
            *at = std::move(object);
        }
        const std::size_t dot = path.find('.');
        const std::string_view key = path.substr(0, dot);
        if (key.empty()) fail_usage("--set ", assignment, ": empty key in the path");
        value& next = at->as_object()[bj::string_view(key.data(), key.size())];
        if (dot == std::string_view::npos) {
            next = std::move(item);
            return;
        }
        path.remove_prefix(dot + 1);
        at = &next;
    }
}

std::ostream& operator<<(std::ostream& out, const Place& place) {
    return out << place.file << ": " << (place.path.empty() ? "the input" : place.path);
}

void fail_type(const Place& place, std::string_view expected, const value& found) {
    fail_usage(place, ": expected ", expected, ", found ", kind_name(found), found.is_structured() ? "" : " " + bj::serialize(found));
}

std::string nearest(std::string_view name, const std::vector<std::string>& known) {
    std::string found;
    std::size_t best = name.size() / 2 + 1;
    for (const std::string& other : known)
        if (const std::size_t d = distance(name, other); d <= best) best = d, found = other;
    return found;
}

void fail_unknown(const Place& place, std::string_view key, const std::vector<std::string>& known) {
    std::string all;
    for (const std::string& name : known) all += (all.empty() ? "" : ", ") + name;
    const std::string meant = nearest(key, known);
    fail_usage(place.file, ": unknown key \"", place.at(key).path, "\"", meant.empty() ? "" : " (did you mean \"" + meant + "\"?)",
               "; known here: ", all);
}

void read(const value& v, bool& out, const Place& place) {
    if (!v.is_bool()) fail_type(place, "true or false", v);
    out = v.as_bool();
}

void read(const value& v, std::int64_t& out, const Place& place) {
    if (v.is_int64()) {
        out = v.as_int64();
        return;
    }
    // 1e6 is an integer to the people who write inputs.
    if (v.is_double() && v.as_double() == std::floor(v.as_double()) && std::abs(v.as_double()) < 9e15) {
        out = static_cast<std::int64_t>(v.as_double());
        return;
    }
    fail_type(place, "an integer", v);
}

void read(const value& v, double& out, const Place& place) {
    if (!v.is_number()) fail_type(place, "a number", v);
    out = v.to_number<double>();
    if (!std::isfinite(out)) fail_type(place, "a finite number", v);
}

void read(const value& v, std::string& out, const Place& place) {
    if (!v.is_string()) fail_type(place, "a string", v);
    out = std::string(v.as_string());
}

}  // namespace rf::json
