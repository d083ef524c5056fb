#pragma once
/// The supervised tasks of a run: their rows, the order these are learnt in, and how well they are answered.

#include "io/json.hpp"
#include "tasks/metrics.hpp"
#include "tasks/sample_order.hpp"
#include "train/encoder_model.hpp"

#include <memory>

namespace rf {

/// Examples of each split that are used, a fixed draw; 0: all.
struct LimitInput {
    std::int64_t train = 0, dev = 0, test = 0;
};
BOOST_DESCRIBE_STRUCT(LimitInput, (), (train, dev, test))

/// Where task files and rows are.
struct TaskSources {
    std::vector<std::string> files;
    std::string data;   ///< folder that the paths in task files start from; empty: the folder of each
    std::string cache;  ///< folder for prepared rows
    LimitInput limit;
};

struct TaskData {
    tasks::Task task;
    tasks::PreparedTask prepared;
    std::int64_t choices = 0;  ///< tasks::choices_of
};

/// Rank 0 prepares what is not in the cache and the others read it there; what it finds wrong reaches every rank as a UsageError.
std::vector<TaskData> load_tasks(const TaskSources& sources, const Tokenizer& tokenizer, Communicator& world);
std::vector<EncoderModel::Head> heads_of(const std::vector<TaskData>& all);

/// A split as a model answers it.
struct Judged {
    double loss = 0;  ///< mean over what the head counts
    std::vector<tasks::Metric> metrics;
    tasks::Outputs outputs;  ///< of all examples, on every rank
};
/// Without dropout. Groups of whole examples are cut from the split alone and spread over the data ranks: the result does not depend
/// on their number. Collective.
Judged judge(EncoderModel& model, ParallelGrid& grid, const tasks::Task& task, const tasks::Prepared& prepared, int head, double alpha);

}  // namespace rf
