#include "core/cpu.hpp"

#include <boost/test/unit_test.hpp>

#include <numeric>

using namespace rf;

namespace {

std::vector<int> cores(int first, int count) {
    std::vector<int> list(static_cast<std::size_t>(count));
    std::iota(list.begin(), list.end(), first);
    return list;
}

/// What each of the ranks with these cores gets.
std::vector<int> shares(const std::vector<std::vector<int>>& ranks) {
    std::vector<int> users(256), out;
    for (const std::vector<int>& mine : ranks)
        for (const int core : mine) ++users[static_cast<std::size_t>(core)];
    for (const std::vector<int>& mine : ranks) out.push_back(fair_cores(mine, users));
    return out;
}

}  // namespace

BOOST_AUTO_TEST_CASE(cores_of_ones_own_are_not_divided_again) {
    // As srun --cpus-per-task=16 binds four ranks, or mpirun --map-by socket:pe=16.
    BOOST_TEST(shares({cores(0, 16), cores(16, 16), cores(32, 16), cores(48, 16)}) == std::vector<int>({16, 16, 16, 16}), boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(cores_that_several_may_use_are_shared) {
    BOOST_TEST(shares({cores(0, 64), cores(0, 64), cores(0, 64), cores(0, 64)}) == std::vector<int>({16, 16, 16, 16}), boost::test_tools::per_element());
    BOOST_TEST(shares({cores(0, 32), cores(0, 32), cores(32, 32)}) == std::vector<int>({16, 16, 32}), boost::test_tools::per_element());
    BOOST_TEST(shares({cores(0, 3), cores(0, 3), cores(0, 3)}) == std::vector<int>({1, 1, 1}), boost::test_tools::per_element());
    BOOST_TEST(shares({cores(0, 2), cores(0, 2), cores(0, 2), cores(0, 2)}) == std::vector<int>({1, 1, 1, 1}), boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(this_process_may_run_somewhere) {
    const std::vector<int> mine = cpu_list();
    BOOST_TEST(!mine.empty());
    BOOST_TEST(cpu_count() == static_cast<int>(mine.size()));
}
