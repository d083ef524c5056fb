#include "tasks/rows_of.hpp"

#include "io/files.hpp"

#include <algorithm>

namespace rf::tasks {

Hash128 text_hash(std::string_view text) {
    const std::string letters = normalised(text);
    const std::string hex = digest(letters.data(), static_cast<std::int64_t>(letters.size()));
    return {std::stoull(hex.substr(0, 16), nullptr, 16), std::stoull(hex.substr(16), nullptr, 16)};
}

namespace {

Split hashed_split(const Hashed& shares, const std::string& text) {
    if (shares.dev == 0 && shares.test == 0) return Split::train;
    const double u = static_cast<double>(text_hash(text).high) * 0x1p-64;
    return u < shares.dev ? Split::dev : u < shares.dev + shares.test ? Split::test : Split::train;
}

}  // namespace

void visit_rows(const Task& task, const ExampleMaker& maker, const std::vector<Split>& wanted, const RowVisitor& visitor) {
    const auto is_wanted = [&](Split split) { return std::find(wanted.begin(), wanted.end(), split) != wanted.end(); };
    const bool held_out = task.file.hashed.dev + task.file.hashed.test > 0;
    for (const Split from : splits) {
        if (!is_wanted(from) && !(from == Split::train && held_out)) continue;
        for (std::size_t i = 0; i < task.source(from).size(); ++i) {
            const Source& source = task.source(from)[i];
            const auto act = [&](const Row& row, const RowPlace& place) {
                if (!maker.is_wanted(row)) return visitor.skipped(from);
                const Split split = from == Split::train && held_out ? hashed_split(task.file.hashed, maker.hash_text(row)) : from;
                if (is_wanted(split)) visitor.act(row, place, split, static_cast<std::int32_t>(i));
            };
            read_rows(source.files, source.reader, act, [&](const BadRow& e, const RowPlace& place) { visitor.bad(e, place, from); });
        }
    }
}

}  // namespace rf::tasks
