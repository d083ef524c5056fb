#pragma once
/// Lines of text files, plain or compressed (.gz .xz .zst), in bounded memory.

#include "io/json.hpp"
#include "io/prefetcher.hpp"

#include <cstdint>
#include <istream>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace rf {

/// Files named by a path, a folder (every file in it, deeper ones too), a glob, or a list of these; sorted within each
/// item. A UsageError names what matches nothing.
std::vector<std::string> expand_paths(const json::value& what, const json::Place& place);

/// The name without a compression ending: "a.jsonl" of "a.jsonl.xz".
std::string without_compression(const std::string& path);

/// Nothing but blanks and tabs.
bool is_blank(const std::string& line);

/// Lines and paragraphs are held in memory whole, so they have a limit.
inline constexpr std::size_t longest_line = 64 << 20;

/// One line of JSONL: `text`, `content`, or `words` (pieces that follow each other).
struct TextRecord {
    std::string text;
    std::vector<std::string> words;  ///< empty unless the record gave them
};
/// Errors say what is wrong; the caller adds file and line.
TextRecord text_of_record(const std::string& line);

/// All lines of a list of files, one after another. A line longer than 64 MiB, or a stream that cannot be decompressed, is
/// a UsageError that names the file.
class LineReader {
public:
    explicit LineReader(std::vector<std::string> paths) : paths_(std::move(paths)) {}
    /// False at the end of the last file. Ends of line (\n or \r\n) and a byte order mark are taken off.
    bool next(std::string& line);
    /// Leaves out the lines that begin within the next `bytes` bytes of a plain file; they are counted, but neither copied nor held to the longest
    /// line. Of a compressed file none is left out.
    void pass(std::int64_t bytes);
    /// Bytes of the file, decompressed, up to the end of the line last read or left out.
    std::int64_t position() const { return position_; }
    /// Of the line just read.
    std::size_t file_index() const { return file_ - 1; }
    const std::string& path() const { return paths_[file_ - 1]; }
    std::int64_t line_number() const { return number_; }

private:
    bool open_next();
    bool read_line(std::string& line);
    /// Makes the next piece the buffer; false where there is none.
    bool read_buffer();
    std::vector<std::string> paths_;
    std::size_t file_ = 0;
    std::int64_t number_ = 0, position_ = 0;
    std::unique_ptr<std::istream> in_;
    std::optional<Prefetcher<std::vector<char>>> ahead_;  ///< of a compressed file: decompresses while the lines are worked on
    std::vector<char> buffer_;
    std::size_t at_ = 0;  ///< in the buffer
};

}  // namespace rf
