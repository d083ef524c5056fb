#include "tasks/guard.hpp"

#include "core/log.hpp"
#include "core/parallel.hpp"
#include "io/files.hpp"
#include "tasks/rows_of.hpp"

#include <algorithm>
#include <filesystem>
#include <set>

namespace rf::tasks {

namespace fs = std::filesystem;

Guard::Guard(const std::vector<Task>& tasks, const Tokenizer& tokenizer) {
    std::vector<std::vector<Hash128>> found(tasks.size());
    for_each_parallel(tasks.size(), [&](std::size_t i) {
        if (!tasks[i].file.guard) return;
        const ExampleMaker maker(tasks[i], tokenizer);
        const RowVisitor visitor{.act =
                                     [&](const Row& row, const RowPlace&, Split, std::int32_t) {
                                         for (const std::string& text : maker.texts(row)) found[i].push_back(text_hash(text));
                                     },
                                 .skipped = [](Split) {},
                                 .bad = [](const BadRow&, const RowPlace&, Split) {}};  // preparation counts them
        visit_rows(tasks[i], maker, {Split::dev, Split::test}, visitor);
    });
    for (const std::vector<Hash128>& of_task : found) sorted_.insert(sorted_.end(), of_task.begin(), of_task.end());
    std::sort(sorted_.begin(), sorted_.end());
    sorted_.erase(std::unique(sorted_.begin(), sorted_.end()), sorted_.end());
    digest_ = rf::digest(sorted_.data(), static_cast<std::int64_t>(sorted_.size() * sizeof(Hash128)));
}

bool Guard::holds(std::string_view text) const { return std::binary_search(sorted_.begin(), sorted_.end(), text_hash(text)); }

std::vector<Task> guards_beside(const std::vector<std::string>& files, const std::string& data) {
    std::set<std::string> folders;
    for (const std::string& file : files) folders.insert(fs::path(file).parent_path().string());
    std::vector<Task> out;
    for (const std::string& folder : folders)
        for (const auto& entry : fs::directory_iterator(folder.empty() ? "." : folder)) {
            // Data may lie beside the task files: folders, and lines of JSON under this name.
            if (entry.path().extension() != ".json" || !entry.is_regular_file()) continue;
            if (read_file(entry.path()).find("\"guard\"") == std::string::npos) continue;
            const json::value given = json::parse_file(entry.path().string());
            const auto* guard = given.is_object() ? given.as_object().if_contains("guard") : nullptr;
            if (!guard || *guard != json::value(true)) continue;
            try {
                out.push_back(std::move(read_tasks({(fs::path(folder) / entry.path().filename()).string()}, data).front()));
            } catch (const UsageError& e) {
                log::warning("its held-out texts guard no training rows: ", e.what());
            }
        }
    return out;
}

}  // namespace rf::tasks
