#pragma once
/// The first updates of a run as a file another program can follow: initial weights, then every update's packed tokens,
/// sequence bounds, predicted positions and targets. Layout: see tests/parity/replay.py. One rank only.

#include "data/batch.hpp"
#include "io/hdf5.hpp"
#include "params/state.hpp"

namespace rf {

class ReplayDump {
public:
    /// An empty path makes a dump that ignores everything. More than one rank is a UsageError.
    ReplayDump(const std::string& path, const ParallelGrid& grid, const Stream& stream, const ParamState& state);
    void add(const std::vector<PackedBatch>& lanes, double lr, double alpha, double loss);

private:
    h5::File file_;
    std::int64_t next_ = 0;
};

}  // namespace rf
