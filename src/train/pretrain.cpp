#include "train/pretrain.hpp"

#include "comm/device_choice.hpp"
#include "core/build.hpp"
#include "core/cpu.hpp"
#include "core/log.hpp"
#include "io/files.hpp"
#include "kernels/elementwise.hpp"
#include "optim/schedule.hpp"
#include "text/vocabulary.hpp"
#include "train/replay_dump.hpp"
#include "train/results.hpp"
#include "train/stop.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <optional>
#include <unistd.h>

namespace rf {

namespace fs = std::filesystem;

namespace {

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

void check_input(const PretrainInput& in, const json::Place& place) {
    const auto require = [&](bool ok, const char* key, const auto&... what) {
        if (!ok) fail_usage(place.at(key), ": ", what...);
    };
    require(!in.output.empty(), "output", "expected an output folder");
    require(!in.vocab.empty(), "vocab", "expected a vocab.txt");
    require(in.steps >= 0, "steps", "expected a number of updates >= 0, found ", in.steps);
    require(in.batch.sequences >= 1, "batch.sequences", "expected at least 1, found ", in.batch.sequences);
    require(in.batch.max_length >= 3 && in.batch.max_length <= 65536, "batch.max_length", "expected 3 to 65536, found ", in.batch.max_length);
    require(in.batch.lanes >= 1 && in.batch.lanes <= in.batch.sequences, "batch.lanes", "expected 1 to batch.sequences = ", in.batch.sequences,
            ", found ", in.batch.lanes);
    require(in.batch.window == "head" || in.batch.window == "random", "batch.window", "expected \"head\" or \"random\", found \"",
            in.batch.window, "\"");
    const Masking& m = in.masking;
    require(m.mask >= 0 && m.keep >= 0 && m.random >= 0 && m.mask + m.keep + m.random <= 1, "masking", "mask, keep and random are shares >= 0 with a sum <= 1");
    require(m.mask + m.keep + m.random > 0, "masking", "nothing would be predicted (mask, keep and random are all 0)");
    require(in.parallel.tensor >= 1, "parallel.tensor", "expected at least 1, found ", in.parallel.tensor);
    require(in.parallel.threads >= 0, "parallel.threads", "expected 0 (share the cores) or a number of threads, found ", in.parallel.threads);
    require(in.evaluation.documents >= 0, "evaluation.documents", "expected at least 0, found ", in.evaluation.documents);
    require(in.evaluation.group >= 1, "evaluation.group", "expected at least 1, found ", in.evaluation.group);
    require(in.log_every >= 1, "log_every", "expected at least 1, found ", in.log_every);
    require(in.eval_every >= 1, "eval_every", "expected at least 1, found ", in.eval_every);
    require(in.checkpoint_every >= 1, "checkpoint_every", "expected at least 1, found ", in.checkpoint_every);
    require(in.keep >= 1, "keep", "expected at least 1, found ", in.keep);
    require(in.time_limit >= 0, "time_limit", "expected 0 (none) or seconds, found ", in.time_limit);
    in.optimizer.check(place.at("optimizer"));
}

/// What may not change between runs in one output folder.
json::value identity_of(const PretrainInput& in, const ModelConfig& model, const Corpus& corpus, const Vocabulary& vocab) {
    return boost::json::object{{"model", json::write(model)},
                               {"corpus", corpus.digest()},
                               {"vocab", vocab.digest()},
                               {"seed", in.seed},
                               {"batch", json::write(in.batch)},
                               {"masking", json::write(in.masking)},
                               {"held_out_documents", in.evaluation.documents}};
}

/// Every rank checks its share of the shards and all hear of the first damage, before any of them opens one.
void check_corpus(const PretrainInput& in, const json::Place& place, Communicator& world) {
    std::string damage = find_corpus_damage(in.corpus, place.at("corpus"), world.rank(), world.size());
    const std::vector<std::int64_t> damaged = world.gather(!damage.empty());
    const auto first = std::find(damaged.begin(), damaged.end(), 1);
    if (first == damaged.end()) return;
    world.broadcast(damage, static_cast<int>(first - damaged.begin()));
    throw UsageError(damage);
}

/// "model.hidden_size: 128 there, 256 here", or empty.
std::string difference(const json::value& there, const json::value& here, const std::string& path) {
    if (there == here) return {};
    if (there.is_object() && here.is_object())
        for (const auto& [key, value] : here.as_object()) {
            const auto* other = there.as_object().if_contains(key);
            const std::string name = path.empty() ? std::string(key) : path + "." + std::string(key);
            const std::string inner = other ? difference(*other, value, name) : name + ": absent there";
            if (!inner.empty()) return inner;
        }
    return message(path, ": ", boost::json::serialize(there), " there, ", boost::json::serialize(here), " here");
}

std::string duration(double s) {
    char text[40];
    const auto n = static_cast<long long>(s);
    std::snprintf(text, sizeof text, n >= 3600 ? "%lld:%02lld:%02lld" : "%02lld:%02lld", n >= 3600 ? n / 3600 : n / 60,
                  n >= 3600 ? n / 60 % 60 : n % 60, n % 60);
    return text;
}

const std::vector<Column> train_columns = {
    {"step", "updates", "updates done, this one included"},
    {"loss", "nats", "mean cross-entropy of the predicted tokens of the update"},
    {"accuracy", "1", "share of the predicted tokens that were the most likely"},
    {"lr", "1", "learning rate"},
    {"alpha", "1", "residual weight"},
    {"grad_norm", "1", "global gradient norm before clipping"},
    {"targets", "tokens", "predicted tokens of the update"},
    {"tokens", "tokens", "real tokens of the update"},
    {"seconds", "s", "wall time of the update"},
    {"tokens_per_second", "tokens/s", "real tokens over wall time"},
    {"flops_per_second", "FLOP/s", "model FLOPs over wall time, all ranks"},
    {"input_wait", "s", "time the update waited for its batch on rank 0"},
};
const std::vector<Column> eval_columns = {
    {"step", "updates", "updates done"},
    {"loss", "nats", "mean cross-entropy of the held-out predicted tokens"},
    {"accuracy", "1", "share of them that were the most likely"},
    {"perplexity", "1", "exp(loss)"},
    {"tokens", "tokens", "held-out predicted tokens"},
};

/// The whole run; one object, because its parts refer to one another.
class Run {
public:
    Run(PretrainInput input, const json::Place& place, World& world, bool restart);
    int go();

private:
    void open_output(bool restart);
    void resume();
    void write_run_json() const;
    double alpha_at(std::int64_t step) const { return config_.residual_mode == "alpha" ? alpha_.at(step) : 1; }
    /// Waits for updates until at most `left` are under way, and reports each.
    void settle(int left, double waited);
    void report(const UpdateStats& stats, double wall, double waited);
    void evaluate_now(std::int64_t step);
    void checkpoint(std::int64_t step);
    /// True on all ranks when any of them has been told to stop; also moves a finished checkpoint on.
    bool agree_to_stop();

    PretrainInput in_;
    json::Place place_;
    World& world_;
    double start_ = seconds();
    std::string cores_;
    ModelConfig config_;
    Schedule lr_, alpha_;
    Vocabulary vocab_;
    Device device_;           ///< chosen before the ranks are split into groups
    ParallelGrid grid_;
    Corpus corpus_;
    SampleStream stream_;
    fs::path folder_;
    fs::path given_;          ///< checkpoint that a new run begins from, if any
    json::value identity_;
    std::unique_ptr<EncoderModel> model_;
    std::unique_ptr<Trainer> trainer_;
    std::unique_ptr<CheckpointWriter> writer_;
    std::unique_ptr<Results> results_;
    std::int64_t first_ = 0;  ///< updates done when this run began
    double unigram_ = 0;
    double rate_ = 0;         ///< smoothed seconds per update, for the ETA
    double last_ = 0;         ///< when the last update was done
};

Run::Run(PretrainInput input, const json::Place& place, World& world, bool restart)
    : in_(std::move(input)),
      place_(place),
      world_(world),
      cores_((check_input(in_, place), share_cores(world, in_.parallel.threads))),
      config_(read_model(in_.model, place.at("model"))),
      lr_(in_.schedule.lr, place.at("schedule.lr")),
      alpha_(in_.schedule.alpha, place.at("schedule.alpha")),
      vocab_(in_.vocab),
      device_(choose_device(world, in_.device)),
      grid_(world.communicator(), in_.parallel.tensor),
      corpus_((check_corpus(in_, place, world.communicator()), in_.corpus), place.at("corpus"), Corpus::Check::none),
      stream_{.corpus = corpus_,
              .seed = static_cast<std::uint64_t>(in_.seed),
              .sequences = in_.batch.sequences,
              .max_length = in_.batch.max_length,
              .lanes = static_cast<int>(in_.batch.lanes),
              .window = in_.batch.window == "random" ? Window::random : Window::head,
              .masking = in_.masking,
              .special = {vocab_.cls(), vocab_.sep(), vocab_.mask()},
              .vocab_size = config_.vocab_size,
              .held_out = std::min(in_.evaluation.documents, corpus_.documents() / 10)},
      folder_(in_.output) {
    config_.check(place.at("model"), in_.parallel.tensor);
    if (vocab_.digest() != corpus_.vocab_digest())
        fail_usage(place.at("vocab"), ": ", in_.vocab, " (", vocab_.digest(), ") is not the vocabulary the corpus was built with (",
                   corpus_.vocab_digest(), ")");
    if (vocab_.size() > config_.vocab_size)
        fail_usage(place.at("model.vocab_size"), ": ", config_.vocab_size, " rows are too few for the ", vocab_.size(), " entries of ", in_.vocab);
    in_.model = json::write(config_);
    identity_ = identity_of(in_, config_, corpus_, vocab_);
    const Dtype dtype = resolve_dtype(in_.dtype, place);
    model_ = std::make_unique<EncoderModel>(config_, grid_, EncoderModel::Options{.device = device_, .dtype = dtype, .training = true,
                                                                    .graphs = in_.parallel.graphs, .max_length = in_.batch.max_length, .seed = stream_.seed});
    trainer_ = std::make_unique<Trainer>(*model_, grid_, in_.optimizer, TrainerOptions{.lanes = stream_.lanes});
    if (const bool anew = restart || checkpoint_steps(folder_ / "checkpoints").empty(); anew && !in_.checkpoint.empty())
        given_ = find_checkpoint(in_.checkpoint, message(place_.at("checkpoint"), ":"));
    open_output(restart);
    writer_ = std::make_unique<CheckpointWriter>(folder_ / "checkpoints", grid_, model_->layout(), in_.keep);
    resume();
}

void Run::open_output(bool restart) {
    // Rank 0 works on the folder; what it finds wrong reaches every rank.
    std::string trouble;
    if (grid_.world.rank() == 0) {
        try {
            if (restart) {
                fs::remove_all(folder_ / "checkpoints");
                for (const char* name : {"results.h5", "results.jsonl", "run.json", "log.txt", "replay.h5"}) fs::remove(folder_ / name);
            }
            fs::create_directories(folder_ / "checkpoints");
            if (::access(folder_.c_str(), W_OK) != 0) fail("no permission to write");
            remove_partial_checkpoints(folder_ / "checkpoints");
        } catch (const fs::filesystem_error& e) {
            trouble = message(place_.at("output"), ": cannot write the output folder ", in_.output, " (", e.code().message(), ")");
        } catch (const std::exception& e) {
            trouble = message(place_.at("output"), ": cannot write the output folder ", in_.output, " (", e.what(), ")");
        }
    }
    grid_.world.broadcast(trouble, 0);
    if (!trouble.empty()) throw UsageError(trouble);
    if (grid_.world.rank() == 0) log::set_file(folder_ / "log.txt");
}

void Run::resume() {
    const fs::path checkpoints = folder_ / "checkpoints";
    std::vector<std::int64_t> steps;
    if (grid_.world.rank() == 0) steps = checkpoint_steps(checkpoints);
    std::int64_t count = static_cast<std::int64_t>(steps.size());
    Stream host;
    grid_.world.broadcast(host, {&count, {8}, Dtype::u8}, 0);
    steps.resize(static_cast<std::size_t>(count));
    if (count) grid_.world.broadcast(host, {steps.data(), {8 * count}, Dtype::u8}, 0);

    std::optional<std::int64_t> from;
    std::int64_t damaged = 0;
    for (const std::int64_t step : steps) {
        const fs::path path = checkpoint_path(checkpoints, step);
        const std::string damage = find_checkpoint_damage(path, grid_.world.rank(), grid_.world.size());
        if (!damage.empty()) log::write_line(message("warning: checkpoint of step ", step, " is damaged and left aside: ", damage));
        if (grid_.world.max(damage.empty() ? 0 : 1) > 0) {
            ++damaged;
            continue;
        }
        const CheckpointMeta meta = read_checkpoint_meta(path);
        const std::string other = difference(boost::json::parse(meta.identity), identity_, "");
        if (!other.empty())
            fail_usage(place_.at("output"), ": ", in_.output, " holds another run (", other, "); choose another folder, or --restart to begin anew");
        if (!model_->load(path)) fail(path.string(), ": has no optimizer state to continue from");
        from = step;
        break;
    }
    // To begin anew here would throw away what may be worth a repair, and the results with it.
    if (damaged > 0 && !from)
        fail_usage(place_.at("output"), ": ", in_.output, " holds no whole checkpoint (", damaged, " damaged); --restart gives them up and begins anew");
    first_ = from.value_or(0);
    if (!from) {
        if (given_.empty()) {
            model_->initialise();
        } else {
            model_->load(given_);
            // Weights only: a new run has moments and a schedule of its own.
            model_->clear_moments();
        }
    }
    if (grid_.world.rank() == 0) {
        write_run_json();
        results_ = std::make_unique<Results>(folder_, first_);
        results_->declare("train", train_columns);
        results_->declare("eval/mlm", eval_columns);
        results_->set_meta("model", json::write(config_));
        results_->set_meta("input", json::write(in_));
        results_->set_meta("processor", boost::json::string(cpu_description()));
        results_->set_meta("ranks", std::int64_t{grid_.world.size()});
        results_->set_meta("parameters", config_.parameter_count());
        results_->set_meta("dtype", boost::json::string(std::string(name_of(model_->dtype()))));
    }
    if (stream_.held_out > 0) unigram_ = unigram_cross_entropy(stream_);
    if (results_ && unigram_ > 0) results_->set_meta("unigram_cross_entropy", unigram_);
    log::info("roformer ", program_version, " pretrain: ", grid_.data->size(), " data x ", grid_.tensor->size(), " tensor ranks, ", cores_, "; ",
              cpu_description(), "; ", name_of(model_->dtype()), "; ", config_.parameter_count(), " parameters");
    log::info("corpus: ", corpus_.documents(), " documents, ", corpus_.tokens(), " tokens, ", stream_.held_out,
              " documents held out; one epoch is ", (stream_.training_documents() + in_.batch.sequences - 1) / in_.batch.sequences, " updates");
    if (from) log::info("continuing from the checkpoint of step ", first_, " in ", in_.output);
}

void Run::write_run_json() const {
    char host[256] = "";
    gethostname(host, sizeof host - 1);
    const json::value run = boost::json::object{{"program", message("roformer ", program_version)},
                                                {"command", "pretrain"},
                                                {"input", json::write(in_)},
                                                {"identity", identity_},
                                                {"host", host},
                                                {"processor", cpu_description()},
                                                {"ranks", grid_.world.size()},
                                                {"dtype", std::string(name_of(model_->dtype()))},
                                                {"segmenter", corpus_.segmenter()}};
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
        const double now = seconds();
        report(stats, now - last_, waited);
        last_ = now;
    }
}

void Run::report(const UpdateStats& stats, double wall, double waited) {
    const std::int64_t step = stats.update;
    const double lr = in_.optimizer.lr * lr_.at(step), alpha = alpha_at(step);
    rate_ = rate_ == 0 ? wall : 0.95 * rate_ + 0.05 * wall;
    if (!results_) return;
    results_->append("train", {static_cast<double>(step), stats.loss, stats.accuracy, lr, alpha, stats.gradient_norm,
                               static_cast<double>(stats.targets), static_cast<double>(stats.tokens), wall,
                               static_cast<double>(stats.tokens) / wall, stats.flops / wall, waited});
    const bool due = step % in_.log_every == 0 || step == in_.steps || step == first_ + 1;
    if (!due && !log::is_terminal()) return;
    char text[256];
    std::snprintf(text, sizeof text, "step %lld/%lld  loss %.4f  acc %.4f  lr %.3e  alpha %.4f  |g| %.3g  %.0f tok/s  %.1f GFLOP/s  ETA %s",
                  static_cast<long long>(step), static_cast<long long>(in_.steps), stats.loss, stats.accuracy, lr, alpha, stats.gradient_norm,
                  static_cast<double>(stats.tokens) / wall, stats.flops / wall * 1e-9,
                  duration(rate_ * static_cast<double>(in_.steps - step)).c_str());
    if (log::is_terminal() && step != in_.steps) log::live(text);
    else log::info(text);
}

void Run::evaluate_now(std::int64_t step) {
    if (stream_.held_out == 0) return;
    const Evaluation e = evaluate(*model_, grid_, stream_, in_.evaluation.group, alpha_.at(step));
    if (results_) {
        const std::vector<double> done = results_->column("eval/mlm", "step");
        if (done.empty() || done.back() < static_cast<double>(step))
            results_->append("eval/mlm", {static_cast<double>(step), e.loss, e.accuracy, e.perplexity, static_cast<double>(e.targets)});
    }
    char text[160];
    std::snprintf(text, sizeof text, "held out at step %lld: loss %.4f (unigram %.4f)  perplexity %.2f  acc %.4f  over %lld tokens",
                  static_cast<long long>(step), e.loss, unigram_, e.perplexity, e.accuracy, static_cast<long long>(e.targets));
    log::info(text);
}

void Run::checkpoint(std::int64_t step) {
    writer_->start(model_->stream(), model_->state(), {.step = step,
                                     .samples = step * in_.batch.sequences,
                                     .model = json::pretty(json::write(config_)),
                                     .input = json::pretty(json::write(in_)),
                                     .identity = boost::json::serialize(identity_),
                                     .vocab = read_file(in_.vocab)});
}

bool Run::agree_to_stop() {
    using State = CheckpointWriter::State;
    const State state = writer_->local_state();
    const bool late = in_.time_limit > 0 && seconds() - start_ > in_.time_limit;
    double flags[3] = {static_cast<double>(noted_signal() != 0 || late), state == State::failed ? 1.0 : 0.0, state == State::busy ? 1.0 : 0.0};
    Stream host;
    grid_.world.all_reduce(host, view(flags, {3}), ReduceOp::max);
    if (flags[1] > 0) writer_->finish();  // throws the failing rank's words on every rank
    if (flags[2] == 0) writer_->publish();
    return flags[0] > 0;
}

int Run::go() {
    if (first_ >= in_.steps) {
        if (first_ == 0) {
            checkpoint(0);
            writer_->finish();
        }
        if (results_) results_->flush(true);
        log::info("done: ", in_.output, " is at step ", first_, " of ", in_.steps);
        return 0;
    }
    ReplayDump dump(in_.dump_batches > 0 && first_ == 0 ? (folder_ / "replay.h5").string() : "", grid_, model_->stream(), model_->state());
    if (first_ == 0) evaluate_now(0);
    watch_signals();
    Prefetcher prefetch(stream_, trainer_->first_lane(), trainer_->lane_count(), first_);
    for (std::int64_t step = first_ + 1; step <= in_.steps; ++step) {
        const double lr = in_.optimizer.lr * lr_.at(step), alpha = alpha_at(step), before = prefetch.waited();
        if (trainer_->in_flight() == 0) last_ = seconds();
        const std::vector<PackedBatch> batches = prefetch.next();
        trainer_->launch(batches, step, lr, alpha);
        const bool dumped = step <= in_.dump_batches, last = step == in_.steps;
        const bool stop = agree_to_stop(), save = step % in_.checkpoint_every == 0 || last || stop, judge = step % in_.eval_every == 0 || last;
        settle(save || judge || dumped || step == 1 ? 0 : trainer_->depth(), prefetch.waited() - before);
        if (dumped) dump.add(batches, lr, alpha, results_->column("train", "loss").back());
        if (step == 1)
            log::info("first update after ", std::round((seconds() - start_) * 10) / 10, " s; memory of rank 0: weights and optimizer ",
                      model_->state().bytes() >> 20, " MiB, gradients ", trainer_->gradient_bytes() >> 20, " MiB, activations ",
                      model_->arena().peak_bytes() >> 20, " MiB");
        if (judge) evaluate_now(step);
        if (save) checkpoint(step);
        if (results_ && writer_->local_state() != CheckpointWriter::State::busy) results_->flush(false);
        if (stop && step < in_.steps) {
            writer_->finish();
            if (results_) results_->flush(true);
            log::info("stopped at step ", step, " (", noted_signal() ? "signal" : "signal or time limit", "), checkpoint durable; the same command continues");
            return 75;
        }
    }
    writer_->finish();
    if (results_) results_->flush(true);
    log::info("done: step ", in_.steps, " in ", duration(seconds() - start_), ", results in ", (folder_ / "results.h5").string());
    return 0;
}

}  // namespace

std::string share_cores(const World& world, std::int64_t threads) {
    const int cores = cpu_count();
    // Under mpirun's binding a rank sees only its own cores; otherwise the host's cores are shared by its ranks.
    const int fair = std::max(1, cores / world.local_size());
    set_thread_count(threads > 0 ? static_cast<int>(threads) : fair);
    return message(world.local_size(), world.local_size() == 1 ? " rank" : " ranks", " on this host, ", thread_count(),
                   thread_count() == 1 ? " thread" : " threads", " each");
}

int pretrain(PretrainInput input, const json::Place& place, World& world, bool restart) {
    Run run(std::move(input), place, world, restart);
    return run.go();
}

}  // namespace rf
