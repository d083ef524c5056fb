#pragma once
/// Keys that every training command has, and what the ranks of a process are for all runs of a command.

#include "comm/parallel_grid.hpp"
#include "io/json.hpp"
#include "optim/optimizer.hpp"
#include "train/watchdog.hpp"

#include <boost/describe.hpp>

#include <string>

namespace rf {

struct ParallelInput {
    std::int64_t tensor = 1;   ///< ranks that split one copy of the model
    std::int64_t threads = 0;  ///< OpenMP threads of a rank; 0: the cores of the host shared evenly by its ranks
    bool graphs = true;        ///< on GPUs: capture each step shape once as a CUDA graph and replay it
};
BOOST_DESCRIBE_STRUCT(ParallelInput, (), (tensor, threads, graphs))

/// Points [[update, value], …], straight lines between them.
struct ScheduleInput {
    /// Times optimizer.lr; the recipe's keys divided by its accumulation of 8.
    json::value lr = boost::json::parse("[[0,0],[4000,1],[40000,0.5],[160000,0.1],[320000,0.01]]");
    /// Residual weight where model.residual_mode is "alpha". The article gives no length; the end of the learning rate's
    /// first decay is taken.
    json::value alpha = boost::json::parse("[[0,0],[40000,1]]");
};
BOOST_DESCRIBE_STRUCT(ScheduleInput, (), (lr, alpha))

/// Keys of every training command.
struct RunInput {
    std::string output;
    std::int64_t seed = 1;
    std::string device = "auto";
    std::string dtype = "auto";
    ParallelInput parallel;
    OptimizerConfig optimizer;
    ScheduleInput schedule;
    std::int64_t log_every = 10;
    std::int64_t checkpoint_every = 1000;
    std::int64_t checkpoint_failures_allowed = 3;  ///< in a row that are warnings; the next one ends the run
    std::int64_t keep = 3;          ///< newest checkpoints that stay
    double time_limit = 0;          ///< seconds; 0: none
    std::int64_t skips_allowed = 3; ///< updates in a row that are left out because loss or gradient are not finite; one more stops the run
    std::int64_t self_check_every = 0;  ///< updates between those before which a lane is worked on twice and the weights of all data ranks are compared; 0: never
    std::int64_t replay = 0;        ///< update to work on once more, from the newest checkpoint before it, and to describe; nothing is written
    WatchdogInput watchdog;

    void check(const json::Place& place) const;
};
BOOST_DESCRIBE_STRUCT(RunInput, (), (output, seed, device, dtype, parallel, optimizer, schedule, log_every, checkpoint_every, checkpoint_failures_allowed, keep, time_limit,
                                     skips_allowed, self_check_every, replay, watchdog))

/// Threads of this rank by default, set; returns the sentence that says what was taken.
std::string share_cores(const World& world, std::int64_t threads);

/// What the ranks of a process are for all runs of a command. Made once, before anything that is split over them.
struct Ranks {
    Ranks(World& world, const RunInput& input, const json::Place& place)
        : Ranks(world, input.parallel, input.device, (input.check(place), share_cores(world, input.parallel.threads))) {}
    double start;       ///< when the command began, on the steady clock: time limits are of the whole command
    std::string cores;  ///< for the log
    Device device;      ///< chosen before the ranks are split into groups
    const Progress& progress;  ///< of this rank in collectives
    ParallelGrid grid;

private:
    Ranks(World& world, const ParallelInput& parallel, const std::string& device, std::string cores);
};

/// "model.hidden_size: 128 there, 256 here", or empty.
std::string difference(const json::value& there, const json::value& here, const std::string& path = {});
/// "1:02:03" or "02:03".
std::string duration(double seconds);

}  // namespace rf
