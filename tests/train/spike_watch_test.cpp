#include "train/spike_watch.hpp"

#include <boost/test/unit_test.hpp>

#include <cmath>

using namespace rf;

namespace {
/// A falling loss with some noise of deviation 0.05.
double usual(int update) { return 5 - 0.001 * update + 0.07 * std::sin(2.4 * update); }
}  // namespace

BOOST_AUTO_TEST_CASE(a_loss_that_stands_out_is_noted_and_a_falling_one_is_not) {
    SpikeWatch watch;
    for (int update = 0; update < 300; ++update) BOOST_TEST(watch.look_at(usual(update)) == "");
    BOOST_TEST(watch.look_at(usual(300) - 1) == "");  // falls
    const std::string remark = watch.look_at(usual(301) + 2);
    BOOST_TEST(remark.find("standard deviations above the mean") != std::string::npos, remark);
    BOOST_TEST(watch.look_at(usual(302)) == "");
}

BOOST_AUTO_TEST_CASE(nothing_is_noted_before_there_is_something_to_compare_with) {
    SpikeWatch watch;
    for (int update = 0; update < 49; ++update) watch.look_at(usual(update));
    BOOST_TEST(watch.look_at(50) == "");
}
