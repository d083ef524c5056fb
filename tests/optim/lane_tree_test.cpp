#include "optim/lane_tree.hpp"

#include <boost/test/unit_test.hpp>

#include <cmath>

using namespace rf;

namespace {

Communicator& world() {
    static int argc = 0;
    static char** argv = nullptr;
    static World all(argc, argv);
    return all.communicator();
}

/// A lane's gradient: numbers of very different size, so that any other order of additions shows.
float value(int lane, std::int64_t i) {
    return std::ldexp(std::sin(static_cast<float>(1 + lane) * static_cast<float>(1 + i % 977)), static_cast<int>((lane * 5 + i) % 17));
}

/// The tree by its definition.
float tree(int begin, int end, std::int64_t i) {
    if (end - begin == 1) return value(begin, i);
    int left = 1;
    while (2 * left < end - begin) left *= 2;
    return tree(begin, begin + left, i) + tree(begin + left, end, i);
}

/// Elements of `lanes` lanes' sum that differ from the tree's, over this rank's shard.
std::int64_t wrong_sums(int lanes, std::int64_t shard) {
    Communicator& comm = world();
    const std::int64_t size = shard * comm.size();
    LaneGradients gradients(lanes, comm, size, Device::cpu, Dtype::f32);
    BOOST_TEST(gradients.lane_count() == lanes / comm.size());
    BOOST_TEST(gradients.first_lane() == comm.rank() * lanes / comm.size());
    const Buffer place(shard * 4);
    Stream stream;
    std::int64_t wrong = 0;
    for (int update = 0; update < 2; ++update) {  // buffers are used again
        std::vector<int> ran;
        gradients.accumulate(stream, [&](int lane, const Tensor& gradient) {
            ran.push_back(lane);
            for (std::int64_t i = 0; i < size; ++i) {
                wrong += gradient.as<float>()[i] != 0;
                gradient.as<float>()[i] += value(lane, i);
            }
        });
        for (int i = 0; i < gradients.lane_count(); ++i) BOOST_TEST(ran[static_cast<std::size_t>(i)] == gradients.first_lane() + i);
        const Tensor sum = gradients.reduce_scatter(stream, comm, place.tensor({shard}, Dtype::f32));
        for (std::int64_t i = 0; i < shard; ++i) wrong += sum.as<float>()[i] != tree(0, lanes, comm.rank() * shard + i);
    }
    return wrong;
}

}  // namespace

BOOST_AUTO_TEST_CASE(the_left_child_is_the_largest_power_of_two) {
    BOOST_TEST(split_of({0, 2}) == 1);
    BOOST_TEST(split_of({0, 3}) == 2);
    BOOST_TEST(split_of({0, 4}) == 2);
    BOOST_TEST(split_of({0, 12}) == 8);
    BOOST_TEST(split_of({8, 12}) == 10);
}

BOOST_AUTO_TEST_CASE(subtrees_cover_any_run_of_lanes) {
    BOOST_TEST((cover(8, 0, 4) == std::vector<LaneNode>{{0, 4}}));
    BOOST_TEST((cover(6, 2, 4) == std::vector<LaneNode>{{2, 4}}));
    BOOST_TEST((cover(6, 3, 6) == std::vector<LaneNode>{{3, 4}, {4, 6}}));
    BOOST_TEST((cover(12, 9, 12) == std::vector<LaneNode>{{9, 10}, {10, 12}}));
    BOOST_TEST(cover(5, 0, 5).size() == 1U);
    for (int lanes = 1; lanes <= 13; ++lanes)
        for (int begin = 0; begin < lanes; ++begin)
            for (int end = begin + 1; end <= lanes; ++end) {
                int at = begin;
                for (const LaneNode& node : cover(lanes, begin, end)) {
                    BOOST_TEST(node.begin == at);
                    at = node.end;
                }
                BOOST_TEST(at == end);
            }
}

BOOST_AUTO_TEST_CASE(any_number_of_ranks_gives_the_bits_of_the_tree) {
    for (const int lanes : {4, 8, 12, 20}) BOOST_TEST(wrong_sums(lanes, 4096) == 0, lanes << " lanes");
}

BOOST_AUTO_TEST_CASE(odd_numbers_of_lanes_give_the_bits_of_the_tree) {
    // Odd runs of lanes on every rank: none of the runs is one subtree.
    for (const int lanes : {1, 3, 5, 7}) BOOST_TEST(wrong_sums(lanes * world().size(), 4096) == 0, lanes << " lanes a rank");
}

BOOST_AUTO_TEST_CASE(large_shards_travel_in_pieces) {
    BOOST_TEST(wrong_sums(4, (1 << 19) + 4096) == 0);  // pieces are of 2^19 elements
}

BOOST_AUTO_TEST_CASE(lanes_that_do_not_divide_are_bad_usage) {
    if (world().size() == 1) return;  // one rank takes any number
    BOOST_CHECK_THROW(LaneGradients(world().size() + 1, world(), 4096 * world().size(), Device::cpu, Dtype::f32), UsageError);
}
