#include "tests/tasks/small_task.hpp"

#include <boost/test/unit_test.hpp>

namespace {

using namespace rf;
using namespace rf::tasks;
using test::SmallTask;

std::string refusal(const std::string& file) {
    return test::refusal([&] { SmallTask(file, {{"a.jsonl", "{}"}}).read(); });
}

}  // namespace

BOOST_AUTO_TEST_CASE(what_is_wrong_is_named_with_its_key) {
    RF_TEST_HOLDS(refusal(R"({"name": "t", "kind": "classify", "lables": []})"), "task.json: unknown key \"lables\" (did you mean \"labels\"?)");
    RF_TEST_HOLDS(refusal(R"({"name": "t", "kind": "clasify"})"),
                  "task.json: kind: unknown \"clasify\" (did you mean \"classify\"?); known: mlm, classify");
    RF_TEST_HOLDS(refusal(R"({"kind": "classify"})"), "task.json: name: a task needs a name");
    RF_TEST_HOLDS(refusal(R"({"name": "t", "kind": "classify", "train": "a.jsonl", "input": ["{s}"], "label": "{l}"})"),
                  "a task of kind classify needs \"labels\"");
    RF_TEST_HOLDS(refusal(R"({"name": "t", "kind": "classify", "train": "b.jsonl", "input": ["{s}"], "label": "{l}", "labels": ["0", "1"]})"),
                  "task.json: train: ");
    RF_TEST_HOLDS(refusal(R"({"name": "t", "kind": "classify", "train": "a.jsonl", "input": ["{s}"], "label": "{l}", "labels": ["0", "0"]})"),
                  "task.json: labels: a label stands twice");
    RF_TEST_HOLDS(refusal(R"({"name": "t", "kind": "regress", "train": "a.jsonl", "input": ["{s}"], "label": "{l}", "labels": ["0", "1"]})"),
                  "task.json: labels: a task of kind regress has none");
    RF_TEST_HOLDS(refusal(R"({"name": "t", "kind": "classify", "reader": {"format": "xml"}})"), "task.json: reader.format: unknown \"xml\"");
    RF_TEST_HOLDS(refusal(R"({"name": "t", "kind": "classify", "metric": "f7"})"), "task.json: metric: unknown \"f7\"");
    RF_TEST_HOLDS(refusal(R"({"name": "t", "kind": "classify", "max_length": 4})"), "task.json: max_length: expected 8 to 32768, found 4");
    RF_TEST_HOLDS(refusal(R"({"name": "t", "kind": "classify", "hashed": {"dev": 0.1}, "dev": "a.jsonl"})"),
                  "task.json: hashed.dev: the task has files for dev");
    RF_TEST_HOLDS(refusal(R"({"name": "t", "kind": "classify", "train": [{"file": "a.jsonl"}]})"),
                  "unknown key \"train.file\" (did you mean \"files\"?)");
    RF_TEST_HOLDS(refusal(R"({"name": "a b", "kind": "classify"})"), "holds a slash or a blank");
    RF_TEST_HOLDS(refusal(R"({"name": "..", "kind": "classify"})"), "is a folder's");
    for (const char* outside : {"../x.jsonl", "/etc/passwd", "a/../../x.jsonl"})
        RF_TEST_HOLDS(refusal(message(R"({"name": "a", "kind": "classify", "labels": ["0"], "input": ["{s}"], "label": "{l}", "train": ")", outside, "\"}")), "leaves the folder");
    RF_TEST_HOLDS(refusal(R"({"name": "m", "kind": "mlm", "train": "a.jsonl"})"), "no files");
    RF_TEST_HOLDS(refusal(R"({"name": "r", "kind": "rank", "train": "a.jsonl", "input": ["{q}", "{choice}"], "choices": ["{t}", "{n}"], "grades": [1, 1]})"),
                  "not all of them equal");
}

BOOST_AUTO_TEST_CASE(two_tasks_of_one_name_are_refused) {
    const SmallTask task(R"({"name": "t", "kind": "mlm"})", {{"other.json", R"({"name": "t", "kind": "mlm"})"}});
    RF_TEST_HOLDS(test::refusal([&] { read_tasks({task.path(), task.path("other.json")}, ""); }), "other.json: name: ");
}

BOOST_AUTO_TEST_CASE(paths_start_at_the_task_file_or_at_the_data_folder) {
    const SmallTask task(R"({"name": "t", "kind": "regress", "train": "a.jsonl", "input": ["{s}"], "label": "{l}"})",
                         {{"a.jsonl", "{}"}, {"deep/a.jsonl", "{}"}});
    BOOST_TEST(read_tasks({task.path()}, "").front().source(Split::train)[0].files[0] == task.path("a.jsonl"));
    BOOST_TEST(read_tasks({task.path()}, task.path("deep")).front().source(Split::train)[0].files[0] == task.path("deep/a.jsonl"));
}

BOOST_AUTO_TEST_CASE(labels_come_from_a_table_in_its_order) {
    const SmallTask task(
        R"({"name": "t", "kind": "classify", "train": "a.jsonl", "input": ["{s}"], "label": "{l}", "labels": {"files": "labels.jsonl", "value": "code"}})",
        {{"a.jsonl", "{}"}, {"labels.jsonl", "{\"code\": 7}\n{\"code\": \"3\"}\n"}});
    const Task read = task.read();
    BOOST_TEST(read.labels == (std::vector<std::string>{"7", "3"}), boost::test_tools::per_element());
    BOOST_TEST(read.find_label("3") == 1);
    BOOST_TEST(read.find_label("4") == -1);
}

BOOST_AUTO_TEST_CASE(a_source_may_bring_a_reader_of_its_own) {
    const SmallTask task(
        R"({"name": "t", "kind": "regress", "reader": {"each": "x"}, "train": ["a.jsonl", {"files": "b.tsv", "reader": {"format": "tsv", "each": ""}}], "input": ["{s}"], "label": "{l}"})",
        {{"a.jsonl", "{}"}, {"b.tsv", ""}});
    const Task read = task.read();
    BOOST_TEST(read.source(Split::train).size() == 2U);
    BOOST_TEST(read.source(Split::train)[0].reader.each == "x");
    BOOST_TEST(read.source(Split::train)[1].reader.format == "tsv");
    BOOST_TEST(read.file.metric == "spearman");
}
