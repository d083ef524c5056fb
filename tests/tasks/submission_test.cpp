/// Submission files byte for byte, and what is refused before one is written.

#include "tasks/submission.hpp"

#include "io/files.hpp"
#include "tests/tasks/small_task.hpp"

#include <boost/test/unit_test.hpp>

namespace {

using namespace rf;
using namespace rf::tasks;
using test::SmallTask;
using test::cells;

std::string classify(const std::string& submission) {
    return R"({"name": "c", "kind": "classify", "train": "a.jsonl", "test": ["b.jsonl", "c.jsonl"], "input": ["{t}"], "label": "{y}", "labels": ["no", "是"],
        "max_length": 16, "submission": )" + submission + "}";
}
const std::vector<std::pair<std::string, std::string>> rows{
    {"a.jsonl", "{\"t\": \"一\", \"y\": \"no\"}\n"},
    {"b.jsonl", "{\"id\": 5, \"t\": \"一\"}\n{\"id\": 3, \"t\": \"二\"}\n"},
    {"c.jsonl", "{\"id\": \"x07\", \"t\": \"一\"}\n"}};

/// What the files hold, each headed by its name.
std::string written(const SmallTask& task, const Outputs& outputs) {
    const test::Scratch folder;
    const Task t = task.read();
    write_submission(t, task.prepare()[Split::test], outputs, folder / "submission");
    std::string out;
    for (const std::string& file : t.file.submission.files) out += file + "\n" + read_file(folder / "submission/" / file);
    return out;
}

}  // namespace

BOOST_AUTO_TEST_CASE(labels_are_lines_in_the_order_of_each_source) {
    const SmallTask task(classify(R"({"files": ["ten.json", "eleven.json"], "form": "labels"})"), rows);
    BOOST_TEST(written(task, {.width = 2, .logits = {0, 1, 1, 0, 0, 1}}) ==
               "ten.json\n{\"id\": 5, \"label\": \"是\"}\n{\"id\": 3, \"label\": \"no\"}\neleven.json\n{\"id\": \"x07\", \"label\": \"是\"}\n");
}

BOOST_AUTO_TEST_CASE(choices_are_those_assigned) {
    const SmallTask task(
        R"({"name": "m", "kind": "multiple_choice", "train": "a.jsonl", "test": "b.jsonl", "input": ["{t}", "{choice}"], "choices": "c", "answer": "{y}", "group": "g",
        "max_length": 16, "submission": {"files": ["m.json"], "form": "choices"}})",
        {{"a.jsonl", R"({"t": "一", "c": ["甲", "乙"], "y": 1})"},
         {"b.jsonl", "{\"id\": \"#1#\", \"t\": \"一\", \"c\": [\"甲\", \"乙\"]}\n{\"id\": \"#2#\", \"t\": \"二\", \"c\": [\"甲\", \"乙\"]}\n"}});
    BOOST_TEST(written(task, {.width = 1, .logits = {1, 0.9F, 0.8F, 0.1F}}) == "m.json\n{\n    \"#1#\": 1,\n    \"#2#\": 0\n}\n");
}

BOOST_AUTO_TEST_CASE(choices_can_be_labels_too) {
    const SmallTask task(
        R"({"name": "m", "kind": "multiple_choice", "train": "a.jsonl", "test": "b.jsonl", "input": ["{t}", "{choice}"], "choices": "c", "answer": "{y}",
        "max_length": 16, "submission": {"files": ["m.json"], "form": "labels"}})",
        {{"a.jsonl", R"({"t": "一", "c": ["甲", "乙"], "y": 1})"}, {"b.jsonl", "{\"id\": 4, \"t\": \"一\", \"c\": [\"甲\", \"乙\"]}\n"}});
    BOOST_TEST(written(task, {.width = 1, .logits = {1, 2}}) == "m.json\n{\"id\": 4, \"label\": \"1\"}\n");
}

BOOST_AUTO_TEST_CASE(answers_are_one_object) {
    const SmallTask task(R"({"name": "s", "kind": "span", "train": "a.jsonl", "test": "b.jsonl", "input": ["{q}", "{c}"], "answers": {"text": "{a?}"}, "max_length": 12,
        "submission": {"files": ["s.json"], "form": "answers"}})",
                         {{"a.jsonl", R"({"q": "问", "c": "一二", "a": "一"})"},
                          {"b.jsonl", "{\"id\": \"Q0\", \"q\": \"问\", \"c\": \"一\\\"二\"}\n{\"id\": \"Q1\", \"q\": \"问\", \"c\": \"三四\"}\n"}});
    Outputs outputs = cells({{{0, 3, 5, 1}}, {{0, 4, 4, 1}}});
    outputs.probability = {1, 1}, outputs.no_answer = {0, 0};
    BOOST_TEST(written(task, outputs) == "s.json\n{\n    \"Q0\": \"一\\\"二\",\n    \"Q1\": \"四\"\n}\n");
}

BOOST_AUTO_TEST_CASE(entities_end_with_their_last_character) {
    const SmallTask task(R"({"name": "e", "kind": "entities", "train": "a.jsonl", "test": "b.jsonl", "input": ["{t}"], "labels": ["A", "B"], "max_length": 16,
        "entities": [{"each": "m", "type": "A", "text": "{.}"}], "submission": {"files": ["e.json"], "form": "entities"}})",
                         {{"a.jsonl", R"({"t": "一", "m": []})"}, {"b.jsonl", "{\"id\": 0, \"t\": \"一二三一二\"}\n{\"id\": 1, \"t\": \"四\"}\n"}});
    BOOST_TEST(written(task, cells({{{1, 3, 3, 1}, {0, 4, 5, 1}, {0, 1, 2, 1}, {0, 1, 1, 1}}, {}})) ==
               "e.json\n{\"id\": 0, \"label\": {\"A\": {\"一\": [[0, 0]], \"一二\": [[0, 1], [3, 4]]}, \"B\": {\"三\": [[2, 2]]}}}\n{\"id\": 1, \"label\": {}}\n");
}

BOOST_AUTO_TEST_CASE(tasks_without_a_submission_write_nothing) {
    const test::Scratch folder;
    const SmallTask task(R"({"name": "c", "kind": "classify", "train": "a.jsonl", "test": "b.jsonl", "input": ["{t}"], "label": "{y}", "labels": ["no", "是"], "max_length": 16})", rows);
    write_submission(task.read(), task.prepare()[Split::test], {.width = 2, .logits = {0, 1, 1, 0}}, folder / "submission");
    BOOST_TEST(!std::filesystem::exists(folder / "submission"));
}

BOOST_AUTO_TEST_CASE(an_id_that_stands_twice_is_refused_and_nothing_written) {
    auto twice = rows;
    twice[1].second = "{\"id\": 5, \"t\": \"一\"}\n{\"id\": 5, \"t\": \"二\"}\n";
    const SmallTask task(classify(R"({"files": ["ten.json", "eleven.json"], "form": "labels"})"), twice);
    const test::Scratch folder;
    RF_TEST_HOLDS(test::refusal([&] { write_submission(task.read(), task.prepare()[Split::test], {.width = 2, .logits = {0, 1, 1, 0, 0, 1}}, folder / "s"); }),
                  "two examples of test have the id \"5\", which ten.json tells them apart by");
    BOOST_TEST(!std::filesystem::exists(folder / "s"));
}

BOOST_AUTO_TEST_CASE(a_task_file_names_a_file_for_each_source) {
    const auto refused = [](const std::string& submission) { return SmallTask(classify(submission), rows).refusal(); };
    RF_TEST_HOLDS(refused(R"({"files": ["a.json"], "form": "labels"})"), "task.json: submission.files: 1 names for the 2 sources of test: expected one each");
    RF_TEST_HOLDS(refused(R"({"files": ["a.json", "a.json"], "form": "labels"})"), "submission.files: a name stands twice");
    RF_TEST_HOLDS(refused(R"({"files": ["a.json", "../b.json"], "form": "labels"})"), "submission.files: \"../b.json\" is no plain file name");
    RF_TEST_HOLDS(refused(R"({"files": ["a.json", "b.json"], "form": "choices"})"), "submission.form: unknown \"choices\"; known: labels");
    RF_TEST_HOLDS(refused(R"({"form": "labels"})"), "submission.files: expected a file name for each source of test");
    RF_TEST_HOLDS(refused(R"({"file": "a"})"), "unknown key \"submission.file\"");
}
