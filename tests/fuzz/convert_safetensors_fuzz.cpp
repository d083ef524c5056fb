/// Fuzz target: a safetensors file. Anything but success or a clear refusal (rf::Error) is a finding.

#include "convert/safetensors.hpp"
#include "core/check.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace rf::convert;
    // The length in front is made to fit often enough, or nearly every input would end there.
    std::string content(reinterpret_cast<const char*>(data), size);
    if (size > 9 && (data[0] & 1U)) {
        const std::size_t end = content.rfind('}');
        std::string length;
        store(length, static_cast<std::uint64_t>(end == std::string::npos || end < 8 ? 0 : end - 7));
        content.replace(0, 8, length);
    }
    try {
        const auto reader = read_safetensors(std::make_unique<Bytes>(content, "input"));
        for (const auto& [name, info] : reader->tensors()) {
            std::vector<float> out(static_cast<std::size_t>(element_count(info.dims, INT64_MAX, "input", name)));
            reader->read(name, out.data());
        }
    } catch (const rf::Error&) {
    }
    return 0;
}
