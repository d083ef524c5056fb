#include "app/command.hpp"
#include "core/log.hpp"
#include "io/files.hpp"
#include "params/checkpoint.hpp"

#include <algorithm>
#include <filesystem>
#include <limits>

namespace rf::app {

namespace fs = std::filesystem;

/// Files that carry a digest under the given paths; a file named itself must have one.
static std::vector<fs::path> digested_files(const std::vector<std::string>& paths) {
    std::vector<fs::path> files;
    for (const std::string& name : paths) {
        if (!fs::exists(name)) fail_usage(name, " does not exist");
        if (!fs::is_directory(name)) {
            files.emplace_back(name);
            continue;
        }
        const std::size_t before = files.size();
        for (auto at = fs::recursive_directory_iterator(name); at != fs::end(at); ++at) {
            const fs::directory_entry& entry = *at;
            // What a killed program left half-written is nobody's checkpoint and goes at the next start.
            if (entry.path().filename().string().ends_with(".partial")) {
                if (entry.is_directory()) at.disable_recursion_pending();
                continue;
            }
            // A checkpoint is judged as a whole: one of its files may be missing.
            if (entry.is_directory() && fs::exists(entry.path() / "checkpoint.h5"))
                for (const fs::path& part : checkpoint_parts(entry.path())) files.push_back(part);
            const std::string text = entry.path().string();
            if (entry.path().extension() == ".digest") files.emplace_back(text.substr(0, text.size() - 7));
            // A checkpoint's file without a digest is damage, too; hidden states carry none, results one within.
            if (entry.path().extension() == ".h5" && entry.is_regular_file() && has_seal(entry.path())) files.push_back(entry.path());
            const bool in_checkpoint = entry.path().extension() == ".h5" && entry.path().parent_path().filename().string().starts_with("step-");
            if (in_checkpoint) files.push_back(entry.path());
        }
        if (files.size() == before) fail_usage(name, ": holds no corpus and no checkpoint");
    }
    std::sort(files.begin(), files.end());
    files.erase(std::unique(files.begin(), files.end()), files.end());
    return files;
}

int run_verify(const Invocation& invocation, World& world) {
    if (invocation.positional.empty()) fail_usage("verify needs at least one path");
    Communicator& all = world.communicator();
    const std::vector<fs::path> files = digested_files(invocation.positional);
    // Every file is read by all ranks, each its share of the blocks; who met the first difference speaks.
    std::int64_t damaged = 0;
    for (const fs::path& file : files) {
        std::int64_t block = 0;
        std::string damage;
        try {
            damage = find_damage(file, {.part = all.rank(), .parts = all.size()}, &block);
        } catch (const std::exception& e) {
            damage = message(file.string(), ": ", e.what());
        }
        const std::vector<std::int64_t> found = all.gather(damage.empty() ? std::numeric_limits<std::int64_t>::max() : block);
        const auto first = std::min_element(found.begin(), found.end());
        if (*first == std::numeric_limits<std::int64_t>::max()) continue;
        ++damaged;
        if (first - found.begin() == all.rank()) log::write_line("damaged: " + damage);
    }
    log::info("verified ", files.size(), " files: ", damaged == 0 ? "all agree with their digests" : message(damaged, " damaged"));
    return damaged == 0 ? 0 : 1;
}

}  // namespace rf::app
