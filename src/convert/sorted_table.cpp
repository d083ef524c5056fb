#include "convert/sorted_table.hpp"

#include "convert/crc.hpp"
#include "core/check.hpp"

#include <algorithm>

namespace rf::convert {

namespace {

constexpr std::uint64_t table_magic = 0xdb4775248b80fb57;
constexpr std::int64_t footer_size = 48, trailer_size = 5, largest_block = 64 << 20, largest_table = 256 << 20;
constexpr std::size_t block_target = 1 << 18, restart_interval = 16;

struct Handle {
    std::int64_t offset = 0, size = 0;
};

Handle read_handle(Cursor& cursor) {
    const std::uint64_t offset = cursor.varint(), size = cursor.varint();
    if (offset > static_cast<std::uint64_t>(INT64_MAX) || size > static_cast<std::uint64_t>(largest_block)) cursor.fail_damaged();
    return {static_cast<std::int64_t>(offset), static_cast<std::int64_t>(size)};
}

std::string read_block(const Bytes& file, const Handle& handle) {
    if (handle.offset > file.size()) file.require(handle.offset, handle.size, "a block of the table");
    std::string block = file.text(handle.offset, handle.size + trailer_size, largest_block + trailer_size, "a block of the table");
    const auto size = static_cast<std::size_t>(handle.size);
    if (load<std::uint32_t>(block.data() + size + 1) != masked_crc32c(block.data(), handle.size + 1))
        fail_usage(file.name(), ": the block at byte ", handle.offset, " does not agree with its checksum (damaged)");
    if (block[size] != 0) fail_usage(file.name(), ": the block at byte ", handle.offset, " is compressed (TensorFlow writes checkpoints uncompressed)");
    block.resize(size);
    return block;
}

/// Calls use(key, value) for each entry of a block, in its order.
template <class Use>
void visit(const Bytes& file, const std::string& block, Use use) {
    const std::string place = file.name() + ": a block of the table";
    if (block.size() < 4) Cursor({}, place).fail_damaged();
    const std::uint64_t restarts = load<std::uint32_t>(block.data() + block.size() - 4);
    if (restarts > block.size() / 4 - 1) Cursor({}, place).fail_damaged();
    Cursor cursor(std::string_view(block).substr(0, block.size() - 4 - 4 * restarts), place);
    std::string key;
    while (!cursor.at_end()) {
        const std::uint64_t shared = cursor.varint(), added = cursor.varint(), value = cursor.varint();
        if (shared > key.size()) cursor.fail_damaged();
        key.resize(shared);
        key += cursor.take(added);
        use(key, cursor.take(value), cursor);
    }
}

class BlockText {
public:
    void add(const std::string& key, std::string_view value) {
        std::size_t shared = 0;
        if (count_++ % restart_interval == 0) {
            restarts_.push_back(static_cast<std::uint32_t>(text_.size()));
        } else {
            while (shared < std::min(key.size(), last_.size()) && key[shared] == last_[shared]) ++shared;
        }
        store_varint(text_, shared);
        store_varint(text_, key.size() - shared);
        store_varint(text_, value.size());
        text_.append(key, shared).append(value);
        last_ = key;
    }
    std::size_t size() const { return text_.size(); }
    bool empty() const { return count_ == 0; }
    const std::string& last() const { return last_; }
    Handle write(OutputFile& file) {
        if (restarts_.empty()) restarts_.push_back(0);
        for (const std::uint32_t r : restarts_) store(text_, r);
        store(text_, static_cast<std::uint32_t>(restarts_.size()));
        const Handle handle{file.position(), static_cast<std::int64_t>(text_.size())};
        text_ += '\0';
        store(text_, masked_crc32c(text_.data(), handle.size + 1));
        file.write(text_);
        *this = {};
        return handle;
    }

private:
    std::string text_, last_;
    std::vector<std::uint32_t> restarts_;
    std::size_t count_ = 0;
};

std::string to_text(const Handle& handle) {
    std::string out;
    store_varint(out, static_cast<std::uint64_t>(handle.offset));
    store_varint(out, static_cast<std::uint64_t>(handle.size));
    return out;
}

}  // namespace

std::uint32_t mask_crc(std::uint32_t crc) { return ((crc >> 15) | (crc << 17)) + 0xa282ead8U; }
std::uint32_t masked_crc32c(const void* data, std::int64_t count) { return mask_crc(crc32c(data, count)); }

void store_varint(std::string& out, std::uint64_t value) {
    for (; value >= 0x80; value >>= 7) out += static_cast<char>((value & 0x7fU) | 0x80U);
    out += static_cast<char>(value);
}

std::uint64_t Cursor::varint() {
    std::uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        const auto byte = static_cast<unsigned char>(take(1)[0]);
        value |= static_cast<std::uint64_t>(byte & 0x7fU) << shift;
        if (!(byte & 0x80U)) return value;
    }
    fail_damaged();
}

std::string_view Cursor::take(std::uint64_t count) {
    if (count > text_.size() - at_) fail_damaged();
    const std::string_view out = text_.substr(at_, count);
    at_ += count;
    return out;
}

void Cursor::fail_damaged() const { fail_usage(name_, " is damaged"); }

std::map<std::string, std::string> read_sorted_table(const Bytes& file) {
    if (file.size() < footer_size) fail_usage(file.name(), ": too short for a table of TensorFlow (truncated, or another format)");
    const std::string footer = file.text(file.size() - footer_size, footer_size, footer_size, "the footer");
    if (load<std::uint64_t>(footer.data() + footer_size - 8) != table_magic)
        fail_usage(file.name(), ": no table of TensorFlow (its last eight bytes are not the format's; truncated, or another format)");
    Cursor cursor(std::string_view(footer).substr(0, footer_size - 8), file.name() + ": the footer");
    read_block(file, read_handle(cursor));  // the metaindex, which checkpoints leave empty
    const std::string index = read_block(file, read_handle(cursor));
    while (!cursor.at_end())
        if (cursor.take(1)[0] != 0) cursor.fail_damaged();
    std::map<std::string, std::string> entries;
    std::int64_t total = 0;
    visit(file, index, [&](const std::string&, std::string_view value, const Cursor&) {
        Cursor handle(value, file.name() + ": the index");
        visit(file, read_block(file, read_handle(handle)), [&](const std::string& key, std::string_view content, const Cursor& block) {
            // Keys rise, or some would be lost.
            if (!entries.empty() && key <= entries.rbegin()->first) block.fail_damaged();
            total += static_cast<std::int64_t>(key.size() + content.size());
            if (total > largest_table) fail_usage(file.name(), ": a table of more than ", largest_table, " bytes");
            entries.emplace_hint(entries.end(), key, content);
        });
    });
    return entries;
}

void write_sorted_table(OutputFile& file, const std::map<std::string, std::string>& entries) {
    BlockText block, index;
    const auto end_block = [&] {
        const std::string last = block.last();
        index.add(last, to_text(block.write(file)));
    };
    for (const auto& [key, value] : entries) {
        block.add(key, value);
        if (block.size() >= block_target) end_block();
    }
    if (!block.empty()) end_block();
    std::string footer = to_text(BlockText().write(file));
    footer += to_text(index.write(file));
    footer.resize(static_cast<std::size_t>(footer_size) - 8, '\0');
    store(footer, table_magic);
    file.write(footer);
}

}  // namespace rf::convert
