/// Fuzz target: a file of torch.save, archive or stream. With an odd first byte the rest is the pickle inside an archive that is otherwise whole.

#include "convert/crc.hpp"
#include "convert/torch_file.hpp"
#include "core/check.hpp"

namespace {

using namespace rf::convert;

/// One entry of an archive, and its line of the directory; the reader holds sizes and places against the file and needs no more.
void add(std::string& file, std::string& directory, const std::string& name, std::string_view content) {
    const auto begin = static_cast<std::uint32_t>(file.size());
    const auto size = static_cast<std::uint32_t>(content.size());
    std::string common;
    for (const std::uint16_t n : {20, 0, 0, 0, 0}) store<std::uint16_t>(common, n);
    store<std::uint32_t>(common, crc32(content.data(), size));
    store(common, size);
    store(common, size);
    store<std::uint16_t>(common, static_cast<std::uint16_t>(name.size()));
    store<std::uint16_t>(common, 0);
    file += "PK\3\4" + common + name;
    file += content;
    directory += "PK\1\2" + std::string(2, '\0') + common + std::string(10, '\0');
    store(directory, begin);
    directory += name;
}

/// An archive around a pickle, with storages of 64 bytes under the first keys.
std::string archive(std::string_view pickle) {
    std::string file, directory;
    add(file, directory, "x/data.pkl", pickle);
    for (const char* key : {"0", "1", "2"}) add(file, directory, std::string("x/data/") + key, std::string(64, '\1'));
    const auto begin = static_cast<std::uint32_t>(file.size());
    file += directory + "PK\5\6" + std::string(4, '\0');
    store<std::uint16_t>(file, 4);
    store<std::uint16_t>(file, 4);
    store(file, static_cast<std::uint32_t>(directory.size()));
    store(file, begin);
    store<std::uint16_t>(file, 0);
    return file;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    std::string content(reinterpret_cast<const char*>(data) + 1, size - 1);
    try {
        if (data[0] & 1U) content = archive(content);
        const auto reader = read_torch(std::make_unique<Bytes>(content, "input"));
        for (const auto& [name, info] : reader->tensors()) {
            reader->same_storage(name, reader->tensors().begin()->first);
            std::vector<float> out(static_cast<std::size_t>(element_count(info.dims, INT64_MAX, "input", name)));
            reader->read(name, out.data());
        }
    } catch (const rf::Error&) {
    }
    return 0;
}
