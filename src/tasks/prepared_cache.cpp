#include "tasks/prepared.hpp"

#include "io/files.hpp"
#include "io/hdf5.hpp"
#include "io/schema.hpp"

#include <filesystem>
#include <unistd.h>

namespace rf::tasks {

namespace fs = std::filesystem;
namespace names = schema::prepared;

namespace {

/// Of the form of the file and of what preparation makes of rows: raised when either changes.
constexpr std::int64_t version = 3;

/// The task file without what leaves the prepared form alone.
std::string description(const Task& task) {
    TaskFile file = task.file;
    file.about = file.metric = "";
    file.weight = 1;
    file.corrupt = true;
    file.head = {};
    file.submission = {};
    return boost::json::serialize(json::write(file));
}

std::string key_of(const Task& task, const Tokenizer& tokenizer, const Guard& guard) {
    std::string all =
        message(version, '\n', description(task), '\n', tokenizer.vocabulary().digest(), '\n', Tokenizer::identity(), '\n', guard.digest());
    const auto add = [&](const std::string& path) {
        const std::string bytes = read_file(path);
        all += '\n' + path.substr(path.find_last_of('/') + 1) + ' ' + digest(bytes.data(), static_cast<std::int64_t>(bytes.size()));
    };
    for (const std::string& label : task.labels) all += '\n' + label;
    for (const Split split : splits)
        for (const Source& source : task.source(split)) {
            for (const std::string& file : source.files) add(file);
            if (source.reader.join.files.is_array())
                for (const json::value& file : source.reader.join.files.as_array()) add(std::string(file.as_string()));
        }
    return digest(all.data(), static_cast<std::int64_t>(all.size()));
}

/// Structs of i32 members as one list of numbers.
template <class T>
std::vector<std::int32_t> flat(const std::vector<T>& list) {
    const auto* first = reinterpret_cast<const std::int32_t*>(list.data());
    return {first, first + list.size() * (sizeof(T) / sizeof(std::int32_t))};
}
template <class T>
std::vector<T> unflat(const std::vector<std::int32_t>& numbers) {
    std::vector<T> out(numbers.size() / (sizeof(T) / sizeof(std::int32_t)));
    std::copy(numbers.begin(), numbers.end(), reinterpret_cast<std::int32_t*>(out.data()));
    return out;
}

/// Calls io.number(name, vector) or io.text(name, texts) for every member.
template <class P, class Io>
void for_each_member(P& p, Io&& io) {
    io.list(names::tokens, p.tokens, "token ids, [CLS] and [SEP] included");
    io.list(names::sequence_begin, p.sequence_begin, "first token of each sequence");
    io.list(names::example_begin, p.example_begin, "first sequence of each example");
    io.structs(names::pieces, p.pieces, "begin and end of each piece, tokens of its sequence");
    io.list(names::piece_begin, p.piece_begin, "first piece of each sequence");
    io.list(names::label, p.label, "class or right choice of each example, -1: not known");
    io.list(names::score, p.score, "score of each example or grade of each candidate");
    io.list(names::group, p.group, "examples of one number share their choices");
    io.list(names::source, p.source, "number of the source of each example in its split");
    io.structs(names::cells, p.cells, "type, start and end of each gold cell");
    io.list(names::cell_begin, p.cell_begin, "first cell of each sequence");
    io.structs(names::visible, p.visible, "tokens of each sequence that may be answers");
    io.list(names::token_chars, p.token_chars, "characters of each token, counted from text_at");
    io.list(names::text_at, p.text_at, "first character of each sequence in the text of its example");
    io.texts(names::text, p.text, "text of each example");
    io.texts(names::id, p.id, "name of each example");
    io.texts(names::gold, p.gold, "what a scorer compares with");
}

std::string begin_name(const char* name) { return std::string(name) + "_begin"; }

struct Writer {
    hid_t group;
    template <class T>
    void list(const char* name, const std::vector<T>& v, const char* what) const {
        h5::write_vector(group, name, v, {.description = what});
    }
    template <class T>
    void structs(const char* name, const std::vector<T>& v, const char* what) const {
        list(name, flat(v), what);
    }
    void texts(const char* name, const Texts& t, const char* what) const {
        list(name, std::vector<std::uint8_t>(t.bytes.begin(), t.bytes.end()), what);
        list(begin_name(name).c_str(), t.begin, "first byte of each");
    }
};

struct Loader {
    hid_t group;
    template <class T>
    void list(const char* name, std::vector<T>& v, const char*) const {
        v = h5::read_vector<T>(group, name);
    }
    template <class T>
    void structs(const char* name, std::vector<T>& v, const char*) const {
        v = unflat<T>(h5::read_vector<std::int32_t>(group, name));
    }
    void texts(const char* name, Texts& t, const char*) const {
        const std::vector<std::uint8_t> bytes = h5::read_vector<std::uint8_t>(group, name);
        t.bytes.assign(bytes.begin(), bytes.end());
        t.begin = h5::read_vector<std::int64_t>(group, begin_name(name));
    }
};

boost::json::object write_map(const std::map<std::string, std::int64_t>& map) {
    boost::json::object out;
    for (const auto& [key, value] : map) out[key] = value;
    return out;
}

std::map<std::string, std::int64_t> read_map(const json::value& v) {
    std::map<std::string, std::int64_t> out;
    for (const auto& [key, value] : v.as_object()) out[std::string(key)] = value.as_int64();
    return out;
}

std::string write_counts(const Counts& counts) {
    boost::json::object out = json::write(counts).as_object();
    out["dropped"] = write_map(counts.dropped), out["lost"] = write_map(counts.lost), out["histogram"] = write_map(counts.histogram);
    for (const std::int64_t length : counts.lengths)
        out["lengths"].is_array() ? out["lengths"].as_array().emplace_back(length) : out["lengths"].emplace_array().emplace_back(length);
    return boost::json::serialize(out);
}

Counts read_counts(const std::string& text) {
    boost::json::object in = boost::json::parse(text).as_object();
    Counts out;
    out.dropped = read_map(in["dropped"]), out.lost = read_map(in["lost"]), out.histogram = read_map(in["histogram"]);
    for (std::size_t i = 0; i < out.lengths.size(); ++i) out.lengths[i] = in["lengths"].at(i).as_int64();
    for (const char* key : {"dropped", "lost", "histogram", "lengths"}) in.erase(key);
    json::read(in, out, {"prepared task", names::counts});
    return out;
}

void save(const PreparedTask& task, const std::string& description, const std::string& key, const fs::path& path) {
    const auto lock = h5::lock();
    {
        h5::File file = h5::create_file(path.string());
        h5::set_attribute(file, schema::version, version);
        h5::set_attribute(file, schema::kind, schema::kind_prepared);
        h5::set_attribute(file, names::task, description);
        h5::set_attribute(file, names::key, key);
        for (const Split split : splits) {
            const h5::Group group = h5::create_group(file, name(split));
            h5::set_attribute(group, names::counts, write_counts(task.counts[static_cast<int>(split)]));
            for_each_member(task[split], Writer{group});
        }
        h5::close_file(file, path.string());
    }
    sync_path(path);
}

PreparedTask load(const fs::path& path) {
    const auto lock = h5::lock();
    PreparedTask out{.cached = true};
    const h5::File file = h5::open_file(path.string());
    for (const Split split : splits) {
        const h5::Group group(h5::check(H5Gopen2(file, name(split), H5P_DEFAULT), path.string()));
        out.counts[static_cast<int>(split)] = read_counts(h5::string_attribute(group, names::counts));
        for_each_member(out.part[static_cast<int>(split)], Loader{group});
    }
    return out;
}

}  // namespace

PreparedTask prepare(const Task& task, const Tokenizer& tokenizer, const Guard& guard, const std::string& cache_folder) {
    const std::string key = key_of(task, tokenizer, guard);
    const fs::path path = fs::path(cache_folder) / (task.file.name + "-" + key.substr(0, 16) + ".h5");
    if (fs::exists(path)) {
        const std::string damage = find_damage(path);
        if (damage.empty()) return load(path);
        fail(damage, "; remove it and it is made anew");
    }
    PreparedTask made = prepare(task, tokenizer, guard);
    fs::create_directories(cache_folder);
    // A name of this process's own: two that make the same file do not disturb each other, the last one stays.
    const fs::path partial = path.string() + "." + std::to_string(getpid()) + ".partial";
    save(made, description(task), key, partial);
    write_digest(partial, {});
    fs::rename(partial.string() + ".digest", path.string() + ".digest");
    rename_durably(partial, path);
    return made;
}

}  // namespace rf::tasks
