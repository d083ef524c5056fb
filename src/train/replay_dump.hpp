#pragma once
/// The first updates of a run as a file another program can follow: initial weights, then every update's packed tokens,
/// sequence bounds, predicted positions and targets, or labels. Layout: see tests/parity/replay.py and finetune_replay.py. One rank only.

#include "io/hdf5.hpp"
#include "params/state.hpp"
#include "tasks/lane_batch.hpp"

namespace rf {

class ReplayDump {
public:
    /// An empty path makes a dump that ignores everything. More than one rank is a UsageError.
    ReplayDump(const std::string& path, const ParallelGrid& grid, const Stream& stream, const ParamState& state);
    void add(const std::vector<PackedBatch>& lanes, double lr, double alpha, double loss);
    /// The same of a task; the answers' place in the text for a dev batch.
    void add_task(const std::vector<tasks::LaneBatch>& lanes, double lr, double alpha, double loss);
    void add_dev(const tasks::LaneBatch& batch, const std::vector<std::uint16_t>& characters);
    void name_task(const tasks::Task& task);
    bool is_open() const { return file_ >= 0; }

private:
    std::string add_sequences(const char* what, std::int64_t number, const tasks::LaneBatch& batch);
    std::string path_;
    h5::File file_;
    std::int64_t next_ = 0, next_dev_ = 0;
};

}  // namespace rf
