/// What is read from outputs: against answers written by hand.

#include "tasks/answers.hpp"

#include "io/json.hpp"
#include "tasks/assignment.hpp"
#include "tests/tasks/small_task.hpp"

#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <array>
#include <cmath>

namespace {

using namespace rf;
using namespace rf::tasks;
using test::SmallTask;
using test::cells;
using Numbers = std::vector<std::int64_t>;

/// The answers to the train part, a line each.
std::string lines(const SmallTask& small, const Outputs& outputs) {
    std::string out;
    for (const auto& answer : answers(small.read(), small.prepare()[Split::train], outputs)) out += json::line(answer) + "\n";
    return out;
}

const char* const choices_of_a_line =
    R"({"name": "m", "kind": "multiple_choice", "train": "a.jsonl", "input": ["{t}", "{choice}"], "choices": "c", "answer": "{y}", "group": "{g?}", "max_length": 16})";

}  // namespace

BOOST_AUTO_TEST_CASE(assignment_takes_the_greatest_sum) {
    // Alone both rows would take choice 0; together 0.9 + 0.7 beats 1.0 + 0.1.
    BOOST_TEST(assign(std::array{1.0F, 0.9F, 0.8F, 0.1F}, 2) == (Numbers{1, 0}), boost::test_tools::per_element());
    // Fewer rows than choices, negative scores.
    BOOST_TEST(assign(std::array{-5.0F, -1.0F, -2.0F, -9.0F, -1.0F, -1.5F}, 3) == (Numbers{1, 2}), boost::test_tools::per_element());
    // Three rows share two choices: no choice more than twice.
    BOOST_TEST(assign(std::array{3.0F, 0.0F, 2.0F, 0.0F, 1.0F, 0.5F}, 2) == (Numbers{0, 0, 1}), boost::test_tools::per_element());
    BOOST_TEST(assign(std::array{1.0F, 1.0F, 1.0F, 1.0F}, 2)[0] != assign(std::array{1.0F, 1.0F, 1.0F, 1.0F}, 2)[1]);
    BOOST_TEST(assign({}, 2).empty());
    BOOST_CHECK_THROW(assign(std::array{1.0F, NAN}, 2), Error);
}

BOOST_AUTO_TEST_CASE(assignment_equals_trying_every_order) {
    std::uint32_t state = 1;
    for (int round = 0; round < 50; ++round) {
        std::array<float, 20> scores{};  // [4, 5]
        for (float& s : scores) s = static_cast<float>((state = state * 1664525 + 1013904223) >> 8) / 1e6F;
        std::array<std::size_t, 5> order{0, 1, 2, 3, 4};
        double best = -1;
        do {
            double sum = 0;
            for (std::size_t r = 0; r < 4; ++r) sum += scores[5 * r + order[r]];
            best = std::max(best, sum);
        } while (std::next_permutation(order.begin(), order.end()));
        double sum = 0;
        const Numbers taken = assign(scores, 5);
        for (std::size_t r = 0; r < 4; ++r) sum += scores[5 * r + static_cast<std::size_t>(taken[r])];
        BOOST_TEST(sum == best, boost::test_tools::tolerance(1e-12));  // 4 scores summed in another order
    }
}

BOOST_AUTO_TEST_CASE(a_class_has_its_name_and_all_probabilities) {
    const SmallTask task(R"({"name": "c", "kind": "classify", "train": "a.jsonl", "input": ["{t}"], "label": "{y}", "labels": ["no", "yes", "?"], "max_length": 16})",
                         {{"a.jsonl", "{\"t\": \"一\", \"y\": \"no\"}\n{\"t\": \"二\", \"y\": \"no\", \"id\": \"x\"}\n"}});
    // exp(0), exp(log 2), exp(0): a quarter, a half, a quarter. Of equals the first.
    Outputs outputs{.width = 3, .logits = {7, 7.6931472F, 7, 1, 1, -1000}};
    const auto a = answers(task.read(), task.prepare()[Split::train], outputs);
    BOOST_TEST(a.size() == 2U);
    BOOST_TEST(a[0].at("label").as_string() == "yes");
    BOOST_TEST(a[0].at("probability").as_double() == 0.5, boost::test_tools::tolerance(1e-6));  // a logit is f32
    BOOST_TEST(a[0].at("probabilities").at(2).as_double() == 0.25, boost::test_tools::tolerance(1e-6));
    BOOST_TEST(json::line(a[1]) == R"({"id": "x", "label": "no", "probability": 0.5, "probabilities": [0.5, 0.5, 0]})");
    outputs.width = 2;
    BOOST_CHECK_THROW(answers(task.read(), task.prepare()[Split::train], outputs), Error);
    outputs = {.width = 3, .logits = {1, 2, 3}};
    BOOST_CHECK_THROW(answers(task.read(), task.prepare()[Split::train], outputs), Error);
}

BOOST_AUTO_TEST_CASE(a_score_is_the_number_itself) {
    const SmallTask task(R"({"name": "r", "kind": "regress", "train": "a.jsonl", "input": ["{t}"], "label": "{y}", "max_length": 16})",
                         {{"a.jsonl", "{\"t\": \"一\", \"y\": 1}\n"}});
    BOOST_TEST(lines(task, {.width = 1, .logits = {-1.5}}) == "{\"id\": \"0\", \"score\": -1.5}\n");
}

BOOST_AUTO_TEST_CASE(choices_of_a_group_differ) {
    const SmallTask task(choices_of_a_line, {{"a.jsonl", R"({"t": "一", "c": ["甲", "乙"], "y": 0, "g": 1}
{"t": "二", "c": ["丙", "丁"], "y": 0, "g": 2}
{"t": "三", "c": ["甲", "乙"], "y": 1, "g": 1}
)"}});
    const auto a = answers(task.read(), task.prepare()[Split::train], {.width = 1, .logits = {1, 0.9F, 0, 0, 0.8F, 0.1F}});
    BOOST_TEST(json::line(a[1]) == R"({"id": "1", "choice": 0, "probability": 0.5, "probabilities": [0.5, 0.5], "assigned": 0})");
    BOOST_TEST(a[0].at("choice").as_int64() == 0);
    BOOST_TEST(a[0].at("assigned").as_int64() == 1);
    BOOST_TEST(a[2].at("choice").as_int64() == 0);
    BOOST_TEST(a[2].at("assigned").as_int64() == 0);
    const SmallTask uneven(choices_of_a_line, {{"a.jsonl", R"({"t": "一", "c": ["甲", "乙"], "y": 0, "g": 1}
{"t": "三", "c": ["甲", "乙", "丙"], "y": 1, "g": 1}
)"}});
    RF_TEST_HOLDS(test::refusal([&] { lines(uneven, {.width = 1, .logits = {1, 2, 3, 4, 5}}); }),
                  R"(examples "0" and "1" are of one group and have 2 and 3 choices)");
}

BOOST_AUTO_TEST_CASE(examples_of_different_sizes_have_their_own_softmax) {
    std::string file = choices_of_a_line;
    file.replace(file.find(R"("group": "{g?}", )"), 17, "");
    const SmallTask task(file, {{"a.jsonl", R"({"t": "一", "c": ["甲", "乙", "丙"], "y": 0}
{"t": "二", "c": ["丙", "丁"], "y": 0}
)"}});
    BOOST_TEST(lines(task, {.width = 1, .logits = {-1000, -1000, 0, 3, 3}}) ==
               "{\"id\": \"0\", \"choice\": 2, \"probability\": 1, \"probabilities\": [0, 0, 1]}\n"
               "{\"id\": \"1\", \"choice\": 0, \"probability\": 0.5, \"probabilities\": [0.5, 0.5]}\n");
}

BOOST_AUTO_TEST_CASE(a_list_has_the_scores_of_its_candidates) {
    const SmallTask task(R"({"name": "k", "kind": "rank", "train": "a.jsonl", "input": ["{q}", "{t}"], "group": "{q}", "label": "{y}", "max_length": 16})",
                         {{"a.jsonl", "{\"q\": \"一\", \"t\": \"甲\", \"y\": 0}\n{\"q\": \"二\", \"t\": \"甲\", \"y\": 0}\n{\"q\": \"一\", \"t\": \"乙\", \"y\": 2}\n{\"q\": \"二\", \"t\": \"乙\", \"y\": 1}\n"}});
    BOOST_TEST(lines(task, {.width = 1, .logits = {0.5, 2, 1, 0.25}}) ==
               "{\"id\": \"0\", \"scores\": [0.5, 2], \"best\": 1}\n{\"id\": \"1\", \"scores\": [1, 0.25], \"best\": 0}\n");
}

namespace {

/// Windows of 7 characters at 0, 4, 8, 12, 16 of a text of 20; two tokens of question, so that the context begins at token 4.
SmallTask span_task(const std::string& more = "") {
    return SmallTask(R"({"name": "s", "kind": "span", "train": "a.jsonl", "input": ["{q}", "{c}"], "answers": {"text": "{a}", "start": "at"}, "max_length": 12,
        "windows": {"stride": 4})" + more + "}",
                     {{"a.jsonl", R"({"q": "问他", "c": "一二三四五六七八九十甲乙丙丁他王一二三四", "a": "九十甲", "at": 8})"}});
}
Outputs span_outputs() {
    Outputs out = cells({{{0, 4, 5, 1}}, {{0, 8, 10, 3}}, {{0, 4, 4, 2}}, {{0, 5, 6, 3}}, {{0, 4, 7, -1}}});
    out.probability = {0.125, 0.25, 0.375, 0.5, 0.625};
    out.no_answer = {1, 1, 0, 1, 1};
    return out;
}

}  // namespace

BOOST_AUTO_TEST_CASE(the_window_that_scores_highest_answers) {
    // Of equal windows the first. A task without no_answer does not care what windows say of it.
    BOOST_TEST(lines(span_task(), span_outputs()) == "{\"id\": \"0\", \"answer\": \"九十甲\", \"probability\": 0.25, \"start\": 8, \"end\": 11}\n");
    Outputs nothing = cells({{{}}, {{}}, {{}}, {{}}, {{}}});
    nothing.probability = {0, 0, 0, 0, 0}, nothing.no_answer = {0, 0, 0, 0, 0};
    BOOST_TEST(lines(span_task(), nothing) == "{\"id\": \"0\", \"answer\": \"\", \"probability\": 0, \"start\": 0, \"end\": 0}\n");
}

BOOST_AUTO_TEST_CASE(a_question_has_no_answer_when_every_window_says_so) {
    const SmallTask task = span_task(R"(, "no_answer": ["无"])");
    Outputs outputs = span_outputs();
    BOOST_TEST(lines(task, outputs) == "{\"id\": \"0\", \"answer\": \"九\", \"no_answer\": false, \"probability\": 0.375, \"start\": 8, \"end\": 9}\n");
    outputs.no_answer[2] = 1;
    BOOST_TEST(lines(task, outputs) == "{\"id\": \"0\", \"answer\": \"\", \"no_answer\": true}\n");
}

BOOST_AUTO_TEST_CASE(entities_of_windows_are_joined_in_the_order_of_the_text) {
    // Tokens 甲 ab ##c 乙 | 丙: the blank is none, and abc stands in capitals. max_length 8 leaves 6 tokens.
    const SmallTask task(R"({"name": "e", "kind": "entities", "train": "a.jsonl", "input": ["{t}"], "labels": ["A", "B"], "max_length": 8,
        "entities": [{"each": "m", "type": "A", "text": "{.}"}]})",
                         {{"a.jsonl", R"({"t": "甲 ABC乙。丙丁丙", "m": []})"}});
    const Prepared p = task.prepare()[Split::train];
    BOOST_TEST(p.sequences() == 2);
    BOOST_TEST(test::tokens_of(p, 0) == "[CLS] 甲 ab ##c 乙 。 [SEP]");
    const Outputs outputs = cells({{{1, 4, 4, 0}, {0, 2, 3, 1}, {0, 2, 3, 2}, {1, 2, 3, 0}}, {{0, 1, 2, 1000}}});
    BOOST_TEST(lines(task, outputs) ==
               "{\"id\": \"0\", \"entities\": [{\"type\": \"A\", \"text\": \"ABC\", \"start\": 2, \"end\": 5, \"probability\": 0.8807970779778823}, "
               "{\"type\": \"B\", \"text\": \"ABC\", \"start\": 2, \"end\": 5, \"probability\": 0.5}, "
               "{\"type\": \"B\", \"text\": \"乙\", \"start\": 5, \"end\": 6, \"probability\": 0.5}, "
               "{\"type\": \"A\", \"text\": \"丙丁\", \"start\": 7, \"end\": 9, \"probability\": 1}]}\n");
    BOOST_CHECK_THROW(lines(task, cells({{{0, 1, 9, 1}}, {}})), Error);
}

BOOST_AUTO_TEST_CASE(a_head_that_says_yes_to_all_gives_its_best_cells) {
    const SmallTask task(R"({"name": "e", "kind": "entities", "train": "a.jsonl", "input": ["{t}"], "labels": ["A"], "max_length": 16,
        "entities": [{"each": "m", "type": "A", "text": "{.}"}]})",
                         {{"a.jsonl", R"({"t": "一二三四五", "m": []})"}});
    std::vector<FoundCell> all;
    for (std::int32_t start = 1; start <= 5; ++start)
        for (std::int32_t end = start; end <= 5; ++end) all.push_back({0, start, end, 10.0 * start + end});
    // 15 cells in a sequence of 7 tokens: the best are the six that begin with 三, 四 or 五, and the longest of 二.
    const auto found = answers(task.read(), task.prepare()[Split::train], cells({all}))[0].at("entities").as_array();
    BOOST_TEST(found.size() == 7U);
    BOOST_TEST(found[0].at("text").as_string() == "二三四五");
}

BOOST_AUTO_TEST_CASE(a_relation_needs_its_four_cells) {
    const SmallTask task(R"({"name": "r", "kind": "relations", "train": "a.jsonl", "input": ["{t}"], "labels": ["L", "M"], "max_length": 16,
        "relations": [{"each": "m", "type": "L", "subject": {"text": "{s}"}, "object": {"text": "{o}"}}]})",
                         {{"a.jsonl", R"({"t": "一二三四五六", "m": []})"}});
    // Subjects 一二 and 一, object 五六; heads of L (1, 5), of M (1, 5) too; tails of L (2, 6), of M (3, 6), which no subject ends with.
    const std::vector<FoundCell> good{{0, 1, 2, 4}, {0, 1, 1, 4}, {1, 5, 6, 3}, {2, 1, 5, 0}, {3, 2, 6, 5}, {4, 1, 5, 9}, {5, 3, 6, 9}};
    BOOST_TEST(lines(task, cells({good})) == "{\"id\": \"0\", \"relations\": [{\"type\": \"L\", \"subject\": {\"text\": \"一二\", \"start\": 0, \"end\": 2}, "
                                             "\"object\": {\"text\": \"五六\", \"start\": 4, \"end\": 6}, \"probability\": 0.5}]}\n");
    for (const std::size_t without : {0U, 2U, 3U, 4U}) {
        std::vector<FoundCell> less = good;
        less.erase(less.begin() + without);
        BOOST_TEST(lines(task, cells({less})) == "{\"id\": \"0\", \"relations\": []}\n");
    }
}
