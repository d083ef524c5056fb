#include "convert/zip.hpp"

#include "convert/crc.hpp"
#include "core/check.hpp"

#include <algorithm>
#include <limits>

namespace rf::convert {

namespace {

// Signatures and fixed sizes of APPNOTE.TXT, sections 4.3.7 to 4.3.16.
constexpr std::uint32_t local_mark = 0x04034b50, central_mark = 0x02014b50, end_mark = 0x06054b50, end64_mark = 0x06064b50, locator64_mark = 0x07064b50;
constexpr std::int64_t local_size = 30, central_size = 46, end_size = 22, end64_size = 56, locator64_size = 20;
constexpr std::uint64_t small_limit = 0xffffffff;  // what a 32-bit field says when the number stands in a zip64 field
constexpr std::int64_t largest_directory = 64 << 20;

std::uint16_t u16(const std::string& text, std::int64_t at) { return load<std::uint16_t>(text.data() + at); }
std::uint32_t u32(const std::string& text, std::int64_t at) { return load<std::uint32_t>(text.data() + at); }
std::uint64_t u64(const std::string& text, std::int64_t at) { return load<std::uint64_t>(text.data() + at); }

struct Directory {
    std::uint64_t begin = 0, size = 0, entries = 0;
};

Directory find_directory(const Bytes& file) {
    const std::int64_t tail = std::min<std::int64_t>(file.size(), end_size + 0xffff);
    const std::string text = file.text(file.size() - tail, tail, tail, "the end of the archive");
    for (std::int64_t at = tail - end_size; at >= 0; --at) {
        if (u32(text, at) != end_mark || at + end_size + u16(text, at + 20) != tail) continue;
        Directory directory{u32(text, at + 16), u32(text, at + 12), u16(text, at + 10)};
        const std::int64_t locator = at - locator64_size;
        if (locator >= 0 && u32(text, locator) == locator64_mark) {
            const std::uint64_t begin = u64(text, locator + 8);
            if (begin > static_cast<std::uint64_t>(file.size())) fail_usage(file.name(), ": the zip64 directory lies outside of the file (damaged)");
            const std::string end64 = file.text(static_cast<std::int64_t>(begin), end64_size, end64_size, "the zip64 directory");
            if (u32(end64, 0) != end64_mark) fail_usage(file.name(), ": the zip64 directory is damaged");
            directory = {u64(end64, 48), u64(end64, 40), u64(end64, 32)};
        }
        const auto size = static_cast<std::uint64_t>(file.size());
        if (directory.begin > size || directory.size > size - directory.begin) fail_usage(file.name(), ": the zip directory lies outside of the file (truncated or damaged)");
        return directory;
    }
    fail_usage(file.name(), ": a zip archive without its directory at the end (truncated or damaged)");
}

/// Sizes and offset of a central entry, from zip64 fields where the 32-bit ones say so.
struct Numbers {
    std::uint64_t size = 0, stored = 0, header = 0;
};
Numbers numbers_of(const Bytes& file, const std::string& text, std::int64_t at, std::int64_t extra, std::int64_t extra_size) {
    Numbers n{u32(text, at + 24), u32(text, at + 20), u32(text, at + 42)};
    for (std::int64_t field = extra; field + 4 <= extra + extra_size;) {
        const std::int64_t id = u16(text, field), size = u16(text, field + 2), end = field + 4 + size;
        if (end > extra + extra_size) fail_usage(file.name(), ": a zip entry with a damaged extra field");
        if (id == 1) {
            std::int64_t part = field + 4;
            for (std::uint64_t* number : {&n.size, &n.stored, &n.header})
                if (*number == small_limit && part + 8 <= end) *number = u64(text, part), part += 8;
        }
        field = end;
    }
    return n;
}

}  // namespace

std::map<std::string, ZipEntry> read_zip(const Bytes& file) {
    const Directory directory = find_directory(file);
    const std::string text = file.text(static_cast<std::int64_t>(directory.begin), static_cast<std::int64_t>(directory.size), largest_directory, "the zip directory");
    const auto size = static_cast<std::int64_t>(text.size());
    std::map<std::string, ZipEntry> entries;
    std::int64_t at = 0;
    for (std::uint64_t i = 0; i < directory.entries; ++i) {
        if (at + central_size > size || u32(text, at) != central_mark) fail_usage(file.name(), ": the zip directory is damaged at its entry ", i);
        const std::int64_t name_size = u16(text, at + 28), extra_size = u16(text, at + 30), comment_size = u16(text, at + 32);
        const std::int64_t extra = at + central_size + name_size;
        if (extra + extra_size + comment_size > size) fail_usage(file.name(), ": the zip directory is damaged at its entry ", i);
        const std::string name = text.substr(static_cast<std::size_t>(at + central_size), static_cast<std::size_t>(name_size));
        const Numbers n = numbers_of(file, text, at, extra, extra_size);
        if (u16(text, at + 10) != 0 || n.size != n.stored || (u16(text, at + 8) & 1U))
            fail_usage(file.name(), ": entry ", name, " is compressed or encrypted (expected a stored one, as torch.save writes)");
        const auto limit = static_cast<std::uint64_t>(file.size());
        if (n.header > limit || n.size > limit) fail_usage(file.name(), ": entry ", name, " lies outside of the file (damaged)");
        const auto header = static_cast<std::int64_t>(n.header);
        const std::string local = file.text(header, local_size, local_size, "entry " + name);
        if (u32(local, 0) != local_mark) fail_usage(file.name(), ": entry ", name, " is not where the directory says (damaged)");
        const ZipEntry entry{header + local_size + u16(local, 26) + u16(local, 28), static_cast<std::int64_t>(n.size), u32(text, at + 16)};
        file.require(entry.begin, entry.size, "entry " + name);
        if (!entries.emplace(name, entry).second) fail_usage(file.name(), ": two entries named ", name);
        at = extra + extra_size + comment_size;
    }
    return entries;
}

namespace {

std::uint32_t small(std::int64_t n) { return static_cast<std::uint32_t>(std::min(static_cast<std::uint64_t>(n), small_limit)); }
bool is_large(std::int64_t n) { return static_cast<std::uint64_t>(n) >= small_limit; }

/// Fields that local and central headers share, from the version needed to the size of the name. No date: equal content gives equal bytes.
void put_common(std::string& out, bool large, std::uint32_t crc, std::int64_t size, const std::string& name) {
    store<std::uint16_t>(out, large ? 45 : 20);
    store<std::uint16_t>(out, 0x800);  // names are UTF-8
    store<std::uint16_t>(out, 0);      // stored
    store<std::uint16_t>(out, 0);      // time
    store<std::uint16_t>(out, 0x21);   // 1980-01-01
    store<std::uint32_t>(out, crc);
    store<std::uint32_t>(out, small(size));
    store<std::uint32_t>(out, small(size));
    store<std::uint16_t>(out, static_cast<std::uint16_t>(name.size()));
}

}  // namespace

void ZipWriter::begin(const std::string& name, std::int64_t size) {
    RF_REQUIRE(to_come_ == 0 && name.size() < 1000, "a zip entry begins within another");
    entries_.push_back({name, file_.position(), size, 0});
    std::string header, extra;
    store(header, local_mark);
    put_common(header, is_large(size), 0, size, name);
    if (is_large(size)) {
        store<std::uint16_t>(extra, 1);
        store<std::uint16_t>(extra, 16);
        store(extra, static_cast<std::uint64_t>(size));
        store(extra, static_cast<std::uint64_t>(size));
    }
    // A field of padding brings the content to a multiple of 64 bytes, as torch's own writer does.
    const std::int64_t fixed = file_.position() + local_size + static_cast<std::int64_t>(name.size() + extra.size()) + 4;
    const std::int64_t padding = (64 - fixed % 64) % 64;
    store<std::uint16_t>(extra, 0x4246);
    store<std::uint16_t>(extra, static_cast<std::uint16_t>(padding));
    extra.append(static_cast<std::size_t>(padding), 'Z');
    store<std::uint16_t>(header, static_cast<std::uint16_t>(extra.size()));
    file_.write(header + name + extra);
    to_come_ = size;
}

void ZipWriter::write(const void* data, std::int64_t count) {
    RF_REQUIRE(count <= to_come_, "more bytes than the zip entry was begun with");
    entries_.back().crc = crc32(data, count, entries_.back().crc);
    file_.write(data, count);
    to_come_ -= count;
}

void ZipWriter::end() {
    RF_REQUIRE(to_come_ == 0, "fewer bytes than the zip entry was begun with");
    std::string crc;
    store(crc, entries_.back().crc);
    file_.patch(entries_.back().header + 14, crc);
}

void ZipWriter::finish() {
    const std::int64_t begin = file_.position();
    for (const Written& entry : entries_) {
        std::string header, extra;
        for (const std::int64_t n : {entry.size, entry.size, entry.header})
            if (is_large(n)) store(extra, static_cast<std::uint64_t>(n));
        if (!extra.empty()) {
            std::string field;
            store<std::uint16_t>(field, 1);
            store<std::uint16_t>(field, static_cast<std::uint16_t>(extra.size()));
            extra = field + extra;
        }
        store(header, central_mark);
        store<std::uint16_t>(header, extra.empty() ? 20 : 45);
        put_common(header, !extra.empty(), entry.crc, entry.size, entry.name);
        store<std::uint16_t>(header, static_cast<std::uint16_t>(extra.size()));
        header.append(10, '\0');  // comment, disk, attributes
        store<std::uint32_t>(header, small(entry.header));
        RF_REQUIRE(static_cast<std::int64_t>(header.size()) == central_size, "zip header of ", header.size(), " bytes");
        file_.write(header + entry.name + extra);
    }
    const std::int64_t end = file_.position();
    std::string text;
    const auto count = static_cast<std::uint64_t>(entries_.size());
    if (is_large(end) || count >= 0xffff) {
        store(text, end64_mark);
        store<std::uint64_t>(text, static_cast<std::uint64_t>(end64_size - 12));
        store<std::uint16_t>(text, 45);
        store<std::uint16_t>(text, 45);
        store<std::uint64_t>(text, 0);  // disks
        store(text, count);
        store(text, count);
        store(text, static_cast<std::uint64_t>(end - begin));
        store(text, static_cast<std::uint64_t>(begin));
        store(text, locator64_mark);
        store<std::uint32_t>(text, 0);
        store(text, static_cast<std::uint64_t>(end));
        store<std::uint32_t>(text, 1);
    }
    store(text, end_mark);
    store<std::uint32_t>(text, 0);
    const auto few = static_cast<std::uint16_t>(std::min<std::uint64_t>(count, 0xffff));
    store(text, few);
    store(text, few);
    store(text, small(end - begin));
    store(text, small(begin));
    store<std::uint16_t>(text, 0);
    file_.write(text);
}

}  // namespace rf::convert
