/// The cache of prepared tasks, and the guard of held-out texts.

#include "tests/tasks/small_task.hpp"

#include <boost/test/unit_test.hpp>

namespace {

using namespace rf;
using namespace rf::tasks;
using test::SmallTask;

const char* const entities =
    R"({"name": "e", "kind": "entities", "train": "a.jsonl", "dev": "a.jsonl", "input": ["{text}"], "labels": ["A"], "max_length": 16,
    "entities": [{"each": "m", "type": "A", "text": "{.}"}]})";

void check_same(const Prepared& a, const Prepared& b) {
    BOOST_TEST((a.tokens == b.tokens && a.sequence_begin == b.sequence_begin && a.example_begin == b.example_begin));
    BOOST_TEST(
        (a.pieces == b.pieces && a.piece_begin == b.piece_begin && a.cells == b.cells && a.cell_begin == b.cell_begin && a.visible == b.visible));
    BOOST_TEST((a.label == b.label && a.score == b.score && a.group == b.group && a.source == b.source && a.token_chars == b.token_chars &&
                a.text_at == b.text_at));
    BOOST_TEST((a.text.bytes == b.text.bytes && a.text.begin == b.text.begin && a.id.bytes == b.id.bytes && a.gold.bytes == b.gold.bytes &&
                a.gold.begin == b.gold.begin));
}

std::vector<std::filesystem::path> files_in(const std::filesystem::path& folder) {
    std::vector<std::filesystem::path> out;
    for (const auto& entry : std::filesystem::directory_iterator(folder))
        if (entry.path().extension() == ".h5") out.push_back(entry.path());
    return out;
}

}  // namespace

BOOST_AUTO_TEST_CASE(the_cache_gives_back_what_was_made) {
    const test::Scratch cache;
    const SmallTask task(entities, {{"a.jsonl", "{\"text\": \"一二三\", \"m\": [\"二三\"]}\n{\"text\": \"甲\", \"m\": []}\n"}});
    const PreparedTask made = prepare(task.read(), test::small_tokenizer(), {}, cache("c")),
                       again = prepare(task.read(), test::small_tokenizer(), {}, cache("c"));
    BOOST_TEST(!made.cached);
    BOOST_TEST(again.cached);
    for (const Split split : splits) check_same(made[split], again[split]);
    BOOST_TEST(again.counts[0].kept == 2);
    BOOST_TEST(again.counts[0].histogram == made.counts[0].histogram);
    BOOST_TEST(again.counts[0].lengths == made.counts[0].lengths, boost::test_tools::per_element());
    BOOST_TEST(files_in(cache / "c").size() == 1U);
}

BOOST_AUTO_TEST_CASE(other_data_or_another_task_is_another_cache) {
    const test::Scratch cache;
    const auto prepare_with = [&](const std::string& file, const std::string& rows) {
        return prepare(SmallTask(file, {{"a.jsonl", rows}}).read(), test::small_tokenizer(), {}, cache("c")).cached;
    };
    const std::string rows = "{\"text\": \"一\", \"m\": []}\n", file = entities;
    BOOST_TEST(!prepare_with(file, rows));
    BOOST_TEST(prepare_with(file, rows));
    BOOST_TEST(!prepare_with(file, "{\"text\": \"二\", \"m\": []}\n"));
    std::string shorter = file, heavier = file;
    shorter.replace(shorter.find("16"), 2, "15");
    BOOST_TEST(!prepare_with(shorter, rows));
    heavier.insert(1, "\"weight\": 5, ");
    BOOST_TEST(prepare_with(heavier, rows));
}

BOOST_AUTO_TEST_CASE(a_damaged_cache_is_refused_by_name) {
    const test::Scratch cache;
    const SmallTask task(entities, {{"a.jsonl", "{\"text\": \"一\", \"m\": []}\n"}});
    prepare(task.read(), test::small_tokenizer(), {}, cache("c"));
    const std::filesystem::path file = files_in(cache / "c").at(0);
    std::filesystem::resize_file(file, std::filesystem::file_size(file) - 1);
    BOOST_CHECK_EXCEPTION(prepare(task.read(), test::small_tokenizer(), {}, cache("c")), Error, [&](const Error& e) {
        return std::string(e.what()).find(file.string()) != std::string::npos && std::string(e.what()).find("remove it") != std::string::npos;
    });
}

BOOST_AUTO_TEST_CASE(texts_held_out_elsewhere_leave_the_training_rows) {
    const std::string guarded =
        R"({"name": "g", "kind": "regress", "guard": true, "train": "a.tsv", "dev": "dev.tsv", "reader": {"format": "tsv", "columns": ["a", "b", "y"]},
        "input": ["{a}", "{b}"], "label": "{y}")";
    const std::string train = "甲\t乙\t1\n乙\t甲\t1\n甲\t丙\t1\n丁\t丁\t1\n甲 。\t乙\t1\n", dev = "甲\t乙\t0\n";
    const auto kept = [&](const std::string& more) {
        const SmallTask task(guarded + more + "}", {{"a.tsv", train}, {"dev.tsv", dev}});
        const std::vector<Task> all = guards_beside({task.path()}, "");
        const Guard guard(all, test::small_tokenizer());
        const PreparedTask p = task.prepare(guard);
        BOOST_TEST(p[Split::dev].examples() == 1);
        return p[Split::train].examples();
    };
    BOOST_TEST(kept("") == 1);                           // every row with 甲 or 乙 goes
    BOOST_TEST(kept(R"(, "texts": ["{a} {b}"])") == 3);  // only the pair 甲 乙, punctuation and blanks aside
    const SmallTask other(
        R"({"name": "o", "kind": "regress", "train": "o.tsv", "reader": {"format": "tsv", "columns": ["a", "b", "y"]}, "input": ["{a}", "{b}"], "label": "{y}"})",
        {{"o.tsv", train}, {"g.json", guarded + R"(, "texts": ["{a} {b}"]})"}, {"a.tsv", train}, {"dev.tsv", dev}, {"lines.json", "{}\n{}\n"}});
    // No task files, though their names end so: lines of JSON, a folder.
    std::filesystem::create_directory(std::filesystem::path(other.path()).parent_path() / "folder.json");
    const std::vector<Task> beside = guards_beside({other.path()}, "");
    BOOST_TEST(beside.size() == 1U);
    // Of another task a pair is met in both orders.
    BOOST_TEST(other.prepare(Guard(beside, test::small_tokenizer()))[Split::train].examples() == 2);
}
