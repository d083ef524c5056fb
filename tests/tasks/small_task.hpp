#pragma once
/// A task of a few rows, written to a folder of its own and prepared with a vocabulary of a few characters.

#include "tasks/outputs.hpp"
#include "tasks/prepared.hpp"
#include "tests/scratch.hpp"

#include <string>
#include <utility>
#include <vector>

namespace rf::test {

inline const Vocabulary& small_vocabulary() {
    static const Vocabulary v(
        [] {
            std::string text = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n";
            for (const char* token : {"一", "二", "三", "四", "五", "六", "七", "八", "九", "十", "甲", "乙", "丙",  "丁", "他", "王", "问",
                                      "答", "无", "效", "案", "。", "；", "[",  "]",  "|",  "a",  "b",  "ab", "##c", "e",  "0",  "1"})
                text += std::string(token) + '\n';
            return text;
        }(),
        "small");
    return v;
}

inline const Tokenizer& small_tokenizer() {
    static const Tokenizer tokenizer(small_vocabulary());
    return tokenizer;
}

/// Files of a task (the first is the task file `name`), read and prepared.
class SmallTask {
public:
    explicit SmallTask(const std::string& task, const std::vector<std::pair<std::string, std::string>>& data = {}) {
        write(scratch_ / "task.json", task);
        for (const auto& [name, content] : data) write(scratch_ / name, content);
    }
    std::string path(const std::string& name = "task.json") const { return scratch_(name); }
    tasks::Task read() const { return std::move(tasks::read_tasks({path()}, "").front()); }
    tasks::PreparedTask prepare(const tasks::Guard& guard = {}) const { return tasks::prepare(read(), small_tokenizer(), guard); }
    /// What the UsageError says.
    std::string refusal() const {
        return test::refusal([&] { prepare(); });
    }

private:
    Scratch scratch_;
};

/// Outputs of a token-pair head: the cells of each sequence.
inline tasks::Outputs cells(const std::vector<std::vector<tasks::FoundCell>>& sequences) {
    tasks::Outputs out;
    for (const auto& list : sequences) {
        out.cells.insert(out.cells.end(), list.begin(), list.end());
        out.cell_begin.push_back(static_cast<std::int64_t>(out.cells.size()));
    }
    return out;
}

/// Tokens of a sequence joined by blanks.
inline std::string tokens_of(const tasks::Prepared& p, std::int64_t sequence) {
    std::string out;
    for (const std::uint16_t id : p.sequence(sequence)) out += (out.empty() ? "" : " ") + small_vocabulary().token(id);
    return out;
}

/// Its pieces as "begin-end", its cells as "type:start-end".
inline std::string pieces_of(const tasks::Prepared& p, std::int64_t sequence) {
    std::string out;
    for (const tasks::Range& r : p.pieces_of(sequence)) out += message(out.empty() ? "" : " ", r.begin, '-', r.end);
    return out;
}
inline std::string cells_of(const tasks::Prepared& p, std::int64_t sequence) {
    std::string out;
    for (const tasks::Cell& c : p.cells_of(sequence)) out += message(out.empty() ? "" : " ", c.type, ':', c.start, '-', c.end);
    return out;
}

}  // namespace rf::test
