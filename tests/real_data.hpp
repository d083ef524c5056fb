#pragma once
/// Where the real data lie: RF_DATA, or ../shared/data beside the source tree.

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>

namespace rf::test {

inline std::filesystem::path real_data() {
    if (const char* data = std::getenv("RF_DATA")) return data;
    const char* source = std::getenv("RF_SOURCE_DIR");
    return std::filesystem::path(source ? source : ".") / "../shared/data";
}

/// The whole program counts as skipped (exit code 77) when a file it reads is absent.
inline void need_real_data(const char* file) {
    if (std::filesystem::exists(real_data() / file)) return;
    std::printf("skipped: %s is absent (RF_DATA names the folder of the real data)\n", (real_data() / file).c_str());
    std::fflush(stdout);
    std::_Exit(77);
}

}  // namespace rf::test
