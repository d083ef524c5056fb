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

/// Elements of which the shortest buckets there can be are three.
std::int64_t three_buckets() { return 2 * 4096 * world().size() + 1; }

/// Elements of `lanes` lanes' sum that differ from the tree's, over this rank's shard. `early`: buckets leave one by one while the
/// last lane works from the end to the front.
std::int64_t wrong_sums(int lanes, std::int64_t size, std::int64_t bucket, bool early) {
    Communicator& comm = world();
    const Shards shards(size, comm.size(), bucket);
    LaneGradients gradients(lanes, comm, shards, Device::cpu, Dtype::f32);
    const int last = gradients.first_lane() + gradients.lane_count() - 1;
    BOOST_TEST(gradients.lane_count() == lanes / comm.size());
    BOOST_TEST(gradients.first_lane() == comm.rank() * lanes / comm.size());
    Stream stream;
    std::int64_t wrong = 0;
    for (int update = 0; update < 2; ++update) {  // buffers are used again
        std::vector<int> ran;
        gradients.accumulate(stream, [&](int lane, const Tensor& gradient) {
            ran.push_back(lane);
            for (int b = shards.buckets(); b-- > 0;) {
                for (std::int64_t i = shards.bucket(b).begin; i < shards.bucket(b).end; ++i) gradient.as<float>()[i] = value(lane, i);
                if (early && lane == last && b % 3 != update) gradients.complete(stream, b);  // now and then two at once
            }
        });
        for (int i = 0; i < gradients.lane_count(); ++i) BOOST_TEST(ran[static_cast<std::size_t>(i)] == gradients.first_lane() + i);
        const Tensor sum = gradients.reduce_scatter(stream);
        for (int b = 0; b < shards.buckets(); ++b)
            for (std::int64_t i = 0; i < shards.in_shard(b).size(); ++i)
                wrong += sum.as<float>()[shards.in_shard(b).begin + i] != tree(0, lanes, shards.piece(b, comm.rank()).begin + i);
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
    for (const int lanes : {4, 8, 12, 20})
        for (const bool early : {false, true}) BOOST_TEST(wrong_sums(lanes, three_buckets(), 1, early) == 0, lanes << " lanes");
}

BOOST_AUTO_TEST_CASE(odd_numbers_of_lanes_give_the_bits_of_the_tree) {
    // Odd runs of lanes on every rank: none of the runs is one subtree.
    for (const int lanes : {1, 3, 5, 7})
        for (const bool early : {false, true}) BOOST_TEST(wrong_sums(lanes * world().size(), three_buckets(), 1, early) == 0, lanes << " lanes a rank");
}

BOOST_AUTO_TEST_CASE(one_bucket_may_hold_everything) { BOOST_TEST(wrong_sums(4, 20000, 1 << 20, true) == 0); }

BOOST_AUTO_TEST_CASE(lanes_that_do_not_divide_are_bad_usage) {
    if (world().size() == 1) return;  // one rank takes any number
    BOOST_CHECK_THROW(LaneGradients(world().size() + 1, world(), Shards(4096, world().size()), Device::cpu, Dtype::f32), UsageError);
}
