/// roformer predict: answers of a fine-tuned checkpoint to new rows.

#include "app/loaded_model.hpp"
#include "io/files.hpp"
#include "tasks/answers.hpp"
#include "tasks/examples.hpp"
#include "tasks/rows_of.hpp"
#include "train/task_set.hpp"

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <unistd.h>
#include <unordered_map>

namespace rf::app {

namespace {

namespace fs = std::filesystem;

/// A file that is gone at the end.
class TemporaryFile {
public:
    explicit TemporaryFile(const std::string& text) : path_(fs::temp_directory_path() / message("roformer-predict-", ::getpid(), ".jsonl")) {
        write_file_atomically(path_, text);
    }
    ~TemporaryFile() {
        std::error_code ignored;
        fs::remove(path_, ignored);
    }
    TemporaryFile(const TemporaryFile&) = delete;
    TemporaryFile& operator=(const TemporaryFile&) = delete;
    std::string path() const { return path_.string(); }

private:
    fs::path path_;
};

/// Names in the templates of the input, in their order, each once.
std::vector<std::string> fields_of(const tasks::TaskFile& file) {
    std::vector<std::string> fields;
    for (const std::string& text : file.input)
        for (std::size_t at = text.find('{'); at != std::string::npos; at = text.find('{', at + 1)) {
            const std::string field = text.substr(at + 1, text.find_first_of("}|?", at) - at - 1);
            if (std::find(fields.begin(), fields.end(), field) == fields.end()) fields.push_back(field);
        }
    return fields;
}

/// A line that is no JSON object holds the fields of the input, separated by tabs.
std::string as_record(const std::string& line, std::size_t number, const tasks::Task& task) {
    if (line.starts_with('{') || line.starts_with('[')) return line;
    const std::vector<std::string> fields = fields_of(task.file);
    std::string names;
    bool plain = task.file.reader.each.empty() && task.file.reader.blanks.pattern.empty() && task.file.choices.is_null();
    for (const std::string& field : fields) {
        names += (names.empty() ? "" : ", ") + field;
        plain = plain && field.find_first_of(".^$*[") == std::string::npos;
    }
    if (!plain) fail_usage("standard input, line ", number, ": expected a record of task ", task.file.name, " as a JSON object, with ", names);
    boost::json::object record;
    std::size_t at = 0;
    for (std::size_t i = 0; i < fields.size(); ++i) {
        const std::size_t end = i + 1 < fields.size() ? line.find('\t', at) : line.size();
        if (end == std::string::npos)
            fail_usage("standard input, line ", number, ": expected ", fields.size(), " texts separated by tabs (", names, ") or a JSON object with these keys");
        record[fields[i]] = line.substr(at, end - at);
        at = end + 1;
    }
    return boost::json::serialize(record);
}

tasks::Prepared prepare_lines(const tasks::Task& stored, const Tokenizer& tokenizer, const std::vector<std::string>& lines) {
    std::string text;
    for (std::size_t i = 0; i < lines.size(); ++i)
        if (!lines[i].empty()) text += as_record(lines[i], i + 1, stored) + '\n';
        else fail_usage("standard input, line ", i + 1, ": is empty");
    const TemporaryFile file(text);
    tasks::Task task = stored;
    tasks::Reader reader = task.file.reader;
    reader.format = "jsonl";
    reader.join = {};
    for (auto& sources : task.sources) sources.clear();
    task.sources[static_cast<int>(tasks::Split::test)] = {{.files = {file.path()}, .reader = reader}};
    const tasks::ExampleMaker maker(task, tokenizer);
    tasks::Prepared out;
    std::vector<tasks::Example> lists;
    std::unordered_map<std::string, std::int32_t> groups;
    const auto refuse = [](const tasks::BadRow& e, const tasks::RowPlace& place, tasks::Split) { fail_usage("standard input, line ", place.line, ": ", e.what()); };
    const tasks::Losses losses{.lost = [](const std::string&) {}, .bad = [](const std::string&) {}, .truncated = [] {}};
    const tasks::RowVisitor visitor{
        .act = [&](const tasks::Row& row, const tasks::RowPlace& place, tasks::Split split, std::int32_t) {
            tasks::Example example;
            try {
                example = maker.make(row, split, losses);
            } catch (const tasks::BadRow& e) {
                refuse(e, place, split);
            }
            if (example.id.empty()) example.id = std::to_string(place.line - 1);
            std::int32_t group = -1;
            if (!example.group.empty()) group = groups.emplace(example.group, static_cast<std::int32_t>(groups.size())).first->second;
            if (task.kind != tasks::Kind::rank || group < 0) return tasks::append(task, example, group, out);
            if (static_cast<std::size_t>(group) == lists.size()) lists.push_back(std::move(example));
            else lists[static_cast<std::size_t>(group)].sequences.push_back(std::move(example.sequences.front()));
        },
        .skipped = [](tasks::Split) {},
        .bad = refuse};
    tasks::visit_rows(task, maker, {tasks::Split::test}, visitor);
    for (const tasks::Example& list : lists) tasks::append(task, list, -1, out);
    return out;
}

}  // namespace

int run_predict(const Invocation& invocation, World& world) {
    LoadedModel loaded(invocation, world, true);
    Communicator& all = world.communicator();
    const std::vector<std::string> lines = read_lines(all, std::cin);
    const tasks::Prepared prepared = prepare_lines(loaded.task(), loaded.tokenizer(), lines);
    const Judged judged = judge(loaded.model(), loaded.grid(), loaded.task(), prepared, 0, loaded.alpha());
    if (all.rank() != 0) return 0;
    for (const boost::json::object& answer : tasks::answers(loaded.task(), prepared, judged.outputs)) std::cout << json::line(answer) << '\n';
    std::cout.flush();
    if (!std::cout) fail("cannot write the answers to standard output");
    return 0;
}

}  // namespace rf::app
