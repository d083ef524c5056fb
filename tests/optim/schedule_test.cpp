#include "optim/schedule.hpp"

#include <boost/test/unit_test.hpp>

#include <cmath>

using namespace rf;

namespace {
Schedule make(const char* text) { return Schedule(boost::json::parse(text), {"test", "schedule.lr"}); }
}  // namespace

BOOST_AUTO_TEST_CASE(schedule_has_the_published_multipliers) {
    const Schedule s(boost::json::parse("[[0,0],[32000,1],[320000,0.5],[1280000,0.1],[2560000,0.01]]"), {"test", ""});
    const std::pair<std::int64_t, double> points[] = {{0, 0}, {16000, .5}, {32000, 1}, {176000, .75}, {320000, .5}, {800000, .3}, {1280000, .1},
                                                      {1920000, .055}, {2560000, .01}, {8000000, .01}};
    for (const auto& [update, value] : points) BOOST_TEST(std::abs(s.at(update) - value) < 1e-12);
}

BOOST_AUTO_TEST_CASE(outside_its_points_a_schedule_is_constant) {
    const Schedule s = make("[[10,2],[20,4]]");
    for (const auto& [update, value] : {std::pair<std::int64_t, double>{0, 2}, {10, 2}, {11, 2.2}, {15, 3}, {20, 4}, {1000000000000, 4}})
        BOOST_TEST(std::abs(s.at(update) - value) < 1e-15 * 4);
    BOOST_TEST(make("[[0,0.5]]").at(7) == 0.5);
}

BOOST_AUTO_TEST_CASE(a_warm_up_from_zero_gives_the_first_update_something) {
    BOOST_TEST(make("[[0,0],[4,1]]").at(1) == 0.25);  // updates count from 1
}

BOOST_AUTO_TEST_CASE(points_that_make_no_schedule_are_bad_usage) {
    for (const char* text : {"[]", "3", "[[0]]", "[[0,1,2]]", "[[0,\"x\"]]", "[[5,1],[5,2]]", "[[5,1],[4,2]]", "[[-1,0]]", "[[0,-1]]"}) {
        try {
            make(text);
            BOOST_ERROR(text << " was taken");
        } catch (const UsageError& e) {
            BOOST_TEST(std::string(e.what()).find("schedule.lr") != std::string::npos, e.what());
        }
    }
}
