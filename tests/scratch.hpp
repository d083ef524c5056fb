#pragma once
/// A folder of a test's own, removed at the end, and the message of an error.

#include "core/check.hpp"

#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

namespace rf::test {

class Scratch {
public:
    Scratch() {
        std::string name = (std::filesystem::temp_directory_path() / "roformer-test-XXXXXX").string();
        if (!mkdtemp(name.data())) fail("cannot make a folder like ", name);
        path_ = name;
    }
    ~Scratch() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    std::filesystem::path operator/(std::string_view name) const { return path_ / name; }
    std::string operator()(std::string_view name) const { return (path_ / name).string(); }
    const std::filesystem::path& path() const { return path_; }

private:
    std::filesystem::path path_;
};

inline void write(const std::filesystem::path& path, std::string_view content) {
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary).write(content.data(), static_cast<std::streamsize>(content.size()));
}

/// What the UsageError says that `act` throws; "no error" when it throws none. Other exceptions go on.
template <class Act>
std::string refusal(Act act) {
    try {
        act();
    } catch (const UsageError& e) {
        return e.what();
    }
    return "no error";
}

}  // namespace rf::test

/// BOOST_TEST that `text` holds `part`, printing both.
#define RF_TEST_HOLDS(text, part) BOOST_TEST(std::string_view(text).find(part) != std::string_view::npos, "\"" << (text) << "\" lacks \"" << (part) << '"')
