#include "train/finetune.hpp"

#include "core/build.hpp"
#include "core/log.hpp"
#include "io/files.hpp"
#include "io/folder_lock.hpp"
#include "io/hdf5.hpp"
#include "io/schema.hpp"
#include "tasks/answers.hpp"
#include "tasks/submission.hpp"
#include "train/replay_dump.hpp"
#include "train/start.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <optional>

namespace rf {

namespace fs = std::filesystem;

FinetuneInput::FinetuneInput() {
    optimizer.name = "adafactor";
    optimizer.lr = 5e-4;
    schedule.lr = boost::json::parse("[[0,1]]");
    schedule.alpha = nullptr;
    keep = 1;
}

namespace {

void check_input(const FinetuneInput& in, const json::Place& place) {
    const json::Requirements require{place};
    require(!in.checkpoint.empty() || !in.vocab.empty(), "checkpoint", "expected a checkpoint to start from, or `vocab` and `model` to begin with nothing");
    require(!in.task.empty(), "task", "expected a task file");
    require(in.epochs >= 1, "epochs", "expected at least 1, found ", in.epochs);
    require(in.runs >= 1, "runs", "expected at least 1, found ", in.runs);
    require(in.batch.sequences >= 1, "batch.sequences", "expected at least 1, found ", in.batch.sequences);
    require(in.batch.lanes >= 1, "batch.lanes", "expected at least 1, found ", in.batch.lanes);
    require(in.early_stop >= 0, "early_stop", "expected 0 (off) or a number of epochs, found ", in.early_stop);
    for (const double lr : in.learning_rates) require(lr > 0, "learning_rates", "expected numbers above 0, found ", lr);
    for (const auto n : {in.limit.train, in.limit.dev, in.limit.test}) require(n >= 0, "limit", "expected numbers of examples >= 0, 0: all; found ", n);
}

constexpr const char* evaluations = "evaluations.json";
constexpr const char* run_figures = "metrics.json";

/// What all runs of a command share.
struct Subject {
    FinetuneInput in;
    json::Place place;
    std::string vocab_text;
    ModelConfig config;
    std::unique_ptr<Vocabulary> vocab;
    TaskData data;
    json::value start = nullptr;  ///< the run and step that the weights come from
    const tasks::Prepared& part(tasks::Split split) const { return data.prepared[split]; }
    /// What may not change between the starts of one of the runs.
    json::value identity(double lr, std::int64_t seed) const;
};

std::string text_digest(const std::string& text) { return digest(text.data(), static_cast<std::int64_t>(text.size())); }

json::value Subject::identity(double lr, std::int64_t seed) const {
    OptimizerConfig optimizer = in.optimizer;
    optimizer.lr = lr;
    return boost::json::object{{"model", json::write(config)},
                               {"start", start},
                               {"vocab", vocab->digest()},
                               {"task", text_digest(boost::json::serialize(json::write(data.task.file)))},
                               {"seed", seed},
                               {"epochs", in.epochs},
                               {"batch", json::write(in.batch)},
                               {"corrupt", in.corrupt},
                               {"optimizer", json::write(optimizer)},
                               {"limit", json::write(in.limit)}};
}

/// One seed and learning rate.
class Finetuning final : public Run {
public:
    Finetuning(const Subject& subject, Ranks& ranks, const fs::path& folder, double lr, std::int64_t seed);
    /// Best dev figures so far, and the update they are of.
    const std::vector<tasks::Metric>& best() const { return best_; }
    std::int64_t best_step() const { return best_step_; }
    std::int64_t steps_of_epoch() const { return steps_of_epoch_; }

protected:
    std::vector<MicroStep> steps_of(std::int64_t update) override;
    void evaluate(std::int64_t step) override;
    void introduce() override;
    bool is_over(std::int64_t step) override;
    bool wants(std::int64_t step) const override { return step <= subject_.in.dump_batches; }
    void look_at(std::int64_t step, const std::vector<MicroStep>& steps) override;

private:
    void note(std::int64_t step, const std::vector<tasks::Metric>& metrics);

    const Subject& subject_;
    std::unique_ptr<tasks::SampleOrder> order_;
    std::int64_t steps_of_epoch_ = 0;
    std::vector<tasks::Metric> best_;
    std::int64_t best_step_ = 0;
    boost::json::array seen_;  ///< evaluations so far: step, metrics
    std::unique_ptr<ReplayDump> dump_;
};

Finetuning::Finetuning(const Subject& subject, Ranks& ranks, const fs::path& folder, double lr, std::int64_t seed) : Run(ranks), subject_(subject) {
    FinetuneInput in = subject.in;
    in.output = folder.string();
    in.optimizer.lr = lr;
    in.seed = seed;
    config_ = subject.config;
    lr_ = Schedule(in.schedule.lr, subject.place.at("schedule.lr"));
    alpha_ = Schedule(in.schedule.alpha, subject.place.at("schedule.alpha"));
    const Vocabulary& vocab = *subject.vocab;
    order_ = std::make_unique<tasks::SampleOrder>(subject.data.task, subject.part(tasks::Split::train), 0, static_cast<std::uint64_t>(seed), in.corrupt,
                                                  SpecialIds{vocab.cls(), vocab.sep(), vocab.mask()}, config_.vocab_size);
    steps_of_epoch_ = (order_->epoch() + in.batch.sequences - 1) / in.batch.sequences;
    model_ = std::make_unique<EncoderModel>(config_, grid_,
                                            EncoderModel::Options{.device = ranks.device, .dtype = resolve_dtype(in.dtype, subject.place), .training = true,
                                                                  .graphs = in.parallel.graphs, .max_length = subject.data.task.file.max_length,
                                                                  .seed = static_cast<std::uint64_t>(seed)},
                                            std::vector<EncoderModel::Head>{{subject.data.task, subject.data.choices}});
    trainer_ = std::make_unique<Trainer>(*model_, grid_, in.optimizer, TrainerOptions{.lanes = static_cast<int>(in.batch.lanes), .skips_allowed = in.skips_allowed});
    json::value whole = json::write(in);
    // What `predict` needs to know of the task, without its data.
    whole.as_object()["task_file"] = json::write(subject.data.task.file);
    whole.as_object()["task_labels"] = json::write(subject.data.task.labels);
    whole.as_object()["task_choices"] = subject.data.choices;
    in.checkpoint_every = std::min(in.checkpoint_every, steps_of_epoch_);
    open({.command = "finetune", .input = in, .whole = whole, .place = subject.place, .steps = in.epochs * steps_of_epoch_, .eval_every = steps_of_epoch_,
          .identity = subject.identity(lr, seed), .vocab = subject.vocab_text, .samples_of_update = in.batch.sequences},
         false, in.checkpoint);
    dump_ = std::make_unique<ReplayDump>(in.dump_batches > 0 && first() == 0 && in.replay == 0 ? (folder / "replay.h5").string() : "", grid_, model_->stream(), model_->state());
    dump_->name_task(subject.data.task);
    if (!dump_->is_open()) return;
    const tasks::Prepared& dev = subject.part(tasks::Split::dev);
    const tasks::LaneBatchMaker maker(subject.data.task, dev, 0);
    for (std::int64_t e = 0; e < dev.examples(); ++e) {
        tasks::LaneBatch batch = maker.empty();
        maker.add_example(batch, e, 0);
        const auto at = [&](std::int64_t example) { return dev.sequence_begin[static_cast<std::size_t>(dev.example_begin[static_cast<std::size_t>(example)])]; };
        const auto begin = dev.token_chars.begin();
        dump_->add_dev(batch, dev.token_chars.empty() ? std::vector<std::uint16_t>() : std::vector<std::uint16_t>(begin + 2 * at(e), begin + 2 * at(e + 1)));
    }
}

void Finetuning::introduce() {
    const auto count = [&](tasks::Split split) { return subject_.part(split).examples(); };
    log::info("task ", subject_.data.task.file.name, ": ", count(tasks::Split::train), " training, ", count(tasks::Split::dev), " dev, ", count(tasks::Split::test),
              " test examples; one epoch is ", steps_of_epoch_, " updates");
    // What an earlier start of this run has seen, so far as it was kept.
    std::string text;
    if (grid_.world.rank() == 0 && first() > 0 && fs::exists(folder() / evaluations)) text = read_file(folder() / evaluations);
    grid_.world.broadcast(text, 0);
    if (text.empty()) return;
    const json::value list = json::parse(text, (folder() / evaluations).string());
    for (const json::value& one : list.as_array()) {
        if (one.at("step").as_int64() > first()) break;
        seen_.push_back(one);
        std::vector<tasks::Metric> metrics;
        for (const json::value& metric : one.at("metrics").as_array()) metrics.push_back({std::string(metric.at("name").as_string()), metric.at("value").to_number<double>()});
        note(one.at("step").as_int64(), metrics);
    }
}

std::vector<MicroStep> Finetuning::steps_of(std::int64_t update) {
    // Epochs end with what is left of them, so that every row is seen once in each.
    const std::int64_t epoch = (update - 1) / steps_of_epoch_, at = (update - 1) % steps_of_epoch_, n = subject_.in.batch.sequences;
    const std::int64_t begin = epoch * order_->epoch() + at * n, end = std::min(begin + n, (epoch + 1) * order_->epoch());
    return {order_->lanes_of(begin, end, static_cast<std::uint64_t>(update) * tasks::samples_of_micro_step, static_cast<int>(subject_.in.batch.lanes), trainer_->first_lane(),
                             trainer_->lane_count())};
}

void Finetuning::note(std::int64_t step, const std::vector<tasks::Metric>& metrics) {
    if (!best_.empty() && !(metrics[0].value > best_[0].value)) return;
    best_ = metrics;
    best_step_ = step;
    protect(step);
}

void Finetuning::evaluate(std::int64_t step) {
    if (step == 0) return;
    const tasks::Prepared& dev = subject_.part(tasks::Split::dev);
    const auto begin = std::chrono::steady_clock::now();
    const Judged judged = judge(*model_, grid_, subject_.data.task, dev, 0, alpha_at(step));
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    if (std::isnan(judged.metrics[0].value))
        fail_usage(subject_.data.task.place.at("dev"), ": fine-tuning chooses the best epoch by a dev part, and of this one no answer is known");
    note(step, judged.metrics);
    boost::json::array metrics;
    for (const tasks::Metric& metric : judged.metrics)
        if (std::isfinite(metric.value)) metrics.push_back({{"name", metric.name}, {"value", metric.value}});
    seen_.push_back({{"step", step}, {"metrics", metrics}});
    if (grid_.world.rank() == 0) write_file_atomically(folder() / evaluations, boost::json::serialize(seen_));
    const std::int64_t epoch = step / steps_of_epoch_;
    log::info("epoch ", epoch, " of ", subject_.in.epochs, ": dev ", judged.metrics[0].name, " ", std::round(judged.metrics[0].value * 1e4) / 1e4, ", loss ",
              std::round(judged.loss * 1e4) / 1e4, ", ", std::llround(static_cast<double>(dev.sequence_begin.back()) / seconds), " tok/s",
              best_step_ == step ? " (best so far)" : "");
    if (!results()) return;
    const std::string table = "eval/" + subject_.data.task.file.name;
    std::vector<Column> columns{{"step", "updates", "updates done"}, {"epoch", "1", "epochs done"}, {"loss", "nats", "mean over the dev part"}};
    std::vector<double> row{static_cast<double>(step), static_cast<double>(epoch), judged.loss};
    for (const tasks::Metric& metric : judged.metrics) {
        columns.push_back({metric.name, "1", "of the dev part"});
        row.push_back(metric.value);
    }
    results()->declare(table, columns);
    const std::vector<double> done = results()->column(table, "step");
    if (done.empty() || done.back() < static_cast<double>(step)) results()->append(table, row);
}

bool Finetuning::is_over(std::int64_t step) {
    return subject_.in.early_stop > 0 && best_step_ > 0 && step % steps_of_epoch_ == 0 && step - best_step_ >= subject_.in.early_stop * steps_of_epoch_;
}

void Finetuning::look_at(std::int64_t step, const std::vector<MicroStep>& steps) {
    dump_->add_task(steps.front(), lr_at(step), alpha_at(step), results()->column("train", "loss").back());
}

std::string name_of_run(double lr, std::int64_t seed) { return message("lr-", lr, "-seed-", seed); }

/// The figures of runs that are done, as metrics.json holds them.
struct RunFigures {
    double learning_rate = 0;
    std::int64_t seed = 0, epoch = 0, step = 0;
    json::value metrics = nullptr;
    double main() const { return metrics.as_object().begin()->value().to_number<double>(); }
};
BOOST_DESCRIBE_STRUCT(RunFigures, (), (learning_rate, seed, epoch, step, metrics))

json::value figures_of(const std::vector<tasks::Metric>& metrics) {
    boost::json::object out;
    for (const tasks::Metric& metric : metrics)
        if (std::isfinite(metric.value)) out[metric.name] = metric.value;
    return out;
}

/// The figures of a run that is done, as text; empty where it is not. One of other settings is refused, as a run under way is.
std::string figures_before(const Subject& subject, Ranks& ranks, const fs::path& folder, double lr, std::int64_t seed) {
    std::string text, other;
    if (ranks.grid.world.rank() == 0 && fs::exists(folder / run_figures)) {
        text = read_file(folder / run_figures);
        const json::value here = json::parse(json::pretty(subject.identity(lr, seed)), run_figures);  // as a file gives it back
        other = difference(json::parse_file(folder / "run.json").at("identity"), here);
    }
    ranks.grid.world.broadcast(text, 0);
    ranks.grid.world.broadcast(other, 0);
    if (!other.empty())
        fail_usage(subject.place.at("output"), ": ", folder.string(), " holds another run (", other, "); choose another folder, or --restart to begin anew");
    return text;
}

/// A run to its end, unless it has ended before; absent where it was told to stop.
std::optional<RunFigures> one_run(const Subject& subject, Ranks& ranks, double lr, std::int64_t seed) {
    const fs::path folder = fs::path(subject.in.output) / "runs" / name_of_run(lr, seed), done = folder / run_figures;
    std::string text = figures_before(subject, ranks, folder, lr, seed);
    if (text.empty()) {
        Finetuning run(subject, ranks, folder, lr, seed);
        if (run.go() != 0) return {};
        const RunFigures figures{lr, seed, run.best_step() / run.steps_of_epoch(), run.best_step(), figures_of(run.best())};
        text = json::pretty(json::write(figures));
        if (ranks.grid.world.rank() == 0) write_file_atomically(done, text);
    }
    RunFigures figures;
    json::read(json::parse(text, done.string()), figures, {done.string(), ""});
    return figures;
}

/// Answers of a split: ids, probabilities and whole answers, each a dataset of equal length.
void write_predictions(hid_t group, const Subject& subject, const tasks::Prepared& prepared, const tasks::Outputs& outputs) {
    const tasks::Task& task = subject.data.task;
    std::vector<std::string> id, answer;
    std::vector<double> probability;
    for (const boost::json::object& one : tasks::answers(task, prepared, outputs)) {
        const json::value& name = one.at("id");
        id.push_back(name.is_string() ? std::string(name.as_string()) : boost::json::serialize(name));
        answer.push_back(json::line(one));
        if (const auto* p = one.if_contains("probability")) probability.push_back(p->to_number<double>());
    }
    h5::write_strings(group, "id", id, {"1", "as the data name the examples"});
    h5::write_strings(group, "answer", answer, {"1", "JSON, a line of `predict`"});
    if (probability.size() == id.size()) h5::write_vector(group, "probability", probability, {"1", "of the answer"});
    if (outputs.width > 0) h5::write(group, "logits", view(outputs.logits.data(), {outputs.sequences(), outputs.width}), {"1", "of every sequence"});
    if (!prepared.label.empty()) h5::write_vector(group, "label", prepared.label, {"1", "the right class or choice, -1: not known"});
}

/// What the best run's best weights say of dev and test, on rank 0 in the files of the output folder.
void write_outcome(const Subject& subject, Ranks& ranks, const std::vector<RunFigures>& runs, const RunFigures& best, const fs::path& checkpoint) {
    const tasks::Task& task = subject.data.task;
    EncoderModel model(subject.config, ranks.grid,
                       {.device = ranks.device, .dtype = resolve_dtype(subject.in.dtype, subject.place), .max_length = task.file.max_length}, {{task, subject.data.choices}});
    model.load(checkpoint);
    const double alpha = Schedule(subject.in.schedule.alpha, subject.place.at("schedule.alpha")).at(best.step);
    std::optional<Judged> judged[3];
    for (const tasks::Split split : {tasks::Split::dev, tasks::Split::test})
        if (subject.part(split).examples() > 0) judged[static_cast<int>(split)] = judge(model, ranks.grid, task, subject.part(split), 0, alpha);
    if (ranks.grid.world.rank() != 0) return;
    const fs::path folder = subject.in.output, path = folder / "results.h5", partial = folder / "results.h5.partial";
    const fs::path own = folder / "runs" / name_of_run(best.learning_rate, best.seed) / "results.h5";
    {
        const auto hold = h5::lock();
        h5::File file = h5::create_file(partial, seal_bytes);
        const h5::File from = h5::open_file(own);
        h5::set_attribute(file, schema::kind, schema::kind_results);
        h5::set_attribute(file, schema::version, std::int64_t{1});
        for (const std::string& name : h5::list(from)) h5::check(H5Ocopy(from, name.c_str(), file, name.c_str(), H5P_DEFAULT, H5P_DEFAULT), name);
        const h5::Group all = h5::create_group(file, "runs");
        std::vector<double> lr, epoch;
        std::vector<std::int64_t> seed;
        for (const RunFigures& run : runs) lr.push_back(run.learning_rate), seed.push_back(run.seed), epoch.push_back(static_cast<double>(run.epoch));
        h5::write_vector(all, "learning_rate", lr, {"1", "of each run"});
        h5::write_vector(all, "seed", seed, {"1", "of each run"});
        h5::write_vector(all, "epoch", epoch, {"epochs", "the best of each run"});
        for (const auto& item : best.metrics.as_object()) {
            std::vector<double> values;
            for (const RunFigures& run : runs) {
                const auto* value = run.metrics.as_object().if_contains(item.key());
                values.push_back(value ? value->to_number<double>() : std::numeric_limits<double>::quiet_NaN());
            }
            h5::write_vector(all, std::string(item.key()), values, {"1", "dev figure of each run's best epoch"});
        }
        const h5::Group predictions = h5::create_group(file, "predictions"), dev = h5::create_group(predictions, task.file.name);
        if (judged[1]) write_predictions(dev, subject, subject.part(tasks::Split::dev), judged[1]->outputs);
        if (judged[2]) write_predictions(h5::create_group(dev, "test"), subject, subject.part(tasks::Split::test), judged[2]->outputs);
        h5::close_file(file, partial.string());
    }
    seal_file(partial);
    rename_durably(partial, path);
    if (judged[2]) {
        if (!task.file.submission.files.empty()) fs::create_directories(folder / "submission");
        tasks::write_submission(task, subject.part(tasks::Split::test), judged[2]->outputs, folder / "submission");
    }
    boost::json::object text{{"task", task.file.name}, {"train_examples", subject.part(tasks::Split::train).examples()},
                             {"dev_examples", subject.part(tasks::Split::dev).examples()}, {"test_examples", subject.part(tasks::Split::test).examples()},
                             {"best", json::write(best)}, {"runs", json::write(runs)}};
    if (judged[2]) text["test"] = figures_of(judged[2]->metrics);
    write_file_atomically(folder / "metrics.json", json::pretty(text));
}

/// --restart: nothing that earlier runs left may be taken for a part of the new ones; on rank 0.
void clear(const fs::path& output) {
    for (const char* name : {"runs", "checkpoints", "submission", "results.h5", "metrics.json"}) fs::remove_all(output / name);
}

/// Puts the best weights where they are looked for, in place of those that were best before more runs were asked for, and drops the other
/// runs' checkpoints; on rank 0.
void keep_best(const fs::path& output, const std::vector<RunFigures>& runs, const RunFigures& best) {
    const fs::path from = checkpoint_path(output / "runs" / name_of_run(best.learning_rate, best.seed) / "checkpoints", best.step);
    const fs::path to = checkpoint_path(output / "checkpoints", best.step);
    if (fs::exists(from)) {
        fs::remove_all(output / "checkpoints");
        fs::create_directories(output / "checkpoints");
        rename_durably(from, to);
    }
    for (const RunFigures& run : runs) fs::remove_all(output / "runs" / name_of_run(run.learning_rate, run.seed) / "checkpoints");
}

Subject read_subject(FinetuneInput in, const json::Place& place, Ranks& ranks) {
    check_input(in, place);
    Subject subject{.in = std::move(in), .place = place};
    FinetuneInput& input = subject.in;
    Start start = read_start(input.checkpoint, input.model, input.vocab, input.parallel.tensor, place);
    if (start.meta) subject.start = boost::json::object{{"step", start.meta->step}, {"run", text_digest(start.meta->identity)}};
    if (input.schedule.alpha.is_null()) input.schedule.alpha = start.alpha;
    subject.config = start.config;
    subject.vocab_text = std::move(start.vocab_text);
    subject.vocab = std::move(start.vocab);
    input.model = json::write(subject.config);
    const Tokenizer tokenizer(*subject.vocab);
    std::vector<TaskData> all = load_tasks({.files = {input.task}, .data = input.data, .cache = input.cache.empty() ? input.output + "/prepared" : input.cache,
                                            .limit = input.limit}, tokenizer, ranks.grid.world);
    subject.data = std::move(all.front());
    if (subject.data.task.kind == tasks::Kind::mlm) fail_usage(subject.data.task.place.at("kind"), ": masked language modelling is what `pretrain` does");
    if (subject.part(tasks::Split::dev).examples() == 0)
        fail_usage(subject.data.task.place.at("dev"), ": fine-tuning chooses the best epoch by a dev part; give one, or a share of train by `hashed`");
    return subject;
}

}  // namespace

int finetune(FinetuneInput input, const json::Place& place, Ranks& ranks, bool restart) {
    Communicator& world = ranks.grid.world;
    const Subject subject = read_subject(std::move(input), place, ranks);
    const fs::path output = subject.in.output;
    std::vector<double> rates = subject.in.learning_rates;
    if (rates.empty()) rates.push_back(subject.in.optimizer.lr);
    if (subject.in.replay > 0) {
        if (rates.size() > 1 || subject.in.runs > 1)
            fail_usage(place.at("replay"), ": expected one run to replay, found ", rates.size(), " learning rates and ", subject.in.runs, " seeds (set learning_rates, seed and runs)");
        return Finetuning(subject, ranks, output / "runs" / name_of_run(rates.front(), subject.in.seed), rates.front(), subject.in.seed).go();
    }
    const FolderLock lock = lock_folder(output, message(place.at("output")), world);
    if (restart && world.rank() == 0) clear(output);
    world.barrier();
    std::vector<RunFigures> runs;
    for (const double lr : rates)
        for (std::int64_t seed = subject.in.seed; seed < subject.in.seed + subject.in.runs; ++seed) {
            const std::optional<RunFigures> figures = one_run(subject, ranks, lr, seed);
            if (!figures) return 75;
            runs.push_back(*figures);
        }
    const RunFigures best = *std::max_element(runs.begin(), runs.end(), [](const RunFigures& a, const RunFigures& b) { return a.main() < b.main(); });
    if (world.rank() == 0) keep_best(output, runs, best);
    world.barrier();
    write_outcome(subject, ranks, runs, best, checkpoint_path(output / "checkpoints", best.step));
    const std::string figure(best.metrics.as_object().begin()->key());
    double mean = 0, square = 0;
    for (const RunFigures& run : runs) mean += run.main() / static_cast<double>(runs.size());
    for (const RunFigures& run : runs) square += (run.main() - mean) * (run.main() - mean);
    const double deviation = runs.size() > 1 ? std::sqrt(square / static_cast<double>(runs.size() - 1)) : 0;
    const auto rounded = [](double x) { return std::round(x * 1e4) / 1e4; };
    log::info("task ", subject.data.task.file.name, ": dev ", figure, " ", rounded(best.main()), " (learning rate ", best.learning_rate, ", seed ", best.seed, ", epoch ",
              best.epoch, ")", runs.size() > 1 ? message("; mean of ", runs.size(), " runs ", rounded(mean), ", deviation ", rounded(deviation)) : "");
    world.barrier();
    return 0;
}

}  // namespace rf
