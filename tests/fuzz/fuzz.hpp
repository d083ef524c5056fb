#pragma once
/// What the fuzz targets share. A target is one function over bytes; anything but success or a clear refusal (rf::Error) is a finding: a crash,
/// an exception of another kind, a sanitizer's report, a time or memory limit passed.

#include "core/check.hpp"
#include "core/log.hpp"

#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <string_view>

namespace rf::fuzz {

/// Takes numbers and texts from the front of the input; zeros and empty texts when it is used up.
class Bytes {
public:
    Bytes(const std::uint8_t* data, std::size_t size) : left_(reinterpret_cast<const char*>(data), size) {}
    std::uint8_t byte() {
        if (left_.empty()) return 0;
        const auto value = static_cast<std::uint8_t>(left_.front());
        left_.remove_prefix(1);
        return value;
    }
    /// Below `end`, which is at least 1.
    std::uint32_t below(std::uint32_t end) { return ((static_cast<std::uint32_t>(byte()) << 8) | byte()) % end; }
    /// Mostly small, sometimes extreme.
    std::uint64_t number() {
        const std::uint8_t how = byte();
        if (how < 200) return how % 40;
        std::uint64_t value = 0;
        for (int i = 0; i < how % 9; ++i) value = value << 8 | byte();
        return value;
    }
    std::string text(std::size_t most) {
        const std::size_t n = std::min({most, left_.size(), static_cast<std::size_t>(byte())});
        const std::string value(left_.substr(0, std::min(n, left_.size())));
        left_.remove_prefix(value.size());
        return value;
    }
    std::string_view rest() const { return left_; }
    bool empty() const { return left_.empty(); }

private:
    std::string_view left_;
};

/// A folder in memory for the files of this process, removed at the end.
inline const std::filesystem::path& folder() {
    struct Folder {
        std::filesystem::path path;
        Folder() {
            // Lines about what a target refuses would drown the fuzzer's own.
            log::set_rank(1, 2);
            std::string name = std::filesystem::is_directory("/dev/shm") ? "/dev/shm/roformer-fuzz-XXXXXX" : "/tmp/roformer-fuzz-XXXXXX";
            if (!mkdtemp(name.data())) std::abort();
            path = name;
        }
        ~Folder() { std::filesystem::remove_all(path); }
    };
    static const Folder made;
    return made.path;
}

/// Does it, or is refused; everything else ends the program.
template <class Work>
void may_refuse(Work work) {
    try {
        work();
    } catch (const Error&) {
    }
}

/// A promise that an input has broken.
inline void demand(bool kept) {
    if (!kept) std::abort();
}

}  // namespace rf::fuzz

/// The fuzzer calls it.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
