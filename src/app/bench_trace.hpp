#pragma once
/// What every rank does when, in Chrome's trace event format: `bench --trace`. A process a rank, in it a line each for updates,
/// computation, communication, drawing batches and checkpoints. Ops of a GPU are not logged; there the line of updates is left.

#include "train/trainer.hpp"

#include <functional>
#include <string>
#include <vector>

namespace rf::app {

/// What an update works on: this rank's lanes, a function of its number.
using Draw = std::function<std::vector<PackedBatch>(std::int64_t)>;

/// Why no trace can be written at this path, or empty: no folder, no permission, a file that is no trace.
std::string trace_trouble(const std::string& path);
/// Makes `count` updates from number `first` on as a training run does, their batches drawn on a thread one ahead, then writes a checkpoint
/// into a folder beside the trace, which is removed again. All ranks' ops go to one file. Collective.
void trace_updates(Trainer& trainer, EncoderModel& model, ParallelGrid& grid, const Draw& draw, std::int64_t first, std::int64_t count, const std::string& path);

}  // namespace rf::app
