#pragma once
/// What every training run does from an input to an output folder: device and ranks, resume, the loop, checkpoints, signals, log
/// lines. What is learnt from and judged by is left to those who inherit.

#include "io/folder_lock.hpp"
#include "model/config.hpp"
#include "optim/schedule.hpp"
#include "train/results.hpp"
#include "train/spike_watch.hpp"
#include "train/trainer.hpp"
#include "train/watchdog.hpp"

#include <boost/describe.hpp>

#include <memory>
#include <optional>
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

class Run {
public:
    virtual ~Run() = default;
    /// The exit code: 0 done, 75 stopped by a signal or the time limit after a durable checkpoint.
    int go();

protected:
    /// What a run may be told besides its input.
    struct Setup {
        std::string command;
        RunInput input;          ///< the keys that all have
        json::value whole;       ///< the whole input, as it is stored
        json::Place place;
        std::int64_t steps = 0;  ///< updates
        std::int64_t eval_every = 1;
        json::value identity;    ///< what may not change between runs in one output folder
        std::string vocab;       ///< text of vocab.txt
        std::int64_t samples_of_update = 1;  ///< that the data cursor moves on by
    };
    explicit Run(Ranks& ranks);
    /// To be called when model and trainer are there: opens the folder, then continues or begins. `given`: a checkpoint to take the
    /// weights from when a new run begins; empty: from the seed.
    void open(Setup setup, bool restart, const std::string& given);

    /// This rank's lanes of an update's micro-steps; called on another thread, one ahead.
    virtual std::vector<MicroStep> steps_of(std::int64_t update) = 0;
    /// Collective; also before the first update.
    virtual void evaluate(std::int64_t step) = 0;
    /// What results.h5 gets of an update beside its row of /train; rank 0 alone.
    virtual void record(const UpdateStats&) {}
    /// Tables and meta data of results.h5 beside /train and the model's; rank 0 alone.
    virtual void declare(Results&) {}
    /// Lines about the data, when the run begins.
    virtual void introduce() {}
    /// May end the run after this update, whose evaluation is done. The same on all ranks.
    virtual bool is_over(std::int64_t) { return false; }
    /// Looks at an update before the next is launched; `wants` says of which it must.
    virtual bool wants(std::int64_t) const { return false; }
    virtual void look_at(std::int64_t, const std::vector<MicroStep>&) {}
    /// What differs from the identity of an earlier run in the folder, or empty.
    virtual std::string changed(const json::value& there) const { return difference(there, setup_.identity); }

    double lr_at(std::int64_t step) const { return setup_.input.optimizer.lr * lr_.at(step); }
    double alpha_at(std::int64_t step) const { return config_.residual_mode == "alpha" ? alpha_.at(step) : 1; }
    /// Keeps the checkpoint of this step, whatever is newer.
    void protect(std::int64_t step) {
        protected_ = step;
        writer_->protect(step);
    }
    Results* results() { return results_.get(); }
    std::int64_t first() const { return first_; }
    const std::filesystem::path& folder() const { return folder_; }

    Ranks& ranks_;
    ParallelGrid& grid_;
    ModelConfig config_;
    Schedule lr_, alpha_;
    std::unique_ptr<EncoderModel> model_;
    std::unique_ptr<Trainer> trainer_;

private:
    void open_output(bool restart);
    void resume();
    /// The newest whole checkpoint, if there is any.
    std::optional<std::filesystem::path> newest_checkpoint();
    /// Of the checkpoints in the folder; of a replay those before its update. Newest first.
    std::vector<std::int64_t> kept_steps() const;
    void write_run_json() const;
    /// Waits for updates until at most `left` are under way, and reports each.
    void settle(int left, double waited);
    void report(const UpdateStats& stats, double wall, double waited);
    /// Warnings and rows of /events for an update that was skipped or whose loss stands out; rank 0 alone.
    void note_events(const UpdateStats& stats);
    /// Where each rank runs: "host, process number".
    std::vector<std::string> places() const;
    /// How long updates take each rank, and how much of that it works itself: rows of /ranks since the last call. Collective.
    void compare_ranks(std::int64_t step);
    void self_check(std::int64_t step, const std::vector<MicroStep>& work);
    int replay();
    /// Begins a checkpoint, when an earlier one is over. One that cannot be written is a warning, until too many in a row were not.
    void checkpoint(std::int64_t step);
    /// Waits for the checkpoint begun last; false when it could not be written.
    bool end_checkpoint();
    /// A checkpoint that no later one makes up for: tried again at once, as often as failures are allowed. On return it is durable.
    void checkpoint_durably(std::int64_t step);
    void note_failure(std::int64_t step, const std::string& what);
    enum class Due { now_and_then, now, now_or_fail };
    /// Rows and results.h5. What cannot be written is told once and waits, or is an error on every rank.
    void write_results(Due due);
    /// True on all ranks when any of them has been told to stop; also moves a finished checkpoint on.
    bool agree_to_stop();

    Setup setup_;
    double start_;            ///< when it was made
    std::filesystem::path folder_;
    FolderLock lock_;
    std::unique_ptr<CheckpointWriter> writer_;
    std::unique_ptr<Results> results_;
    std::int64_t first_ = 0;  ///< updates done when this run began
    std::int64_t protected_ = -1;
    std::int64_t begun_ = -1;     ///< step of the checkpoint under way
    std::int64_t failures_ = 0;   ///< checkpoints in a row that could not be written
    std::int64_t told_ = -1;      ///< step of the failure told last
    std::int64_t insists_ = -1;   ///< step of checkpoint_durably
    bool results_told_ = false;   ///< the trouble with the results has been told
    double rate_ = 0;         ///< smoothed seconds per update, for the ETA
    double last_ = 0;         ///< when the last update was done
    double last_inside_ = 0;  ///< seconds in collectives until then
    std::vector<std::string> places_;  ///< of each rank
    std::unique_ptr<Watchdog> watchdog_;
    SpikeWatch spikes_;
    std::vector<double> walls_, own_;  ///< of the updates since the ranks were compared: seconds, and what of them was not spent in collectives
};

}  // namespace rf
