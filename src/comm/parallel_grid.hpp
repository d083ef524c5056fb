#pragma once
/// Ranks as tensor × data: rank = data_rank * tensor_size + tensor_rank, so the ranks of a tensor group are adjacent.

#include "comm/communicator.hpp"

namespace rf {

struct ParallelGrid {
    /// Throws UsageError when the ranks do not divide over the tensor size.
    ParallelGrid(Communicator& world, std::int64_t tensor_size);

    Communicator& world;
    std::unique_ptr<Communicator> tensor;  ///< ranks that split one copy of the model
    std::unique_ptr<Communicator> data;    ///< ranks that hold the same part of the model
};

}  // namespace rf
