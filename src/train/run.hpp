#pragma once
/// What every training run does from an input to an output folder: device and ranks, resume, the loop, checkpoints, signals, log
/// lines. What is learnt from and judged by is left to those who inherit.

#include "io/folder_lock.hpp"
#include "model/config.hpp"
#include "optim/schedule.hpp"
#include "train/rank_times.hpp"
#include "train/run_input.hpp"
#include "train/spike_watch.hpp"
#include "train/trainer.hpp"

#include <memory>
#include <optional>
#include <string>

namespace rf {

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
    /// Collective; also before the first update of a run that begins with weights of a checkpoint.
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
    void resume(bool anew);
    /// Goes on from the newest whole checkpoint; false where there is none.
    bool resume_newest();
    /// Throws Damage, on every rank alike, where the checkpoint is not whole; the model's state is then undefined.
    void resume_from(const std::filesystem::path& checkpoint);
    /// Of the checkpoints in the folder; of a replay those before its update. Newest first.
    std::vector<std::int64_t> kept_steps() const;
    void write_run_json() const;
    /// Waits for updates until at most `left` are under way, and reports each.
    void settle(int left, double waited);
    void report(const UpdateStats& stats, double wall, double waited);
    /// Warnings and rows of /events for an update that was skipped or whose loss stands out; rank 0 alone.
    void note_events(const UpdateStats& stats);
    void self_check(std::int64_t step, const std::vector<MicroStep>& work);
    int replay();
    int train();
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
    bool trained_before_ = false;  ///< it began with weights of a checkpoint, worth an evaluation before the first update; fresh ones are not
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
    std::unique_ptr<Watchdog> watchdog_;  ///< while the run trains
    SpikeWatch spikes_;
    RankTimes times_;
};

}  // namespace rf
