#include "train/watchdog.hpp"

#include <boost/test/unit_test.hpp>

#include <algorithm>

using namespace rf;

namespace {

const std::vector<std::string> places{"a", "b", "c", "d"};

/// Two data ranks of two tensor ranks: 0 1 | 2 3. Groups: all, the tensor ranks, the data ranks.
RankAnswer answer(int rank, std::int64_t world, std::int64_t tensor, std::int64_t data, int inside) {
    const int first = rank / 2 * 2, other = rank % 2;
    RankAnswer a{.rank = rank, .work = "update 7", .seconds = 61, .progress = {}, .call_seconds = 60};
    a.progress.groups = {{{0, 1, 2, 3}, world}, {{first, first + 1}, tensor}, {{other, other + 2}, data}};
    a.progress.call = {.group = inside < 0 ? 2 : inside, .name = "all_reduce", .bytes = 3 << 20, .since = 0, .inside = inside >= 0};
    return a;
}

bool says(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace

BOOST_AUTO_TEST_CASE(ranks_that_do_not_answer_are_named) {
    const std::string text = describe_hang({answer(0, 5, 10, 3, 2), answer(1, 5, 10, 3, 2), answer(3, 5, 10, 3, 1)}, places);
    BOOST_TEST(says(text, "3 of 4 ranks answer"), text);
    BOOST_TEST(says(text, "rank 0 (a), update 7: waits since 60 s in all_reduce number 3 of ranks 0 and 2, 3.0 MiB"), text);
    BOOST_TEST(says(text, "did not arrive: rank 2 (c, no answer"), text);
    BOOST_TEST(!says(text, "rank 3 (d, "), text);
}

BOOST_AUTO_TEST_CASE(of_ranks_that_wait_in_a_chain_the_one_that_works_is_named) {
    // Rank 3 works; its tensor rank 2 waits for it, and rank 0 waits for rank 2.
    const std::string text = describe_hang({answer(0, 5, 11, 4, 2), answer(1, 5, 11, 3, -1), answer(2, 5, 10, 3, 1), answer(3, 5, 9, 3, -1)}, places);
    BOOST_TEST(says(text, "did not arrive: rank 3 (d, runs but is outside the collective)"), text);
}

BOOST_AUTO_TEST_CASE(where_all_have_come_nobody_is_blamed) {
    const std::string text = describe_hang({answer(0, 5, 1, 1, 0), answer(1, 5, 1, 1, 0), answer(2, 5, 1, 1, 0), answer(3, 5, 1, 1, 0)}, places);
    BOOST_TEST(says(text, "no rank is missing"), text);
    BOOST_TEST(!says(text, "did not arrive"), text);
}

BOOST_AUTO_TEST_CASE(ranks_that_all_work_wait_for_nobody) {
    const std::vector<RankAnswer> all{answer(0, 5, 1, 1, -1), answer(1, 5, 1, 1, -1), answer(2, 5, 1, 1, -1), answer(3, 5, 1, 1, -1)};
    BOOST_TEST(!waits(all, 4));
    BOOST_TEST(says(describe_hang(all, places), "no rank waits for another"));
    BOOST_TEST(waits(all, 5));  // one gave no answer
}

BOOST_AUTO_TEST_CASE(many_ranks_are_not_printed_one_by_one) {
    std::vector<std::string> many(1000, "host");
    std::vector<RankAnswer> answers;
    for (int r = 0; r < 999; ++r) answers.push_back(answer(r, 5, 1, 1, 0));
    const std::string text = describe_hang(answers, many);
    BOOST_TEST(std::count(text.begin(), text.end(), '\n') < 40);
    BOOST_TEST(says(text, "rank 999 (host, no answer"), text);
}
