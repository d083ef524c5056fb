/// Metrics against figures computed by hand.

#include "tasks/metrics.hpp"

#include "tasks/cmrc_score.hpp"
#include "tests/tasks/small_task.hpp"
#include "text/unicode.hpp"

#include <boost/test/unit_test.hpp>

#include <array>
#include <cmath>

namespace {

using namespace rf;
using namespace rf::tasks;
using test::SmallTask;
using test::cells;
namespace tt = boost::test_tools;

/// Names of the metrics in their order, and one's value.
std::string names(const std::vector<Metric>& list) {
    std::string out;
    for (const Metric& m : list) out += (out.empty() ? "" : " ") + m.name;
    return out;
}
double value(const std::vector<Metric>& list, const std::string& name) {
    for (const Metric& m : list)
        if (m.name == name) return m.value;
    BOOST_FAIL("no metric " << name);
    return 0;
}
std::vector<Metric> score_train(const SmallTask& task, const Outputs& outputs) { return score(task.read(), task.prepare()[Split::train], outputs); }

std::string segments(const std::string& text) {
    std::string out;
    for (const std::u32string& s : cmrc_segments(text)) out += (out.empty() ? "" : "|") + encode_utf8(s);
    return out;
}

constexpr double rounding = 1e-12;  // a few operations in f64

}  // namespace

BOOST_AUTO_TEST_CASE(accuracy_and_f1_of_classes) {
    // Right: a a b c; answered: a b b a. d is neither. F1: a 1/2, b 2/3, c 0.
    const SmallTask task(R"({"name": "c", "kind": "classify", "train": "a.jsonl", "input": ["{t}"], "label": "{y}", "labels": ["a", "b", "c", "d"],
        "metric": "macro_f1", "max_length": 16})",
                         {{"a.jsonl", "{\"t\": \"一\", \"y\": \"a\"}\n{\"t\": \"二\", \"y\": \"a\"}\n{\"t\": \"三\", \"y\": \"b\"}\n{\"t\": \"四\", \"y\": \"c\"}\n"}});
    const auto m = score_train(task, {.width = 4, .logits = {1, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0}});
    BOOST_TEST(names(m) == "macro_f1 accuracy examples");
    BOOST_TEST(value(m, "accuracy") == 0.5);
    BOOST_TEST(value(m, "macro_f1") == (0.5 + 2.0 / 3) / 3, tt::tolerance(rounding));
    BOOST_TEST(value(m, "examples") == 4);
}

BOOST_AUTO_TEST_CASE(what_is_not_known_is_not_scored) {
    const SmallTask task(R"({"name": "c", "kind": "classify", "train": "a.jsonl", "test": "b.jsonl", "input": ["{t}"], "label": "{y}", "labels": ["a", "b"], "max_length": 16})",
                         {{"a.jsonl", "{\"t\": \"一\", \"y\": \"a\"}\n"}, {"b.jsonl", "{\"t\": \"一\"}\n{\"t\": \"二\", \"y\": \"b\"}\n"}});
    const Prepared test = task.prepare()[Split::test];
    const auto m = score(task.read(), test, {.width = 2, .logits = {1, 0, 0, 1}});
    BOOST_TEST(value(m, "accuracy") == 1);
    BOOST_TEST(value(m, "examples") == 1);
    const SmallTask none(R"({"name": "c", "kind": "classify", "train": "a.jsonl", "test": "b.jsonl", "input": ["{t}"], "label": "{y}", "labels": ["a", "b"], "max_length": 16})",
                         {{"a.jsonl", "{\"t\": \"一\", \"y\": \"a\"}\n"}, {"b.jsonl", "{\"t\": \"一\"}\n"}});
    const auto n = score(none.read(), none.prepare()[Split::test], {.width = 2, .logits = {1, 0}});
    BOOST_TEST(names(n) == "accuracy macro_f1 examples");
    BOOST_TEST(std::isnan(value(n, "accuracy")));
    BOOST_TEST(std::isnan(value(n, "macro_f1")));
    BOOST_TEST(value(n, "examples") == 0);
}

BOOST_AUTO_TEST_CASE(choices_are_scored_with_and_without_assignment) {
    const SmallTask task(
        R"({"name": "m", "kind": "multiple_choice", "train": "a.jsonl", "input": ["{t}", "{choice}"], "choices": "c", "answer": "{y}", "group": "g", "metric": "assigned_accuracy",
        "max_length": 16})",
        {{"a.jsonl", "{\"t\": \"一\", \"c\": [\"甲\", \"乙\"], \"y\": 1}\n{\"t\": \"二\", \"c\": [\"甲\", \"乙\"], \"y\": 0}\n"}});
    const auto m = score_train(task, {.width = 1, .logits = {1, 0.9F, 0.8F, 0.1F}});
    BOOST_TEST(names(m) == "assigned_accuracy accuracy examples");
    BOOST_TEST(value(m, "assigned_accuracy") == 1);
    BOOST_TEST(value(m, "accuracy") == 0.5);
    const SmallTask alone(
        R"({"name": "m", "kind": "multiple_choice", "train": "a.jsonl", "input": ["{t}", "{choice}"], "choices": "c", "answer": "{y}", "metric": "assigned_accuracy"})",
        {{"a.jsonl", ""}});
    RF_TEST_HOLDS(alone.refusal(), "metric: assigned_accuracy needs \"group\"");
}

BOOST_AUTO_TEST_CASE(correlations) {
    const std::array<double, 4> a{1, 2, 3, 4}, b{1, 4, 9, 16}, tied{1, 1, 2, 2}, flat{5, 5, 5, 5};
    BOOST_TEST(spearman(a, b) == 1, tt::tolerance(rounding));
    BOOST_TEST(pearson(a, b) == 25 / std::sqrt(5.0 * 129), tt::tolerance(rounding));  // deviations from 2.5 and 7.5
    BOOST_TEST(spearman(a, tied) == 4 / std::sqrt(5.0 * 4), tt::tolerance(rounding));  // ranks 1.5 1.5 3.5 3.5
    BOOST_TEST(pearson(a, flat) == 0);
    BOOST_TEST(spearman(flat, a) == 0);
    const SmallTask task(R"({"name": "r", "kind": "regress", "train": "a.jsonl", "input": ["{t}"], "label": "{y}", "max_length": 16})",
                         {{"a.jsonl", "{\"t\": \"一\", \"y\": 1}\n{\"t\": \"二\", \"y\": 0}\n"}});
    const auto m = score_train(task, {.width = 1, .logits = {0, 3}});
    BOOST_TEST(names(m) == "spearman pearson examples");
    BOOST_TEST(m[0].value == -1, tt::tolerance(rounding));
}

BOOST_AUTO_TEST_CASE(lists_are_scored_by_their_order) {
    const std::array<float, 3> grades{0, 2, 1};
    const RankScore best = rank_score(std::array{0.1F, 0.9F, 0.5F}, grades);
    BOOST_TEST(best.ndcg == 1, tt::tolerance(rounding));
    BOOST_TEST(best.mrr == 1);
    BOOST_TEST(best.accuracy == 1);
    // Order: grade 1, grade 2, grade 0.
    const RankScore second = rank_score(std::array{0.1F, 0.5F, 0.9F}, grades);
    BOOST_TEST(second.ndcg == (1 + 3 / std::log2(3.0)) / (3 + 1 / std::log2(3.0)), tt::tolerance(rounding));
    BOOST_TEST(second.mrr == 0.5);
    BOOST_TEST(second.accuracy == 0);
    // Scores that tell nothing rank the best last.
    BOOST_TEST(rank_score(std::array{1.0F, 1.0F, 1.0F}, grades).mrr == 1.0 / 3, tt::tolerance(rounding));
    const SmallTask task(
        R"({"name": "k", "kind": "rank", "train": "a.jsonl", "test": "a.jsonl", "input": ["{q}", "{t}"], "group": "{q}", "label": "{y}", "max_length": 16})",
        {{"a.jsonl", "{\"q\": \"一\", \"t\": \"甲\", \"y\": 0}\n{\"q\": \"二\", \"t\": \"甲\", \"y\": 1}\n{\"q\": \"一\", \"t\": \"乙\", \"y\": 2}\n{\"q\": \"二\", \"t\": \"乙\", \"y\": 1}\n"}});
    // A test part keeps lists of one grade: they are answered, not scored.
    const auto m = score(task.read(), task.prepare()[Split::test], {.width = 1, .logits = {1, 2, 5, 6}});
    BOOST_TEST(names(m) == "ndcg mrr accuracy examples");
    BOOST_TEST(value(m, "accuracy") == 1);
    BOOST_TEST(value(m, "examples") == 1);
}

BOOST_AUTO_TEST_CASE(cmrc_segments_are_characters_and_words) {
    BOOST_TEST(segments(" 在2009年10月，Intel Core i7！") == "在|2009|年|10|月|intel|core|i7");
    // What is taken out joins its neighbours; ： is full-width and goes, ( and , stay, a digit behind a comma keeps it in the word.
    BOOST_TEST(segments("a-b：c") == "abc");
    BOOST_TEST(segments("(1,234.5)a, b,") == "(|1,234.5|)|a|,|b|,");
    BOOST_TEST(segments("it's U.S.A. ... don't.") == "it|'s|u.s.a.|...|do|n't|.");
    BOOST_TEST(segments("……") == "……");
    BOOST_TEST(segments("") == "");
}

BOOST_AUTO_TEST_CASE(cmrc_answers) {
    const auto one = [](const char* answer, const std::vector<std::string>& right) { return cmrc_score(answer, right); };
    BOOST_TEST(one("《Abc》 ", {"x", "aBC"}).exact_match == 1);
    BOOST_TEST(one("一二 三", {"一二三"}).exact_match == 0);  // white space inside counts
    BOOST_TEST(one("一二 三", {"一二三"}).f1 == 1);
    // 三四五 of 一二三四五 and 三四五六: precision 3/4, recall 3/5; against 六 1/4 and 1.
    BOOST_TEST(one("三四五六", {"一二三四五", "六"}).f1 == 2 * 0.75 * 0.6 / (0.75 + 0.6), tt::tolerance(rounding));
    // A common run, not a common subsequence: 一 … 三 is no run.
    BOOST_TEST(one("一二三", {"一四三"}).f1 == 1.0 / 3, tt::tolerance(rounding));
    BOOST_TEST(one("", {"一"}).f1 == 0);
    BOOST_TEST(one("，", {"。"}).exact_match == 1);  // nothing is left of either
    BOOST_TEST(one("，", {"。"}).f1 == 0);
}

BOOST_AUTO_TEST_CASE(spans_with_and_without_an_answer) {
    const SmallTask task(
        R"({"name": "s", "kind": "span", "train": "a.jsonl", "dev": "a.jsonl", "input": ["{q}", "{c}"], "answers": {"text": "{a}", "start": "at"}, "no_answer": ["无"],
        "max_length": 12})",
        {{"a.jsonl", "{\"q\": \"问\", \"c\": \"一二三四\", \"a\": \"二三\", \"at\": 1}\n{\"q\": \"问\", \"c\": \"一二\", \"a\": \"无\", \"at\": -1}\n"
                     "{\"q\": \"问\", \"c\": \"一二\", \"a\": \"无\", \"at\": -1}\n{\"q\": \"问\", \"c\": \"三四三\", \"a\": \"三\", \"at\": 0}\n"}});
    // Tokens of the context begin at 3. The last answer is the right text in the wrong place.
    Outputs outputs = cells({{{0, 4, 6, 1}}, {{0, 3, 3, 1}}, {{0, 3, 3, 1}}, {{0, 5, 5, 1}}});
    outputs.probability = {1, 1, 1, 1}, outputs.no_answer = {0, 1, 0, 0};
    const auto m = score(task.read(), task.prepare()[Split::dev], outputs);
    BOOST_TEST(names(m) == "exact_match f1 span_accuracy examples");
    BOOST_TEST(value(m, "exact_match") == 0.5);
    BOOST_TEST(value(m, "f1") == (0.8 + 1 + 0 + 1) / 4, tt::tolerance(rounding));
    BOOST_TEST(value(m, "span_accuracy") == 0.25);
    outputs.no_answer = {1, 1, 1, 1};
    BOOST_TEST(value(score(task.read(), task.prepare()[Split::dev], outputs), "exact_match") == 0.5);
}

BOOST_AUTO_TEST_CASE(marks_are_sets_of_type_and_place) {
    const SmallTask task(R"({"name": "e", "kind": "entities", "train": "a.jsonl", "input": ["{t}"], "labels": ["A", "B", "C"], "max_length": 16,
        "entities": [{"each": "m", "type": "{0}", "start": "1", "end": "2"}]})",
                         {{"a.jsonl", "{\"t\": \"一二三四\", \"m\": [[\"A\", 0, 2], [\"A\", 0, 2], [\"B\", 2, 3]]}\n{\"t\": \"五\", \"m\": []}\n"}});
    // A: one right, found, and one too many; B: of another length. C is nowhere.
    const auto m = score_train(task, cells({{{0, 1, 2, 1}, {1, 3, 4, 1}}, {{0, 1, 1, 1}}}));
    BOOST_TEST(names(m) == "micro_f1 macro_f1 examples");
    BOOST_TEST(value(m, "micro_f1") == 2.0 / 5, tt::tolerance(rounding));
    BOOST_TEST(value(m, "macro_f1") == (2.0 / 3 + 0) / 2, tt::tolerance(rounding));
    BOOST_TEST(value(m, "examples") == 2);
    BOOST_TEST(value(score_train(task, cells({{}, {}})), "micro_f1") == 0);
}

BOOST_AUTO_TEST_CASE(relations_are_compared_as_texts) {
    const SmallTask task(R"({"name": "r", "kind": "relations", "train": "a.jsonl", "input": ["{t}"], "labels": ["L"], "max_length": 16,
        "relations": [{"each": "m", "type": "L", "subject": {"text": "{s}"}, "object": {"text": "{o}"}}]})",
                         {{"a.jsonl", R"({"t": "一二一二", "m": [{"s": "一", "o": "二"}]})"}});
    // The pair stands in the text twice; either place will do, and both count once.
    const std::vector<FoundCell> there{{0, 3, 3, 1}, {1, 4, 4, 1}, {2, 3, 4, 1}, {3, 3, 4, 1}};
    BOOST_TEST(value(score_train(task, cells({there})), "micro_f1") == 1);
    std::vector<FoundCell> both = there;
    both.insert(both.end(), {{0, 1, 1, 1}, {1, 2, 2, 1}, {2, 1, 2, 1}, {3, 1, 2, 1}});
    BOOST_TEST(value(score_train(task, cells({both})), "micro_f1") == 1);
    BOOST_TEST(value(score_train(task, cells({{}})), "micro_f1") == 0);
}
