#pragma once
/// Zip archives of stored (not compressed) files, as torch.save makes them, those above 4 GiB (zip64) included.

#include "convert/bytes.hpp"

#include <map>

namespace rf::convert {

struct ZipEntry {
    std::int64_t begin = 0;  ///< first byte of its content in the archive
    std::int64_t size = 0;
    std::uint32_t crc = 0;
};

/// Entries by name. Errors are UsageErrors naming the file: no archive, a compressed or encrypted entry, two of one name, one that lies outside.
std::map<std::string, ZipEntry> read_zip(const Bytes& file);

/// Writes entries one after another, the content of each at a multiple of 64 bytes.
class ZipWriter {
public:
    explicit ZipWriter(OutputFile& file) : file_(file) {}
    void begin(const std::string& name, std::int64_t size);
    void write(const void* data, std::int64_t count);
    void end();
    void add(const std::string& name, std::string_view content) {
        begin(name, static_cast<std::int64_t>(content.size()));
        write(content.data(), static_cast<std::int64_t>(content.size()));
        end();
    }
    /// The directory.
    void finish();

private:
    struct Written {
        std::string name;
        std::int64_t header = 0, size = 0;
        std::uint32_t crc = 0;
    };
    OutputFile& file_;
    std::vector<Written> entries_;
    std::int64_t to_come_ = 0;
};

}  // namespace rf::convert
