#include "comm/parallel_grid.hpp"

namespace rf {

ParallelGrid::ParallelGrid(Communicator& all, std::int64_t tensor_size) : world(all) {
    if (tensor_size < 1 || all.size() % tensor_size != 0)
        fail_usage("parallel.tensor = ", tensor_size, " does not divide the ", all.size(),
                   " ranks of this run (ranks = tensor ranks x data ranks)");
    const int size = static_cast<int>(tensor_size);
    tensor = all.split(all.rank() / size);
    data = all.split(all.rank() % size);
}

}  // namespace rf
