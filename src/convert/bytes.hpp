#pragma once
/// Bytes of foreign files: reading within bounds, writing in order.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace rf::convert {

/// A file, or memory that stands for one. Nothing is mapped: memory use is what the caller asks for.
class Bytes {
public:
    explicit Bytes(const std::filesystem::path& path);
    /// `content` must outlive it; `name` stands for the file in messages.
    Bytes(std::string_view content, std::string name);
    Bytes(const Bytes&) = delete;
    Bytes& operator=(const Bytes&) = delete;
    ~Bytes();

    const std::string& name() const { return name_; }
    std::int64_t size() const { return size_; }
    /// A UsageError naming the file when these bytes are not all in it; `what` they are.
    void require(std::int64_t offset, std::int64_t count, std::string_view what) const;
    void read(std::int64_t offset, std::int64_t count, void* out, std::string_view what) const;
    /// At most `limit` bytes, so that a damaged count cannot ask for more.
    std::string text(std::int64_t offset, std::int64_t count, std::int64_t limit, std::string_view what) const;

private:
    std::string name_;
    std::string_view content_;
    int descriptor_ = -1;
    std::int64_t size_ = 0;
};

/// A file written from front to back, through a buffer; or numbers put at their places in one that a library makes.
class OutputFile {
public:
    enum class Open { create, existing };
    explicit OutputFile(std::filesystem::path path, Open open = Open::create);
    OutputFile(const OutputFile&) = delete;
    OutputFile& operator=(const OutputFile&) = delete;
    ~OutputFile();

    std::int64_t position() const { return position_; }
    void write(const void* data, std::int64_t count);
    void write(std::string_view text) { write(text.data(), static_cast<std::int64_t>(text.size())); }
    void zeros(std::int64_t count);
    /// Overwrites bytes written before.
    void patch(std::int64_t offset, std::string_view text);
    /// At a place, past the buffer.
    void put(const void* data, std::int64_t count, std::int64_t offset) const;
    /// Closes. On the disk for certain after sync_path.
    void finish();

private:
    void flush();

    std::filesystem::path path_;
    int descriptor_ = -1;
    std::int64_t position_ = 0;
    std::string buffer_;
};

/// Little-endian numbers.
template <class T>
T load(const char* bytes) {
    T value = 0;
    for (std::size_t i = 0; i < sizeof(T); ++i) value = static_cast<T>(value | static_cast<T>(static_cast<T>(static_cast<unsigned char>(bytes[i])) << (8 * i)));
    return value;
}
template <class T>
void store(std::string& out, T value) {
    for (std::size_t i = 0; i < sizeof(T); ++i) out += static_cast<char>(static_cast<unsigned char>(value >> (8 * i)));
}

}  // namespace rf::convert
