/// The order rows are learnt in, and the batches of it.

#include "tasks/sample_order.hpp"
#include "tests/tasks/small_task.hpp"

#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <numeric>

namespace {

using namespace rf;
using namespace rf::tasks;
using test::SmallTask;

constexpr SpecialIds special{2, 3, 4};

const std::vector<std::string>& digits() {
    static const std::vector<std::string> all{"一", "二", "三", "四", "五", "六", "七", "八", "九", "十"};
    return all;
}

/// `n` rows of one to ten characters.
SmallTask classify(int n, const std::string& name = "t") {
    std::string rows;
    for (int i = 0; i < n; ++i) {
        rows += "{\"s\": \"";
        for (int c = 0; c <= i % 10; ++c) rows += digits()[static_cast<std::size_t>((i + c) % 10)];
        rows += "\", \"label\": " + std::to_string(i % 2) + "}\n";
    }
    return SmallTask(R"({"name": ")" + name + R"(", "kind": "classify", "train": "train.jsonl", "label": "{label}", "labels": ["0", "1"], "input": ["{s}"], "max_length": 16})",
                     {{"train.jsonl", rows}});
}

/// Questions whose answer is there, and questions without one.
SmallTask span(int answered, int unanswered) {
    std::string rows;
    for (int i = 0; i < answered + unanswered; ++i)
        rows += R"({"q": ")" + digits()[static_cast<std::size_t>(i % 10)] + R"(", "c": "甲乙丙丁", "a": ")" + (i < answered ? "丙" : "无") + "\"}\n";
    return SmallTask(R"({"name": "t", "kind": "span", "train": "train.jsonl", "input": ["{q}", "{c}"], "answers": {"text": "{a}"}, "no_answer": ["无"], "max_length": 16})",
                     {{"train.jsonl", rows}});
}

/// A task with its training rows and their order.
struct Ordered {
    explicit Ordered(const SmallTask& small, std::uint64_t seed = 1, bool corrupt = false)
        : task(small.read()), prepared(small.prepare()), order(task, train(), 0, seed, corrupt, special, 40) {}
    const Prepared& train() const { return prepared[Split::train]; }
    std::vector<std::int64_t> units(std::int64_t begin, std::int64_t end) const {
        std::vector<std::int64_t> out;
        for (std::int64_t i = begin; i < end; ++i) out.push_back(order.unit(i));
        return out;
    }
    bool has_answer(std::int64_t window) const {
        const auto cells = train().cells_of(window);
        return !cells.empty() && cells[0] != Cell{0, 0, 0};
    }
    Task task;
    PreparedTask prepared;
    SampleOrder order;
};

std::vector<std::int64_t> sorted(std::vector<std::int64_t> v) {
    std::sort(v.begin(), v.end());
    return v;
}
std::vector<std::int64_t> count_up(std::int64_t n) {
    std::vector<std::int64_t> v(static_cast<std::size_t>(n));
    std::iota(v.begin(), v.end(), 0);
    return v;
}

}  // namespace

BOOST_AUTO_TEST_CASE(an_epoch_sees_each_unit_once) {
    const Ordered t(classify(37));
    BOOST_TEST(t.order.epoch() == 37);
    BOOST_TEST(t.order.sequences_of_unit() == 1);
    for (int epoch = 0; epoch < 4; ++epoch) BOOST_TEST(sorted(t.units(37 * epoch, 37 * (epoch + 1))) == count_up(37));
    BOOST_TEST(t.units(0, 37) != t.units(37, 74));
    BOOST_TEST(t.units(0, 37) != count_up(37));
}

BOOST_AUTO_TEST_CASE(the_order_depends_on_seed_and_task) {
    const Ordered one(classify(37), 1), same(classify(37), 1), seed(classify(37), 2), name(classify(37, "u"), 1);
    BOOST_TEST(one.units(0, 50) == same.units(0, 50));
    BOOST_TEST(one.units(0, 50) != seed.units(0, 50));
    BOOST_TEST(one.units(0, 50) != name.units(0, 50));
}

BOOST_AUTO_TEST_CASE(half_of_any_run_of_windows_at_most_has_no_answer) {
    // Fewer without an answer than with one, as many, more: with more, an epoch takes as many of them as there are others.
    for (const auto& [answered, unanswered] : {std::pair{9, 4}, {6, 6}, {5, 13}}) {
        const Ordered t(span(answered, unanswered));
        const int without = std::min(answered, unanswered), epoch = answered + without;
        BOOST_TEST(t.order.epoch() == epoch);
        std::vector<int> seen(static_cast<std::size_t>(t.train().sequences()), 0);
        const std::vector<std::int64_t> all = t.units(0, 13 * epoch);
        for (std::size_t e = 0; e < 13; ++e) {  // each with an answer once an epoch
            std::vector<std::int64_t> right;
            for (std::size_t i = e * static_cast<std::size_t>(epoch); i < (e + 1) * static_cast<std::size_t>(epoch); ++i)
                if (t.has_answer(all[i])) right.push_back(all[i]);
            right = sorted(right);
            BOOST_TEST(right.size() == static_cast<std::size_t>(answered));
            BOOST_TEST((std::adjacent_find(right.begin(), right.end()) == right.end()));
        }
        for (std::size_t begin = 0; begin < all.size(); ++begin)
            for (std::size_t n = 1, none = 0; begin + n <= all.size() && n <= 40; ++n) {
                none += t.has_answer(all[begin + n - 1]) ? 0 : 1;
                BOOST_TEST_REQUIRE(2 * none <= n + 1, none << " of " << n << " from " << begin);
            }
        // 13 epochs show each window without an answer as often as any other of them, to within one.
        for (const std::int64_t unit : all) ++seen[static_cast<std::size_t>(unit)];
        int least = 1 << 20, most = 0;
        for (std::int64_t s = 0; s < t.train().sequences(); ++s)
            if (!t.has_answer(s)) least = std::min(least, seen[static_cast<std::size_t>(s)]), most = std::max(most, seen[static_cast<std::size_t>(s)]);
        BOOST_TEST(most - least <= 1);
    }
    BOOST_TEST(Ordered(span(3, 0)).order.epoch() == 3);
    const std::string refusal = test::refusal([] { Ordered t(span(0, 3)); });
    BOOST_TEST(refusal.find("no window of a training row holds its answer") != std::string::npos, refusal);
}

BOOST_AUTO_TEST_CASE(lanes_do_not_depend_on_how_they_are_shared_out) {
    for (const bool corrupt : {false, true}) {
        const Ordered t(classify(37), 5, corrupt);
        const std::vector<LaneBatch> all = t.order.lanes_of(30, 46, 1000, 4, 0, 4);  // into the second epoch
        std::vector<LaneBatch> shared;
        for (const auto& [first, count] : {std::pair{0, 1}, {1, 2}, {3, 1}})
            for (LaneBatch& lane : t.order.lanes_of(30, 46, 1000, 4, first, count)) shared.push_back(std::move(lane));
        BOOST_TEST_REQUIRE(shared.size() == 4);
        std::int64_t counted = 0, tokens = 0;
        std::vector<std::int64_t> samples;
        for (std::size_t i = 0; i < 4; ++i) {
            BOOST_TEST(all[i].packed.ids == shared[i].packed.ids);
            BOOST_TEST(all[i].packed.cu_seqlens == shared[i].packed.cu_seqlens);
            BOOST_TEST(all[i].packed.sample == shared[i].packed.sample);
            BOOST_TEST(all[i].labels.label == shared[i].labels.label);
            BOOST_TEST(all[i].head == 0);
            counted += all[i].counted(), tokens += all[i].packed.tokens();
            samples.insert(samples.end(), all[i].packed.sample.begin(), all[i].packed.sample.end());
        }
        BOOST_TEST(counted == 16);
        // Each unit of these once, with a sample number of its own: dropout masks differ.
        std::vector<std::int64_t> expected(16);
        std::iota(expected.begin(), expected.end(), 1000);
        BOOST_TEST(sorted(samples) == expected);
        std::int64_t lengths = 0;
        for (const std::int64_t unit : t.units(30, 46)) lengths += t.train().length(unit);
        BOOST_TEST(tokens == lengths);
    }
}

BOOST_AUTO_TEST_CASE(labels_follow_their_rows_into_the_lanes) {
    const Ordered t(classify(20));
    const std::vector<std::int64_t> units = t.units(3, 15);
    std::vector<std::string> expected, found;
    for (const std::int64_t unit : units) expected.push_back(message(test::tokens_of(t.train(), unit), " = ", t.train().label[static_cast<std::size_t>(unit)]));
    for (const LaneBatch& lane : t.order.lanes_of(3, 15, 0, 2, 0, 2))
        for (std::size_t s = 0; s + 1 < lane.packed.cu_seqlens.size(); ++s) {
            std::string text;
            for (auto i = static_cast<std::size_t>(lane.packed.cu_seqlens[s]); i < static_cast<std::size_t>(lane.packed.cu_seqlens[s + 1]); ++i)
                text += (text.empty() ? "" : " ") + test::small_vocabulary().token(static_cast<std::uint16_t>(lane.packed.ids[i]));
            BOOST_TEST(lane.labels.rows[s] == lane.packed.cu_seqlens[s]);
            found.push_back(message(text, " = ", lane.labels.label[s]));
        }
    std::sort(expected.begin(), expected.end()), std::sort(found.begin(), found.end());
    BOOST_TEST(found == expected);
}
