#include "tasks/task_file.hpp"

#include "tasks/readers.hpp"

#include <algorithm>
#include <filesystem>
#include <functional>
#include <map>
#include <set>

namespace rf::tasks {

namespace {

/// The item of a table that a name means, or a UsageError with all names.
template <class Item, class Name>
const Item& choose(const std::vector<Item>& all, Name name_of, const std::string& wanted, const json::Place& place) {
    std::vector<std::string> names;
    for (const Item& item : all) {
        if (name_of(item) == wanted) return item;
        names.push_back(name_of(item));
    }
    std::string known;
    for (const std::string& name : names) known += (known.empty() ? "" : ", ") + name;
    const std::string meant = json::nearest(wanted, names);
    fail_usage(place, ": unknown \"", wanted, "\"", meant.empty() ? "" : " (did you mean \"" + meant + "\"?)", "; known: ", known);
}

void check_name(const std::vector<std::string>& all, const std::string& wanted, const json::Place& place) {
    choose(
        all, [](const std::string& s) -> const std::string& { return s; }, wanted, place);
}

void check_reader(const Reader& reader, const json::Place& place) {
    check_name(formats(), reader.format, place.at("format"));
    if (reader.format == "pattern" && (reader.pattern.empty() || reader.columns.empty()))
        fail_usage(place, ": the format pattern needs \"pattern\" and \"columns\", a name for each of its groups");
    if (reader.format == "blocks" && reader.columns.empty())
        fail_usage(place, ": the format blocks needs \"columns\", a name for each line of a block");
    if (!reader.join.files.is_null()) {
        check_name(formats(), reader.join.format, place.at("join.format"));
        if (reader.join.key.empty()) fail_usage(place.at("join"), ": needs \"key\"");
    }
}

/// Files of a reader's join become full paths.
void resolve_join(Reader& reader, const std::string& data, const json::Place& place) {
    if (reader.join.files.is_null()) return;
    boost::json::array files;
    for (const std::string& file : files_below(data, reader.join.files, place.at("join.files"))) files.emplace_back(file);
    reader.join.files = std::move(files);
}

std::vector<Source> read_sources(const json::value& given, const Task& task, const json::Place& place) {
    std::vector<Source> out;
    if (given.is_null()) return out;
    const boost::json::array one{given};
    const boost::json::array& list = given.is_array() ? given.as_array() : one;
    for (const json::value& item : list) {
        Source source{.reader = task.file.reader};
        json::value files = item;
        if (const auto* object = item.if_object()) {
            for (const auto& [key, value] : *object) {
                if (key == "files") files = value;
                else if (key == "reader") json::read(value, source.reader, place.at("reader"));
                else json::fail_unknown(place, key, {"files", "reader"});
            }
            if (!object->contains("files")) fail_usage(place, ": needs \"files\"");
        }
        source.files = files_below(task.data, files, place);
        check_reader(source.reader, place.at("reader"));
        resolve_join(source.reader, task.data, place.at("reader"));
        out.push_back(std::move(source));
    }
    return out;
}

struct LabelFile {
    json::value files = nullptr;
    Reader reader;
    std::string value = "label";  ///< template
};
BOOST_DESCRIBE_STRUCT(LabelFile, (), (files, reader, value))

std::vector<std::string> read_labels(const json::value& given, const std::string& data, const json::Place& place) {
    std::vector<std::string> labels;
    if (given.is_object()) {
        LabelFile table;
        json::read(given, table, place);
        check_reader(table.reader, place.at("reader"));
        const Path value(table.value);
        read_rows(
            files_below(data, table.files, place.at("files")), table.reader,
            [&](const Row& row, const RowPlace&) { labels.push_back(text_of(value.get(row), table.value)); },
            [](const BadRow& e, const RowPlace& at) { fail_usage(at, ": ", e.what()); });
    } else {
        json::read(given, labels, place);
    }
    const std::set<std::string> different(labels.begin(), labels.end());
    if (different.size() != labels.size()) fail_usage(place, ": a label stands twice in the table");
    return labels;
}

void need(bool there, const Task& task, const char* key) {
    if (!there) fail_usage(task.place, ": a task of kind ", task.file.kind, " needs \"", key, '"');
}

/// What every kind must say.
void check_kind(const Task& task) {
    const TaskFile& f = task.file;
    const KindInfo& kind = info(task.kind);
    if (task.kind == Kind::mlm) {
        need(f.train.is_null() && f.dev.is_null() && f.test.is_null(), task, "no files: its text is the command's corpus");
        return;
    }
    need(!f.train.is_null(), task, "train");
    need(!f.input.empty(), task, "input");
    if (kind.has_labels) need(task.label_count() > (kind.has_cells ? 0 : 1), task, "labels");
    if (!kind.has_labels && !f.labels.is_null()) fail_usage(task.place.at("labels"), ": a task of kind ", f.kind, " has none");
    const bool chooses = task.kind == Kind::multiple_choice;
    if (task.kind == Kind::classify || task.kind == Kind::regress) need(!f.label.empty(), task, "label");
    if (task.kind == Kind::rank) {
        need(!f.label.empty() || !f.grades.empty(), task, "label");
        need(!f.group.empty() || !f.choices.is_null(), task, "group");
        need(f.choices.is_null() || (f.choices.is_array() && f.choices.as_array().size() == f.grades.size()), task,
             "grades\", one of each choice, \"");
        need(f.grades.empty() || std::ranges::adjacent_find(f.grades, std::not_equal_to<>()) != f.grades.end(), task, "grades\", not all of them equal, \"");
    }
    if (chooses) need(!f.choices.is_null(), task, "choices"), need(!f.answer.empty(), task, "answer");
    if (task.kind == Kind::span)
        need(f.input.size() == 2, task, "input\" of [question, context], \""),
            need(!f.answers.text.empty() || !f.answers.each.empty(), task, "answers");
    if (task.kind == Kind::entities || task.kind == Kind::events) need(!f.entities.empty(), task, "entities");
    if (task.kind == Kind::relations) need(!f.relations.empty(), task, "relations");
    if (kind.has_cells && task.kind != Kind::span) need(f.input.size() == 1, task, "input\" of one text, \"");
}

/// The forms that can tell what a kind answers.
std::vector<std::string> forms(Kind kind) {
    switch (kind) {
        case Kind::classify: return {"labels"};
        case Kind::multiple_choice: return {"labels", "choices"};
        case Kind::span: return {"answers"};
        case Kind::entities: return {"entities"};
        default: return {};
    }
}

void check_submission(const Task& task) {
    const Submission& s = task.file.submission;
    const json::Place place = task.place.at("submission");
    if (s.files.empty() && s.form.empty()) return;
    if (s.files.empty()) fail_usage(place.at("files"), ": expected a file name for each source of test");
    if (forms(task.kind).empty()) fail_usage(place, ": a task of kind ", task.file.kind, " has no form of submission");
    check_name(forms(task.kind), s.form, place.at("form"));
    for (const std::string& file : s.files)
        if (file.empty() || file.find('/') != std::string::npos || file == "." || file == "..") fail_usage(place.at("files"), ": \"", file, "\" is no plain file name");
    if (std::set(s.files.begin(), s.files.end()).size() != s.files.size()) fail_usage(place.at("files"), ": a name stands twice");
    const std::size_t sources = task.source(Split::test).size();
    if (sources > 0 && sources != s.files.size())
        fail_usage(place.at("files"), ": ", s.files.size(), " names for the ", sources, " sources of test: expected one each");
}

void check_values(const Task& task) {
    const TaskFile& f = task.file;
    check_name({"longest", "longest_last"}, f.truncate, task.place.at("truncate"));
    check_name({"index", "letter", "text"}, f.answer_is, task.place.at("answer_is"));
    check_name(info(task.kind).metrics, f.metric, task.place.at("metric"));
    if (f.metric == "assigned_accuracy" && f.group.empty()) fail_usage(task.place.at("metric"), ": assigned_accuracy needs \"group\"");
    if (f.max_length < 8 || f.max_length > 32768) fail_usage(task.place.at("max_length"), ": expected 8 to 32768, found ", f.max_length);
    if (!(f.weight > 0)) fail_usage(task.place.at("weight"), ": expected more than 0, found ", f.weight);
    if (f.hashed.dev < 0 || f.hashed.test < 0 || f.hashed.dev + f.hashed.test >= 1)
        fail_usage(task.place.at("hashed"), ": expected shares from 0 whose sum is less than 1, found dev ", f.hashed.dev, " and test ",
                   f.hashed.test);
    if (f.hashed.dev > 0 && !f.dev.is_null()) fail_usage(task.place.at("hashed.dev"), ": the task has files for dev");
    if (f.hashed.test > 0 && !f.test.is_null()) fail_usage(task.place.at("hashed.test"), ": the task has files for test");
    if (f.windows.stride < 1) fail_usage(task.place.at("windows.stride"), ": expected at least 1, found ", f.windows.stride);
    if (f.head.size < 2 || f.head.size % 2 != 0) fail_usage(task.place.at("head.size"), ": expected an even number from 2, found ", f.head.size);
    if (f.max_bad < 0) fail_usage(task.place.at("max_bad"), ": expected at least 0, found ", f.max_bad);
}

Task read_task(const std::string& file, const std::string& data) {
    Task task;
    task.place = {file, ""};
    json::read(json::parse_file(file), task.file, task.place);
    TaskFile& f = task.file;
    if (f.name.empty()) fail_usage(task.place.at("name"), ": a task needs a name");
    if (f.name.find_first_of("/ \t\n") != std::string::npos || f.name == "." || f.name == "..")
        fail_usage(task.place.at("name"), ": \"", f.name, "\" holds a slash or a blank, or is a folder's; files are named after it");
    task.kind = choose(
                    kinds(), [](const KindInfo& k) -> const std::string& { return k.name; }, f.kind, task.place.at("kind"))
                    .kind;
    if (f.metric.empty()) f.metric = info(task.kind).metrics.front();
    const std::string folder = std::filesystem::path(file).parent_path().string();
    task.data = data.empty() ? (folder.empty() ? "." : folder) : data;
    check_values(task);
    check_reader(f.reader, task.place.at("reader"));
    if (!f.labels.is_null()) task.labels = read_labels(f.labels, task.data, task.place.at("labels"));
    task.sources[0] = read_sources(f.train, task, task.place.at("train"));
    task.sources[1] = read_sources(f.dev, task, task.place.at("dev"));
    task.sources[2] = read_sources(f.test, task, task.place.at("test"));
    check_kind(task);
    check_submission(task);
    return task;
}

}  // namespace

const std::vector<KindInfo>& kinds() {
    static const std::vector<KindInfo> all{
        {Kind::mlm, "mlm", {"accuracy"}, false, false},
        {Kind::classify, "classify", {"accuracy", "macro_f1"}, true, false},
        {Kind::regress, "regress", {"spearman", "pearson"}, false, false},
        {Kind::multiple_choice, "multiple_choice", {"accuracy", "assigned_accuracy"}, false, false},
        {Kind::span, "span", {"exact_match", "f1", "span_accuracy"}, false, true},
        {Kind::entities, "entities", {"micro_f1", "macro_f1"}, true, true},
        {Kind::relations, "relations", {"micro_f1", "macro_f1"}, true, true},
        {Kind::events, "events", {"micro_f1", "macro_f1"}, true, true},
        {Kind::rank, "rank", {"ndcg", "mrr", "accuracy"}, false, false},
    };
    return all;
}

const KindInfo& info(Kind kind) { return kinds()[static_cast<std::size_t>(kind)]; }

const char* name(Split split) { return split == Split::train ? "train" : split == Split::dev ? "dev" : "test"; }

std::int64_t Task::find_label(std::string_view label) const {
    const auto found = std::find(labels.begin(), labels.end(), label);
    return found == labels.end() ? -1 : found - labels.begin();
}

std::int64_t Task::cell_types() const {
    if (kind == Kind::span) return 1;
    if (kind == Kind::relations) return 2 + 2 * label_count();
    return info(kind).has_cells ? label_count() : 0;
}

bool Task::cell_is_ordered(std::int64_t type) const { return kind != Kind::relations || type < 2; }

std::vector<Task> read_tasks(const std::vector<std::string>& files, const std::string& data) {
    std::vector<Task> tasks;
    std::map<std::string, std::string> file_of;
    for (const std::string& file : files) {
        tasks.push_back(read_task(file, data));
        const auto [other, is_new] = file_of.emplace(tasks.back().file.name, file);
        if (!is_new) fail_usage(file, ": name: ", other->second, " has a task \"", other->first, "\" already");
    }
    return tasks;
}

Task stored_task(const json::value& file, const json::value& labels, const json::Place& place) {
    Task task;
    task.place = place;
    json::read(file, task.file, place.at("task_file"));
    json::read(labels, task.labels, place.at("task_labels"));
    const auto kind = std::find_if(kinds().begin(), kinds().end(), [&](const KindInfo& k) { return k.name == task.file.kind; });
    if (kind == kinds().end()) fail_usage(place.at("task_file.kind"), ": unknown kind \"", task.file.kind, '"');
    task.kind = kind->kind;
    return task;
}

}  // namespace rf::tasks
