#include "convert/bytes.hpp"

#include "core/check.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace rf::convert {

namespace {

constexpr std::int64_t buffered = 1 << 20;

}  // namespace

Bytes::Bytes(const std::filesystem::path& path) : name_(path.string()) {
    descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (descriptor_ < 0) fail_usage(name_, ": cannot be opened (", std::strerror(errno), ")");
    struct stat status;
    const bool regular = ::fstat(descriptor_, &status) == 0 && S_ISREG(status.st_mode);
    size_ = regular ? status.st_size : 0;
    if (!regular) {
        ::close(descriptor_);
        fail_usage(name_, ": not a file");
    }
}

Bytes::Bytes(std::string_view content, std::string name) : name_(std::move(name)), content_(content), size_(static_cast<std::int64_t>(content.size())) {}

Bytes::~Bytes() {
    if (descriptor_ >= 0) ::close(descriptor_);
}

void Bytes::require(std::int64_t offset, std::int64_t count, std::string_view what) const {
    if (offset < 0 || count < 0 || offset > size_ || count > size_ - offset)
        fail_usage(name_, ": ", what, " would lie at bytes ", offset, " + ", count, ", the file has ", size_, " (truncated or damaged)");
}

void Bytes::read(std::int64_t offset, std::int64_t count, void* out, std::string_view what) const {
    require(offset, count, what);
    auto* to = static_cast<char*>(out);
    if (descriptor_ < 0) {
        if (count > 0) std::memcpy(to, content_.data() + offset, static_cast<std::size_t>(count));
        return;
    }
    while (count > 0) {
        const ssize_t n = ::pread(descriptor_, to, static_cast<std::size_t>(count), offset);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) fail(name_, ": cannot be read (", std::strerror(errno), ")");
        if (n == 0) fail(name_, ": grew shorter while it was read");
        to += n, offset += n, count -= n;
    }
}

std::string Bytes::text(std::int64_t offset, std::int64_t count, std::int64_t limit, std::string_view what) const {
    require(offset, count, what);
    if (count > limit) fail_usage(name_, ": ", what, " of ", count, " bytes (expected at most ", limit, ")");
    std::string out(static_cast<std::size_t>(count), '\0');
    read(offset, count, out.data(), what);
    return out;
}

OutputFile::OutputFile(std::filesystem::path path, Open open) : path_(std::move(path)) {
    descriptor_ = ::open(path_.c_str(), O_WRONLY | O_CLOEXEC | (open == Open::create ? O_CREAT | O_EXCL : 0), 0666);
    if (descriptor_ < 0) fail(open == Open::create ? "cannot create " : "cannot open ", path_.string(), " (", std::strerror(errno), ")");
}

OutputFile::~OutputFile() {
    if (descriptor_ >= 0) ::close(descriptor_);
}

void OutputFile::put(const void* data, std::int64_t count, std::int64_t offset) const {
    const auto* from = static_cast<const char*>(data);
    while (count > 0) {
        const ssize_t n = ::pwrite(descriptor_, from, static_cast<std::size_t>(count), offset);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) fail("cannot write ", path_.string(), " (", std::strerror(errno), ")");
        from += n, offset += n, count -= n;
    }
}

void OutputFile::flush() {
    put(buffer_.data(), static_cast<std::int64_t>(buffer_.size()), position_ - static_cast<std::int64_t>(buffer_.size()));
    buffer_.clear();
}

void OutputFile::write(const void* data, std::int64_t count) {
    const auto* from = static_cast<const char*>(data);
    if (static_cast<std::int64_t>(buffer_.size()) + count > buffered) flush();
    if (count > buffered) put(from, count, position_);
    else buffer_.append(from, static_cast<std::size_t>(count));
    position_ += count;
}

void OutputFile::zeros(std::int64_t count) {
    RF_REQUIRE(count >= 0 && count <= buffered, "padding of ", count, " bytes");
    write(std::string(static_cast<std::size_t>(count), '\0'));
}

void OutputFile::patch(std::int64_t offset, std::string_view text) {
    RF_REQUIRE(offset >= 0 && offset + static_cast<std::int64_t>(text.size()) <= position_, "patch outside of what was written");
    flush();
    put(text.data(), static_cast<std::int64_t>(text.size()), offset);
}

void OutputFile::finish() {
    flush();
    const int closed = ::close(descriptor_);
    descriptor_ = -1;
    if (closed != 0) fail("cannot close ", path_.string(), " (", std::strerror(errno), ")");
}

}  // namespace rf::convert
