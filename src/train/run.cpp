#include "train/run.hpp"

#include "core/build.hpp"
#include "core/cpu.hpp"
#include "core/log.hpp"
#include "io/files.hpp"
#include "kernels/elementwise.hpp"
#include "train/stop.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <ctime>
#include <thread>
#include <unistd.h>
#include <utility>

namespace rf {

namespace fs = std::filesystem;

namespace {
double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

const std::vector<Column> train_columns = {
    {"step", "updates", "updates done, this one included"},
    {"loss", "nats", "mean over the update's predicted tokens, examples or sequences; of several micro-steps the mean of theirs"},
    {"accuracy", "1", "share of them answered rightly"},
    {"lr", "1", "learning rate"},
    {"alpha", "1", "residual weight"},
    {"grad_norm", "1", "global gradient norm before clipping"},
    {"targets", "1", "predicted tokens, examples and sequences of the update"},
    {"tokens", "tokens", "real tokens of the update"},
    {"seconds", "s", "wall time of the update"},
    {"tokens_per_second", "tokens/s", "real tokens over wall time"},
    {"flops_per_second", "FLOP/s", "model FLOPs over wall time, all ranks"},
    {"input_wait", "s", "time the update waited for its batch on rank 0"},
};

const std::vector<Column> event_columns = {
    {"step", "updates", "number of the update"},
    {"kind", "1", "1: skipped, since loss or gradient were not finite; 2: a loss that stands out"},
    {"loss", "nats", "of the update"},
    {"first_sample", "1", "number of its first sample; `replay` works on the update once more"},
    {"samples", "1", "how many samples it has"},
};

}  // namespace

Run::Run(Ranks& ranks) : ranks_(ranks), grid_(ranks.grid), start_(seconds()) {}

void Run::open(Setup setup, bool restart, const std::string& given) {
    setup_ = std::move(setup);
    folder_ = setup_.input.output;
    const bool anew = restart || grid_.world.gather(kept_steps().empty() ? 1 : 0).front() == 1;  // as rank 0 sees the folder
    if (anew && given.empty()) {
        model_->initialise();
    } else if (anew) {
        // Before anything is written: these weights may not fit.
        model_->load(find_checkpoint(given, message(setup_.place.at("checkpoint"), ":")), true);
        model_->clear_moments();  // a new run has moments and a schedule of its own
        trained_before_ = true;
    }
    if (setup_.input.replay == 0) open_output(restart);
    writer_ = std::make_unique<CheckpointWriter>(folder_ / "checkpoints", grid_, model_->layout(), setup_.input.keep);
    resume(anew);
}

void Run::open_output(bool restart) {
    lock_ = lock_folder(folder_, message(setup_.place.at("output")), grid_.world);
    // Rank 0 works on the folder; what it finds wrong reaches every rank.
    std::string trouble;
    if (grid_.world.rank() == 0) {
        try {
            if (restart) {
                for (const char* name : {"checkpoints", "watchdog"}) fs::remove_all(folder_ / name);
                for (const char* name : {"results.h5", "results.jsonl", "run.json", "log.txt", "replay.h5"}) fs::remove(folder_ / name);
            }
            fs::create_directories(folder_ / "checkpoints");
            if (::access(folder_.c_str(), W_OK) != 0) fail("no permission to write");
            remove_partial_checkpoints(folder_ / "checkpoints");
        } catch (const fs::filesystem_error& e) {
            trouble = message(setup_.place.at("output"), ": cannot write the output folder ", setup_.input.output, " (", e.code().message(), ")");
        } catch (const std::exception& e) {
            trouble = message(setup_.place.at("output"), ": cannot write the output folder ", setup_.input.output, " (", e.what(), ")");
        }
    }
    grid_.world.broadcast(trouble, 0);
    if (!trouble.empty()) throw UsageError(trouble);
    if (grid_.world.rank() == 0) log::set_file(folder_ / "log.txt");
}

std::vector<std::int64_t> Run::kept_steps() const {
    std::vector<std::int64_t> steps = checkpoint_steps(folder_ / "checkpoints");
    if (const std::int64_t update = setup_.input.replay; update > 0) std::erase_if(steps, [update](std::int64_t step) { return step >= update; });
    return steps;
}

bool Run::resume_newest() {
    std::vector<std::int64_t> steps;
    if (grid_.world.rank() == 0) steps = kept_steps();
    std::int64_t count = static_cast<std::int64_t>(steps.size());
    Stream host;
    grid_.world.broadcast(host, {&count, {8}, Dtype::u8}, 0);
    steps.resize(static_cast<std::size_t>(count));
    if (count) grid_.world.broadcast(host, {steps.data(), {8 * count}, Dtype::u8}, 0);
    for (const std::int64_t step : steps) {
        try {
            resume_from(checkpoint_path(folder_ / "checkpoints", step));
            return true;
        } catch (const Damage& e) {
            log::warning("checkpoint of step ", step, " is damaged and left aside: ", e.what());
        }
    }
    // To begin anew here would throw away what may be worth a repair, and the results with it.
    if (count > 0)
        fail_usage(setup_.place.at("output"), ": ", setup_.input.output, " holds no whole checkpoint (", count, " damaged); --restart gives them up and begins anew");
    return false;
}

void Run::resume_from(const fs::path& checkpoint) {
    CheckpointMeta meta;
    std::string damage;
    try {
        damage = find_checkpoint_damage(checkpoint, {.parts = 0});
        if (damage.empty()) meta = read_checkpoint_meta(checkpoint);
    } catch (const std::exception& e) {
        damage = e.what();  // a place that the disk no longer gives back
    }
    if (damage = grid_.world.first_text(damage); !damage.empty()) throw Damage(damage);
    json::value there = json::parse(meta.identity, checkpoint.string());
    // Keys that the model had not yet when the run began have their defaults.
    if (json::value* model = there.is_object() ? there.as_object().if_contains("model") : nullptr) {
        ModelConfig whole;
        json::read(*model, whole, {checkpoint.string(), "model"});
        *model = json::write(whole);
    }
    if (const std::string other = changed(there); !other.empty())
        fail_usage(setup_.place.at("output"), ": ", setup_.input.output, " holds another run (", other, "); choose another folder, or --restart to begin anew");
    if (!model_->load(checkpoint, true)) fail(checkpoint.string(), ": has no optimizer state to continue from");
    first_ = meta.step;
}

void Run::resume(bool anew) {
    const bool continues = resume_newest();
    if (!continues && !anew) fail((folder_ / "checkpoints").string(), ": its checkpoints went away while the run began");
    if (grid_.world.rank() == 0 && setup_.input.replay == 0) {
        write_run_json();
        results_ = std::make_unique<Results>(folder_, first_);
        results_->set_meta("model", json::write(config_));
        results_->set_meta("input", setup_.whole);
        results_->set_meta("processor", boost::json::string(cpu_description()));
        results_->set_meta("ranks", std::int64_t{grid_.world.size()});
        results_->set_meta("parameters", model_->layout().parameter_count());
        results_->set_meta("dtype", boost::json::string(std::string(name_of(model_->dtype()))));
        results_->declare("train", train_columns);
        results_->declare("events", event_columns);
        if (grid_.world.size() > 1) results_->declare("ranks", RankTimes::columns());
        declare(*results_);
    }
    log::info("roformer ", program_version, " ", setup_.command, ": ", grid_.data->size(), " data x ", grid_.tensor->size(), " tensor ranks, ", ranks_.cores, "; ",
              cpu_description(), "; ", name_of(model_->dtype()), "; ", model_->layout().parameter_count(), " parameters");
    introduce();
    if (continues) log::info("continuing from the checkpoint of step ", first_, " in ", setup_.input.output);
}

void Run::write_run_json() const {
    char host[256] = "";
    gethostname(host, sizeof host - 1);
    const json::value run = boost::json::object{{"program", message("roformer ", program_version)},
                                                {"command", setup_.command},
                                                {"input", setup_.whole},
                                                {"identity", setup_.identity},
                                                {"host", host},
                                                {"processor", cpu_description()},
                                                {"ranks", grid_.world.size()},
                                                {"dtype", std::string(name_of(model_->dtype()))}};
    write_file_atomically(folder_ / "run.json", json::pretty(run));
}

void Run::settle(int left, double waited) {
    while (trainer_->in_flight() > left) {
        UpdateStats stats;
        try {
            stats = trainer_->wait();
        } catch (const NotFinite&) {
            if (results_) results_->flush(true);
            throw;
        }
        const double now = seconds(), inside = ranks_.progress.seconds_inside();
        times_.note(now - last_, now - last_ - (inside - last_inside_));
        watchdog_->note_update(now - last_);
        report(stats, now - last_, waited);
        last_ = now, last_inside_ = inside;
    }
}

void Run::report(const UpdateStats& stats, double wall, double waited) {
    const std::int64_t step = stats.update, steps = setup_.steps;
    rate_ = rate_ == 0 ? wall : 0.95 * rate_ + 0.05 * wall;
    if (!results_) return;
    results_->append("train", {static_cast<double>(step), stats.loss, stats.accuracy, lr_at(step), alpha_at(step), stats.gradient_norm,
                               static_cast<double>(stats.targets), static_cast<double>(stats.tokens), wall, static_cast<double>(stats.tokens) / wall,
                               stats.flops / wall, waited});
    record(stats);
    note_events(stats);
    const bool due = step % setup_.input.log_every == 0 || step == steps || step == first_ + 1;
    if (!due && !log::is_terminal()) return;
    char text[256];
    std::snprintf(text, sizeof text, "step %lld/%lld  loss %.4f  acc %.4f  lr %.3e  alpha %.4f  |g| %.3g  %.0f tok/s  %.1f GFLOP/s  ETA %s",
                  static_cast<long long>(step), static_cast<long long>(steps), stats.loss, stats.accuracy, lr_at(step), alpha_at(step), stats.gradient_norm,
                  static_cast<double>(stats.tokens) / wall, stats.flops / wall * 1e-9, duration(rate_ * static_cast<double>(steps - step)).c_str());
    if (log::is_terminal() && step != steps) log::live(text);
    else log::info(text);
}

void Run::note_events(const UpdateStats& stats) {
    enum Kind { skipped = 1, spike = 2 };
    const bool left_out = !stats.not_finite.empty();
    const std::string remark = left_out ? std::string() : spikes_.look_at(stats.loss);
    if (!left_out && remark.empty()) return;
    const std::int64_t samples = setup_.samples_of_update, first = (stats.update - 1) * samples;
    results_->append("events", {static_cast<double>(stats.update), left_out ? double{skipped} : double{spike}, stats.loss, static_cast<double>(first), static_cast<double>(samples)});
    const std::string which = message("update ", stats.update, " (samples ", first, " to ", first + samples - 1, "; replay=", stats.update, " works on it again)");
    if (left_out) log::warning(which, " is left out: ", stats.not_finite);
    else log::info("note: ", which, ": ", remark);
}

void Run::self_check(std::int64_t step, const std::vector<MicroStep>& work) {
    std::string trouble = trainer_->find_faults(work.front().front(), alpha_at(step));
    if (!trouble.empty()) trouble = message("self-check before update ", step, ": rank ", grid_.world.rank(), " (", places_[static_cast<std::size_t>(grid_.world.rank())], ") ", trouble);
    if (trouble = grid_.world.first_text(trouble); !trouble.empty()) fail(trouble);
}

int Run::replay() {
    const std::int64_t update = setup_.input.replay;
    log::info("replay of update ", update, " from the state after ", first_, "; nothing is written");
    const Tensor master = model_->state().master();
    const Buffer kept(master.bytes(), model_->stream().device());
    const Tensor before = kept.tensor(master.shape, master.dtype);
    for (std::int64_t step = first_ + 1; step <= update; ++step) {
        copy(model_->stream(), master, before);
        trainer_->launch(steps_of(step), step, lr_at(step), alpha_at(step));
        try {
            const UpdateStats stats = trainer_->wait();
            char text[120];
            std::snprintf(text, sizeof text, "update %lld: loss %.9g, |g| %.9g, %lld tokens", static_cast<long long>(step), stats.loss, stats.gradient_norm,
                          static_cast<long long>(stats.tokens));
            log::info(text, stats.not_finite.empty() ? "" : "; left out: ", stats.not_finite);
        } catch (const NotFinite& e) {
            if (step < update) throw;
            log::info(e.what());
        }
    }
    log::info("samples ", (update - 1) * setup_.samples_of_update, " to ", update * setup_.samples_of_update - 1, "; |gradient|, |weights| and |change|, tensor by tensor:");
    for (const Trainer::TensorNorms& norms : trainer_->tensor_norms(before)) {
        char text[60];
        std::snprintf(text, sizeof text, "%12.5g  %12.5g  %12.5g  ", norms.gradient, norms.weights, norms.change);
        log::info(text, norms.name);
    }
    return 0;
}

void Run::checkpoint(std::int64_t step) {
    end_checkpoint();
    // A run continues after the rows that were there at its checkpoint, so these come first.
    std::string trouble;
    if (results_ && !results_->write_rows()) {
        trouble = message("the checkpoint of step ", step, " waits for the results (", results_->trouble(), "); the one before it is untouched");
        results_told_ = true;
    }
    grid_.world.broadcast(trouble, 0);
    if (!trouble.empty()) return note_failure(step, trouble);
    try {
        writer_->start(model_->stream(), model_->state(), {.step = step,
                                         .samples = step * setup_.samples_of_update,
                                         .model = json::pretty(json::write(config_)),
                                         .input = json::pretty(setup_.whole),
                                         .identity = boost::json::serialize(setup_.identity),
                                         .vocab = setup_.vocab,
                                         .journal = results_ ? results_->journal() : fs::path()},
                       insists_ != step);  // the run waits for one that must be durable
        begun_ = step;
    } catch (const CheckpointFailure& e) {
        note_failure(step, e.what());
    }
}

bool Run::end_checkpoint() {
    const std::int64_t step = std::exchange(begun_, -1);
    if (step < 0) return false;
    try {
        writer_->finish();
    } catch (const CheckpointFailure& e) {
        note_failure(step, e.what());
        return false;
    }
    failures_ = 0;
    return true;
}

void Run::note_failure(std::int64_t step, const std::string& what) {
    const std::int64_t allowed = setup_.input.checkpoint_failures_allowed;
    if (++failures_ > allowed) fail(what, allowed > 0 ? message(", and ", failures_, " in a row failed (checkpoint_failures_allowed = ", allowed, ")") : "");
    // Its weights are those that count, and the run has moved on from them: the same command makes them again.
    if (step == protected_ && step != insists_) fail(what, ", and step ", step, " is the best so far; the same command continues before it");
    if (std::exchange(told_, step) == step) return;
    log::warning(what, "; the run goes on and tries again");
}

void Run::checkpoint_durably(std::int64_t step) {
    insists_ = step;
    for (checkpoint(step); !end_checkpoint(); checkpoint(step)) std::this_thread::sleep_for(std::chrono::seconds(1));
}

void Run::write_results(Due due) {
    std::string trouble;
    if (results_) {
        results_->flush(due != Due::now_and_then);
        trouble = results_->trouble();
        if (due != Due::now_or_fail && !trouble.empty() && !results_told_) log::warning(trouble, "; rows are kept in memory and written when this is over");
        results_told_ = !trouble.empty();
    }
    if (due != Due::now_or_fail) return;
    grid_.world.broadcast(trouble, 0);
    if (!trouble.empty()) fail(trouble, " (the checkpoint of the last step is durable: the same command writes the results again)");
}

bool Run::agree_to_stop() {
    using State = CheckpointWriter::State;
    const State state = writer_->local_state();
    const bool late = setup_.input.time_limit > 0 && seconds() - ranks_.start > setup_.input.time_limit;
    double flags[3] = {static_cast<double>(noted_signal() != 0 || late), state == State::failed ? 1.0 : 0.0, state == State::busy ? 1.0 : 0.0};
    Stream host;
    grid_.world.all_reduce(host, view(flags, {3}), ReduceOp::max);
    if (flags[1] > 0) end_checkpoint();
    if (flags[2] == 0) writer_->publish();
    return flags[0] > 0;
}

int Run::go() {
    if (setup_.input.replay > 0) return replay();
    const std::int64_t steps = setup_.steps;
    if (first_ >= steps || is_over(first_)) {
        if (first_ == 0) checkpoint_durably(0);
        write_results(Due::now_or_fail);
        log::info("done: ", setup_.input.output, " is at step ", first_, " of ", steps);
        return 0;
    }
    places_ = places_of(grid_.world);
    std::string run = message(std::time(nullptr));
    grid_.world.broadcast(run, 0);
    watchdog_ = std::make_unique<Watchdog>(setup_.input.watchdog, folder_ / "watchdog", run, grid_.world.rank(), places_, ranks_.progress);
    const int code = train();
    watchdog_.reset();  // what comes after the run takes its own time
    return code;
}

int Run::train() {
    const std::int64_t steps = setup_.steps;
    if (first_ == 0 && trained_before_) {
        watchdog_->begin("the evaluation before the first update");
        evaluate(0);
    }
    watch_signals();
    Prefetcher<std::vector<MicroStep>> prefetch([this](std::int64_t n) { return steps_of(n); }, first_ + 1);
    std::int64_t done = first_;
    for (std::int64_t step = first_ + 1; step <= steps; ++step) {
        const double before = prefetch.waited();
        watchdog_->begin_update(step);
        if (trainer_->in_flight() == 0) last_ = seconds(), last_inside_ = ranks_.progress.seconds_inside();
        std::vector<MicroStep> work = prefetch.next();
        if (const std::int64_t every = setup_.input.self_check_every; every > 0 && step % every == 0) {
            settle(0, 0);
            self_check(step, work);
        }
        const bool seen = wants(step);
        const std::vector<MicroStep> copy = seen ? work : std::vector<MicroStep>();
        trainer_->launch(std::move(work), step, lr_at(step), alpha_at(step));
        done = step;
        const bool last = step == steps, judge = step % setup_.eval_every == 0 || last;
        const bool stop = agree_to_stop(), save = step % setup_.input.checkpoint_every == 0 || last || stop;
        settle(save || judge || seen || step == 1 ? 0 : trainer_->depth(), prefetch.waited() - before);
        if (seen) look_at(step, copy);
        if (step == 1)
            log::info("first update after ", std::round((seconds() - start_) * 10) / 10, " s; memory of rank 0: weights and optimizer ",
                      model_->state().bytes() >> 20, " MiB, gradients ", trainer_->gradient_bytes() >> 20, " MiB, activations ",
                      model_->arena().peak_bytes() >> 20, " MiB");
        if (judge) {
            watchdog_->begin(message("the evaluation after update ", step));
            evaluate(step);
        }
        const bool over = !last && is_over(step);
        if (save || over || protected_ == step) {
            watchdog_->begin(message("the checkpoint of update ", step));
            times_.compare(grid_.world, places_, results_.get(), step);
            if (last || stop || over) checkpoint_durably(step);
            else checkpoint(step);
        }
        if (writer_->local_state() != CheckpointWriter::State::busy) write_results(Due::now_and_then);
        if (over) break;
        if (stop && step < steps) {
            write_results(Due::now);
            log::info("stopped at step ", step, " (", noted_signal() ? "signal" : "signal or time limit", "), checkpoint durable; the same command continues");
            return 75;
        }
    }
    watchdog_->begin("the results");
    write_results(Due::now_or_fail);
    log::info("done: step ", done, " in ", duration(seconds() - start_), ", results in ", (folder_ / "results.h5").string());
    return 0;
}

}  // namespace rf
