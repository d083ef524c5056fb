/// Fuzz target: the index of a TensorFlow checkpoint. The first byte chooses: the file as it is; a block of entries within a table whose checksums
/// agree; or entries, each a name and a protocol buffer, in such a table.

#include "convert/sorted_table.hpp"
#include "convert/tf_bundle.hpp"
#include "core/check.hpp"

namespace {

using namespace rf::convert;

const std::string numbers(256, '\1');

std::unique_ptr<Bytes> open_shard(const std::string&, std::int64_t, std::int64_t) { return std::make_unique<Bytes>(numbers, "data"); }

std::string handle(std::size_t offset, std::size_t size) {
    std::string out;
    store_varint(out, offset);
    store_varint(out, size);
    return out;
}

void add_block(std::string& file, std::string block) {
    block += '\0';
    store(block, masked_crc32c(block.data(), static_cast<std::int64_t>(block.size())));
    file += block;
}

/// A block with one restart.
std::string restarts(std::string block) { return block + std::string(4, '\0') + std::string("\1\0\0\0", 4); }

void entry(std::string& block, std::string_view key, std::string_view value) {
    store_varint(block, 0);
    store_varint(block, key.size());
    store_varint(block, value.size());
    block.append(key).append(value);
}

std::string table(const std::string& block) {
    std::string file, index, footer;
    add_block(file, block);
    entry(index, "~", handle(0, block.size()));
    index = restarts(index);
    const std::size_t meta_at = file.size();
    add_block(file, restarts({}));
    const std::size_t index_at = file.size();
    add_block(file, index);
    footer = handle(meta_at, 8) + handle(index_at, index.size());
    footer.resize(40, '\0');
    store<std::uint64_t>(footer, 0xdb4775248b80fb57);
    return file + footer;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    std::string content(reinterpret_cast<const char*>(data) + 1, size - 1);
    if (data[0] % 3 == 1) content = table(content);
    if (data[0] % 3 == 2) {
        // Pieces of the input, each after its length, as values of rising names; the first is the header.
        std::string block;
        char name = 'a';
        for (std::size_t at = 0; at < content.size() && name < 'z';) {
            const std::size_t n = std::min<std::size_t>(static_cast<unsigned char>(content[at]), content.size() - at - 1);
            entry(block, at == 0 ? std::string_view() : std::string_view(&name, 1), std::string_view(content).substr(at + 1, n));
            if (at > 0) ++name;
            at += n + 1;
        }
        content = table(restarts(block));
    }
    try {
        const Bytes index(content, "input");
        const auto reader = read_tf_bundle(index, "prefix", &open_shard);
        for (const auto& [tensor, info] : reader->tensors()) {
            std::vector<float> out(static_cast<std::size_t>(element_count(info.dims, 1 << 20, "input", tensor)));
            reader->read(tensor, out.data());
        }
    } catch (const rf::Error&) {
    }
    return 0;
}
