#include "io/text_input.hpp"

#include <boost/iostreams/filter/gzip.hpp>
#include <boost/iostreams/filter/lzma.hpp>
#include <boost/iostreams/filter/zstd.hpp>
#include <boost/iostreams/device/file.hpp>
#include <boost/iostreams/filtering_stream.hpp>

#include <glob.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>

namespace rf {

namespace fs = std::filesystem;
namespace bio = boost::iostreams;

namespace {

constexpr std::size_t buffer_bytes = 1 << 18;

/// zstd_decompressor takes the end of a truncated file for the end of the text. So every .zst file is read with one more frame behind
/// it, a run of zeros (RFC 8878: magic number, single segment of 64 bytes, last block of kind RLE): only behind a whole frame does it
/// come out as zeros, and its own bytes hold no such run.
constexpr std::size_t end_zeros = 64;
constexpr std::string_view end_frame("\x28\xB5\x2F\xFD\x20\x40\x03\x02\x00\x00", 10);

class FileWithEndFrame {
public:
    using char_type = char;
    using category = bio::source_tag;
    explicit FileWithEndFrame(const std::string& path) : file_(path, std::ios::binary) {}
    std::streamsize read(char* to, std::streamsize size) {
        if (const std::streamsize n = file_.read(to, size); n > 0) return n;
        const std::size_t n = rest_.copy(to, static_cast<std::size_t>(size));
        rest_.remove_prefix(n);
        return n > 0 ? static_cast<std::streamsize>(n) : -1;
    }

private:
    bio::file_source file_;
    std::string_view rest_ = end_frame;
};

void add_path(const std::string& path, const json::Place& place, std::vector<std::string>& out) {
    if (path.find_first_of("*?[") != std::string::npos && !fs::exists(path)) {
        glob_t found{};
        const int status = ::glob(path.c_str(), 0, nullptr, &found);
        std::vector<std::string> names(found.gl_pathv, found.gl_pathv + (status == 0 ? found.gl_pathc : 0));
        globfree(&found);
        if (names.empty()) fail_usage(place, ": nothing matches ", path);
        for (const std::string& name : names) add_path(name, place, out);
        return;
    }
    if (!fs::exists(path)) fail_usage(place, ": ", path, " does not exist");
    if (!fs::is_directory(path)) {
        out.push_back(path);
        return;
    }
    std::vector<std::string> names;
    for (const auto& entry : fs::recursive_directory_iterator(path))
        if (entry.is_regular_file()) names.push_back(entry.path().string());
    if (names.empty()) fail_usage(place, ": the folder ", path, " is empty");
    std::sort(names.begin(), names.end());
    out.insert(out.end(), names.begin(), names.end());
}

}  // namespace

std::vector<std::string> expand_paths(const json::value& what, const json::Place& place) {
    std::vector<std::string> out;
    if (what.is_array()) {
        for (const json::value& item : what.as_array()) {
            if (!item.is_string() || item.as_string().empty()) json::fail_type(place, "a list of text files, folders or globs", item);
            add_path(std::string(item.as_string()), place, out);
        }
    } else {
        if (!what.is_string() || what.as_string().empty()) json::fail_type(place, "a text file, folder, glob or a list of them", what);
        add_path(std::string(what.as_string()), place, out);
    }
    if (out.empty()) fail_usage(place, ": no text files given");
    return out;
}

std::string without_compression(const std::string& path) {
    for (const char* ending : {".gz", ".xz", ".zst"})
        if (path.ends_with(ending)) return path.substr(0, path.size() - std::string_view(ending).size());
    return path;
}

bool is_blank(const std::string& line) { return line.find_first_not_of(" \t") == std::string::npos; }

TextRecord text_of_record(const std::string& line) {
    boost::system::error_code error;
    boost::json::monotonic_resource memory(line.size() + 1024);  // the values go with it, all at once
    const json::value v = boost::json::parse(line, error, &memory);
    if (error) fail("not valid JSON (", error.message(), ")");
    if (!v.is_object()) fail("expected a JSON object with \"text\", \"content\" or \"words\"");
    TextRecord record;
    if (const auto* words = v.as_object().if_contains("words")) {
        if (!words->is_array()) fail("\"words\" is not a list");
        for (const json::value& word : words->as_array()) {
            if (!word.is_string()) fail("\"words\" holds something that is not a string");
            record.words.emplace_back(word.as_string());
            record.text += record.words.back();
        }
        return record;
    }
    for (const char* key : {"text", "content"}) {
        const auto* found = v.as_object().if_contains(key);
        if (!found) continue;
        if (!found->is_string()) fail('"', key, "\" is not a string");
        record.text = std::string(found->as_string());
        return record;
    }
    fail("the record has no \"text\", \"content\" or \"words\"");
}

namespace {
/// Empty at the end.
std::vector<char> read_piece(std::istream& in) {
    std::vector<char> piece(buffer_bytes);
    in.read(piece.data(), static_cast<std::streamsize>(piece.size()));
    piece.resize(static_cast<std::size_t>(in.gcount()));
    return piece;
}
}  // namespace

bool LineReader::open_next() {
    if (file_ == paths_.size()) return false;
    const std::string& path = paths_[file_++];
    number_ = position_ = 0;
    auto in = std::make_unique<bio::filtering_istream>();
    if (path.ends_with(".gz")) in->push(bio::gzip_decompressor(bio::gzip::default_window_bits, buffer_bytes));
    if (path.ends_with(".xz")) in->push(bio::lzma_decompressor(buffer_bytes));
    if (path.ends_with(".zst")) in->push(bio::zstd_decompressor(buffer_bytes));
    std::ifstream file(path, std::ios::binary);
    if (!file) fail_usage("cannot read ", path);
    if (path.ends_with(".zst")) in->push(FileWithEndFrame(path), buffer_bytes);
    else in->push(bio::file_source(path, std::ios::binary), buffer_bytes);
    in->exceptions(std::ios::badbit);
    in_ = std::move(in);
    if (without_compression(path) != path) ahead_.emplace([this](std::int64_t) { return read_piece(*in_); }, 0);
    buffer_.clear();
    at_ = 0;
    return true;
}

bool LineReader::read_buffer() {
    buffer_ = ahead_ ? ahead_->next() : read_piece(*in_);
    at_ = 0;
    return !buffer_.empty();
}

/// Appends up to the end of the line; false at the end of the file with nothing read.
bool LineReader::read_line(std::string& line) {
    line.clear();
    for (bool any = false;; any = true) {
        if (at_ == buffer_.size() && !read_buffer()) {
            if (!path().ends_with(".zst")) return any;
            if (!line.ends_with(std::string(end_zeros, '\0'))) throw std::ios_base::failure("truncated");
            line.resize(line.size() - end_zeros);
            return !line.empty();
        }
        const char* begin = buffer_.data() + at_;
        const auto* newline = static_cast<const char*>(std::memchr(begin, '\n', buffer_.size() - at_));
        const std::size_t size = newline ? static_cast<std::size_t>(newline - begin) : buffer_.size() - at_;
        if (line.size() + size > longest_line) fail_usage(path(), ":", number_ + 1, ": a line longer than 64 MiB");
        line.append(begin, size);
        const std::size_t taken = size + (newline ? 1 : 0);
        at_ += taken;
        position_ += static_cast<std::int64_t>(taken);
        if (newline) return true;
    }
}

void LineReader::pass(std::int64_t bytes) {
    if (!in_ || ahead_) return;
    // The line that holds the last of these bytes is left out to its end.
    for (bool within_line = false; bytes > 0 || within_line;) {
        try {
            if (at_ == buffer_.size() && !read_buffer()) return;
        } catch (const std::ios_base::failure&) {
            fail_usage(path(), ": cannot be read after line ", number_);
        }
        const char *const begin = buffer_.data() + at_, *const end = buffer_.data() + buffer_.size(), *stop = end;
        if (bytes <= end - begin) {
            const char* last = begin + std::max<std::int64_t>(bytes - 1, 0);
            const auto* newline = static_cast<const char*>(std::memchr(last, '\n', static_cast<std::size_t>(end - last)));
            within_line = newline == nullptr;
            if (newline) stop = newline + 1;
        }
        number_ += std::count(begin, stop, '\n');
        bytes = std::max<std::int64_t>(bytes - (stop - begin), 0);
        at_ += static_cast<std::size_t>(stop - begin);
        position_ += stop - begin;
    }
}

bool LineReader::next(std::string& line) {
    while (in_ || open_next()) {
        try {
            if (read_line(line)) {
                ++number_;
                if (line.ends_with('\r')) line.pop_back();
                if (number_ == 1 && line.starts_with("\xEF\xBB\xBF")) line.erase(0, 3);
                return true;
            }
        } catch (const std::ios_base::failure&) {
            fail_usage(path(), ": cannot be decompressed after line ", number_, " (damaged or truncated)");
        }
        ahead_.reset();
        in_.reset();
    }
    return false;
}

}  // namespace rf
