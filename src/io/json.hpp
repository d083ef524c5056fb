#pragma once
/// Strict reading of JSON inputs into described structs. A member is declared once, with its default; the reader
/// refuses unknown keys (naming the nearest known one), wrong types and, through `check()`, impossible values,
/// always with file and path. Structs are described with BOOST_DESCRIBE_STRUCT; members may be bool, std::int64_t, double,
/// std::string, std::vector of these, boost::json::value (taken as it is), or other described structs.

#include "core/check.hpp"

#include <boost/describe.hpp>
#include <boost/json.hpp>
#include <boost/mp11.hpp>

#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace rf::json {

using boost::json::value;

/// Parses a file; syntax errors name file, line and column. Keys given twice are errors.
value parse_file(const std::string& path);
value parse(std::string_view text, const std::string& name);
/// Two spaces of indentation, one key a line.
std::string pretty(const value& v);
/// One line without its end, a blank after every comma and colon, as Python's json.dumps writes it; text as UTF-8, null for what is
/// no finite number.
std::string line(const value& v);

/// Applies `key.path=text`: the text is taken as JSON where it parses as JSON, else as a string.
void set(value& root, std::string_view assignment);

/// Where a value stands: "file: path", for messages.
struct Place {
    std::string file;
    std::string path;
    Place at(std::string_view key) const { return {file, path.empty() ? std::string(key) : path + "." + std::string(key)}; }
};
std::ostream& operator<<(std::ostream& out, const Place& place);

/// Checks of an input's values: `require(ok, "batch.lanes", "expected …")` fails with the key's place and these words.
struct Requirements {
    Place place;
    template <class... What>
    void operator()(bool ok, std::string_view key, const What&... what) const {
        if (!ok) fail_usage(place.at(key), ": ", what...);
    }
};

[[noreturn]] void fail_type(const Place& place, std::string_view expected, const value& found);
/// The known name that a mistyped one most likely meant, or empty when none is near.
std::string nearest(std::string_view name, const std::vector<std::string>& known);
[[noreturn]] void fail_unknown(const Place& place, std::string_view key, const std::vector<std::string>& known);

void read(const value& v, bool& out, const Place& place);
void read(const value& v, std::int64_t& out, const Place& place);
void read(const value& v, double& out, const Place& place);
void read(const value& v, std::string& out, const Place& place);
inline void read(const value& v, value& out, const Place&) { out = v; }

template <class T>
void read(const value& v, std::vector<T>& out, const Place& place) {
    if (!v.is_array()) fail_type(place, "a list", v);
    out.clear();
    for (std::size_t i = 0; i < v.as_array().size(); ++i) {
        out.emplace_back();
        read(v.as_array()[i], out.back(), Place{place.file, message(place.path, "[", i, "]")});
    }
}

template <class T>
    requires boost::describe::has_describe_members<T>::value
void read(const value& v, T& out, const Place& place) {
    if (!v.is_object()) fail_type(place, "an object { … }", v);
    using Members = boost::describe::describe_members<T, boost::describe::mod_public | boost::describe::mod_inherited>;
    std::vector<std::string> known;
    boost::mp11::mp_for_each<Members>([&](auto member) { known.emplace_back(member.name); });
    for (const auto& [key, item] : v.as_object()) {
        bool found = false;
        boost::mp11::mp_for_each<Members>([&, &key = key, &item = item](auto member) {
            if (key != member.name) return;
            found = true;
            read(item, out.*member.pointer, place.at(key));
        });
        if (!found) fail_unknown(place, key, known);
    }
}

inline value write(bool v) { return v; }
inline value write(std::int64_t v) { return v; }
inline value write(double v) { return v; }
inline value write(const std::string& v) { return boost::json::string(v); }
inline value write(const value& v) { return v; }
template <class T>
    requires boost::describe::has_describe_members<T>::value
value write(const T& in);

template <class T>
value write(const std::vector<T>& list) {
    boost::json::array out;
    for (const T& item : list) out.push_back(write(item));
    return out;
}

/// The struct as JSON, every member present, in the order of declaration.
template <class T>
    requires boost::describe::has_describe_members<T>::value
value write(const T& in) {
    boost::json::object out;
    using Members = boost::describe::describe_members<T, boost::describe::mod_public | boost::describe::mod_inherited>;
    boost::mp11::mp_for_each<Members>([&](auto member) { out[member.name] = write(in.*member.pointer); });
    return out;
}

}  // namespace rf::json
