#include "comm/parallel_grid.hpp"

#include <boost/test/unit_test.hpp>

using namespace rf;

namespace {
Communicator& world() {
    static int argc = 0;
    static char** argv = nullptr;
    static World all(argc, argv);
    return all.communicator();
}
}  // namespace

BOOST_AUTO_TEST_CASE(ranks_of_a_tensor_group_are_adjacent) {
    Communicator& all = world();
    for (int tensor_size = 1; tensor_size <= all.size(); tensor_size *= 2) {
        const ParallelGrid grid(all, tensor_size);
        BOOST_TEST(grid.tensor->size() == tensor_size);
        BOOST_TEST(grid.data->size() == all.size() / tensor_size);
        BOOST_TEST(all.rank() == grid.data->rank() * tensor_size + grid.tensor->rank());
        // Members, as world ranks: neighbours share the tensor group, strides of tensor_size the data group.
        const std::vector<std::int64_t> tensor = grid.tensor->gather(all.rank()), data = grid.data->gather(all.rank());
        for (int t = 0; t < tensor_size; ++t) BOOST_TEST(tensor[static_cast<std::size_t>(t)] == grid.data->rank() * tensor_size + t);
        for (int d = 0; d < grid.data->size(); ++d) BOOST_TEST(data[static_cast<std::size_t>(d)] == d * tensor_size + grid.tensor->rank());
    }
}

BOOST_AUTO_TEST_CASE(a_tensor_size_that_does_not_divide_is_bad_usage) {
    for (const std::int64_t size : {std::int64_t{0}, std::int64_t{-1}, std::int64_t{3}, std::int64_t{world().size() + 1}}) {
        try {
            const ParallelGrid grid(world(), size);
            BOOST_ERROR("a tensor size of " << size << " was taken on " << world().size() << " ranks");
        } catch (const UsageError& e) {
            BOOST_TEST(std::string(e.what()).find("parallel.tensor = " + std::to_string(size)) != std::string::npos);
        }
    }
}
