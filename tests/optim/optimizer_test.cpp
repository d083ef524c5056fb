#include "optim/optimizer.hpp"

#include "optim/lane_tree.hpp"
#include "optim/schedule.hpp"

#include <boost/test/unit_test.hpp>

#include <cmath>

using namespace rf;

namespace {

/// One tensor of two numbers.
struct Pair {
    ParamLayout layout;
    std::unique_ptr<Communicator> self = make_self_communicator();
    ParallelGrid grid{*self, 1};
    Pair() { layout.add({.name = "p", .shape = {2}}); }
};

}  // namespace

BOOST_AUTO_TEST_CASE(lamb_takes_the_published_steps) {
    Pair p;
    const ParamState state(p.layout, p.grid, Dtype::f64, true);
    Optimizer optimizer({.lr = 0.01}, state, p.grid);
    double* w = state.master().as<double>();
    w[0] = 3, w[1] = 4;
    std::vector<double> gradient(static_cast<std::size_t>(state.shard_size()), 0);
    gradient[0] = .1, gradient[1] = -.2;
    Stream stream;
    const Tensor g = view(gradient.data(), {state.shard_size()});
    const auto first = optimizer.step(stream, g, 1, 0.01);
    BOOST_TEST(std::abs(first.gradient_norm - std::sqrt(.05)) < 1e-15);
    BOOST_TEST(std::abs(w[0] - 2.964257601) < 5e-10);
    BOOST_TEST(std::abs(w[1] - 4.0349639945) < 5e-10);
    optimizer.step(stream, g, 2, 0.01);
    BOOST_TEST(std::abs(w[0] - 2.9285655933) < 5e-10);
    BOOST_TEST(std::abs(w[1] - 4.0700760486) < 5e-10);
}

BOOST_AUTO_TEST_CASE(a_zero_gradient_decays_by_the_whole_rate_unless_skipped) {
    for (const bool skip : {false, true}) {
        Pair p;
        const ParamState state(p.layout, p.grid, Dtype::f64, true);
        Optimizer optimizer({.lr = 0.01, .skip_zero_gradient = skip}, state, p.grid);
        double* w = state.master().as<double>();
        w[0] = 3, w[1] = 4;
        std::vector<double> gradient(static_cast<std::size_t>(state.shard_size()), 0);
        Stream stream;
        optimizer.step(stream, view(gradient.data(), {state.shard_size()}), 1, 0.01);
        BOOST_TEST(std::abs(w[0] - (skip ? 3 : 2.97)) < 1e-12);
        BOOST_TEST(std::abs(w[1] - (skip ? 4 : 3.96)) < 1e-12);
    }
}

BOOST_AUTO_TEST_CASE(schedule_has_the_published_multipliers) {
    const Schedule s(boost::json::parse("[[0,0],[32000,1],[320000,0.5],[1280000,0.1],[2560000,0.01]]"), {"test", ""});
    const std::pair<std::int64_t, double> points[] = {{0, 0}, {16000, .5}, {32000, 1}, {176000, .75}, {320000, .5}, {800000, .3}, {1280000, .1},
                                                      {1920000, .055}, {2560000, .01}, {8000000, .01}};
    for (const auto& [update, value] : points) BOOST_TEST(std::abs(s.at(update) - value) < 1e-12);
}

BOOST_AUTO_TEST_CASE(a_gradient_that_is_not_finite_is_named_and_not_applied) {
    Pair p;
    const ParamState state(p.layout, p.grid, Dtype::f32, true);
    Optimizer optimizer({}, state, p.grid);
    std::vector<float> gradient(static_cast<std::size_t>(state.shard_size()), 0);
    gradient[1] = NAN;
    Stream stream;
    const auto result = optimizer.step(stream, view(gradient.data(), {state.shard_size()}), 1, 0.01);
    BOOST_TEST(result.not_finite.value_or("") == "p");
    BOOST_TEST(state.master().as<float>()[0] == 0);
}

BOOST_AUTO_TEST_CASE(subtrees_cover_any_run_of_lanes) {
    BOOST_TEST((cover(8, 0, 4) == std::vector<LaneNode>{{0, 4}}));
    BOOST_TEST((cover(6, 2, 4) == std::vector<LaneNode>{{2, 4}}));
    BOOST_TEST((cover(6, 3, 6) == std::vector<LaneNode>{{3, 4}, {4, 6}}));
    BOOST_TEST(cover(5, 0, 5).size() == 1);
}
