#pragma once
/// The sorted string table that TensorFlow took over from LevelDB: blocks of entries in the order of their keys, each key as what it adds
/// to the one before, a checksum behind each block, an index of blocks, a footer. Blocks are written uncompressed, as TensorFlow's checkpoints are.

#include "convert/bytes.hpp"

#include <map>
#include <string>

namespace rf::convert {

/// TensorFlow stores CRC-32C turned by 15 bits with a constant added, so that checksums of checksums differ from them.
std::uint32_t masked_crc32c(const void* data, std::int64_t count);
std::uint32_t mask_crc(std::uint32_t crc);

/// All entries, at most 256 MiB of them. Errors are UsageErrors naming the file.
std::map<std::string, std::string> read_sorted_table(const Bytes& file);
void write_sorted_table(OutputFile& file, const std::map<std::string, std::string>& entries);

void store_varint(std::string& out, std::uint64_t value);

/// Reads numbers and texts from a stretch of bytes; asked for more than there is, it fails with the name it was given.
class Cursor {
public:
    Cursor(std::string_view text, std::string name) : text_(text), name_(std::move(name)) {}
    bool at_end() const { return at_ == text_.size(); }
    std::uint64_t varint();
    template <class T>
    T fixed() {
        return load<T>(take(sizeof(T)).data());
    }
    std::string_view take(std::uint64_t count);
    [[noreturn]] void fail_damaged() const;

private:
    std::string_view text_;
    std::size_t at_ = 0;
    std::string name_;
};

}  // namespace rf::convert
