/// Every task file of inputs/tasks against the real data: 92 tasks, each with training rows and rows held out; what the report must show.

#include "tests/real_data.hpp"
#include "tests/tasks/small_task.hpp"
#include "core/parallel.hpp"
#include "tasks/prepared.hpp"
#include "tasks/rows_of.hpp"

#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <cstdlib>
#include <map>

namespace {

namespace fs = std::filesystem;
using namespace rf::tasks;

fs::path source_folder() {
    const char* folder = std::getenv("RF_SOURCE_DIR");
    return folder ? folder : ".";
}

/// All tasks, prepared once; the large parts are let go, only the counts stay.
struct World {
    World() {
        rf::test::need_real_data("MANIFEST.md");
        std::vector<std::string> files;
        for (const auto& entry : fs::directory_iterator(source_folder() / "inputs/tasks"))
            if (entry.path().extension() == ".json") files.push_back(entry.path().string());
        std::sort(files.begin(), files.end());
        tasks = read_tasks(files, rf::test::real_data().string());
        const rf::Vocabulary vocabulary((rf::test::real_data() / "vocab/roformer_v2_char_vocab.txt").string());
        const rf::Tokenizer tokenizer(vocabulary);
        const Guard guard(tasks, tokenizer);
        counts.resize(tasks.size());
        rf::for_each_parallel(tasks.size(), [&](std::size_t i) {
            const PreparedTask prepared = prepare(tasks[i], tokenizer, guard);
            std::copy(std::begin(prepared.counts), std::end(prepared.counts), counts[i].begin());
            for (const Split split : splits) check(tasks[i], prepared[split]);
        });
    }
    /// Throws where an invariant of a prepared split does not hold.
    static void check(const Task& task, const Prepared& p) {
        for (std::int64_t s = 0; s < p.sequences(); ++s) {
            const auto tokens = p.sequence(s);
            const auto n = static_cast<std::int32_t>(tokens.size());
            RF_REQUIRE(n >= 3 && n <= task.file.max_length && tokens.front() == 101 && tokens.back() == 102, task.file.name, ": sequence ", s);
            for (const Range& r : p.pieces_of(s)) RF_REQUIRE(r.begin >= 1 && r.begin <= r.end && r.end < n, task.file.name, ": piece of ", s);
            for (const Cell& c : p.cells_of(s)) {
                RF_REQUIRE(c.type >= 0 && c.type < task.cell_types(), task.file.name, ": type in ", s);
                RF_REQUIRE(c.start >= 0 && c.start < n && c.end >= 0 && c.end < n, task.file.name, ": cell of ", s);
                RF_REQUIRE(!task.cell_is_ordered(c.type) || c.start <= c.end, task.file.name, ": order in ", s);
            }
        }
        for (const std::int32_t label : p.label)
            RF_REQUIRE(label >= -1 && (task.kind != Kind::classify || label < task.label_count()), task.file.name);
    }
    const Counts& of(const char* name, Split split) const {
        for (std::size_t i = 0; i < tasks.size(); ++i)
            if (tasks[i].file.name == name) return counts[i][static_cast<std::size_t>(split)];
        rf::fail("no task ", name);
    }
    std::vector<Task> tasks;
    std::vector<std::array<Counts, 3>> counts;
};

const World& world() {
    static const World all;
    return all;
}

}  // namespace

BOOST_AUTO_TEST_CASE(ninety_two_tasks_train_and_hold_out) {
    BOOST_TEST(world().tasks.size() == 92);
    for (std::size_t i = 0; i < world().tasks.size(); ++i) {
        const auto& counts = world().counts[i];
        BOOST_TEST(counts[0].examples > 0, world().tasks[i].file.name);
        BOOST_TEST(counts[1].examples > 0, world().tasks[i].file.name);
        for (const Counts& c : counts) {
            std::int64_t dropped = 0;
            for (const auto& [why, n] : c.dropped) dropped += n;
            BOOST_TEST(c.kept + dropped == c.rows, world().tasks[i].file.name);
        }
    }
}

BOOST_AUTO_TEST_CASE(official_parts_are_whole) {
    // Rows of the published files (MANIFEST.md), those that a filter or the guard leaves out included.
    const auto check = [](const char* name, Split split, std::int64_t rows) { BOOST_TEST(world().of(name, split).rows == rows, name); };
    check("tnews", Split::train, 53360), check("tnews", Split::dev, 10000), check("tnews", Split::test, 20000);
    check("iflytek", Split::dev, 2599), check("iflytek", Split::test, 2600);
    check("afqmc", Split::train, 34334), check("afqmc", Split::dev, 4316), check("afqmc", Split::test, 3861);
    check("cmnli", Split::dev, 12241), check("cmnli", Split::test, 13880), check("ocnli", Split::test, 3000);
    check("cluewsc2020", Split::train, 1244), check("cluewsc2020", Split::dev, 304), check("cluewsc2020", Split::test, 2574 + 290);
    check("csl", Split::test, 3000), check("cmrc2018", Split::train, 10142), check("cmrc2018", Split::dev, 3219),
        check("cmrc2018", Split::test, 2000);
    check("c3", Split::train, 11869), check("c3", Split::dev, 3816), check("c3", Split::test, 3892 + 1625);
    check("cluener", Split::test, 1345);
    for (const char* name : {"tnews", "afqmc", "cmnli", "cmrc2018", "c3", "iflytek", "csl"})
        BOOST_TEST(world().of(name, Split::dev).kept == world().of(name, Split::dev).rows, name);
}

BOOST_AUTO_TEST_CASE(guarded_texts_leave_the_training_rows) {
    const std::string why = "stands in a guarded dev or test part";
    // MANIFEST.md counts 925 dev and 899 test1.0 sentences of TNEWS in its train part.
    BOOST_TEST(world().of("tnews", Split::train).dropped.at(why) >= 899);
    BOOST_TEST(world().of("iflytek", Split::train).dropped.at(why) >= 100);
}

BOOST_AUTO_TEST_CASE(templates_give_the_released_ids) {
    // Ids of [[它]], A||B and _____ by bert4keras and the released vocabulary (roformer_v2.md 8.2).
    rf::test::need_real_data("vocab/roformer_v2_char_vocab.txt");
    const rf::Vocabulary vocabulary((rf::test::real_data() / "vocab/roformer_v2_char_vocab.txt").string());
    const rf::Tokenizer tokenizer(vocabulary);
    const auto ids = [&](const std::string& more, const std::string& row) {
        const rf::test::SmallTask task(R"({"name": "t", "kind": "regress", "train": "a.jsonl", "label": "{y}", )" + more + "}", {{"a.jsonl", row}});
        const Prepared p = prepare(task.read(), tokenizer, {})[Split::train];
        const auto tokens = p.sequence(0);
        return std::vector<std::uint16_t>(tokens.begin(), tokens.end());
    };
    using Ids = std::vector<std::uint16_t>;
    BOOST_TEST(ids(R"("input": ["{s}"], "mark": [{"text": "它", "start": "at"}])", R"({"s": "它", "at": 0, "y": 1})") ==
                   (Ids{101, 138, 138, 1680, 140, 140, 102}),
               boost::test_tools::per_element());
    BOOST_TEST(
        ids(R"("input": ["{lines|||}", "{s}"])", R"({"lines": ["A", "B"], "s": "它", "y": 1})") == (Ids{101, 142, 169, 169, 143, 102, 1680, 102}),
        boost::test_tools::per_element());
    BOOST_TEST(ids(R"("reader": {"blanks": {"text": "s", "pattern": "#idiom\\d+#"}}, "input": ["{left?}", "{right?}"])",
                   R"({"s": "它#idiom1#它#idiom2#", "y": 1})") == (Ids{101, 1680, 102, 1680, 100, 100, 100, 100, 100, 102}),
               boost::test_tools::per_element());
}
