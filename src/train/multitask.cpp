#include "train/multitask.hpp"

#include "core/log.hpp"
#include "io/files.hpp"
#include "train/start.hpp"
#include "train/task_mix.hpp"

#include <algorithm>
#include <cmath>
#include <optional>

namespace rf {

MultitaskInput::MultitaskInput() {
    optimizer.lr = 1.76e-4;
    schedule.alpha = nullptr;
}

namespace {

void check_input(const MultitaskInput& in, const json::Place& place) {
    const json::Requirements require{place};
    require(!in.tasks.empty(), "tasks", "expected task files");
    require(!in.checkpoint.empty() || !in.vocab.empty(), "vocab", "expected a vocab.txt, or a checkpoint that has one");
    require(in.steps >= 0, "steps", "expected a number of updates >= 0, found ", in.steps);
    require(in.mix.micro_steps >= 1, "mix.micro_steps", "expected at least 1, found ", in.mix.micro_steps);
    require(in.batch.sequences >= in.mix.micro_steps, "batch.sequences", "expected at least mix.micro_steps = ", in.mix.micro_steps, ", found ", in.batch.sequences);
    require(in.batch.lanes >= 1, "batch.lanes", "expected at least 1, found ", in.batch.lanes);
    require(in.mix.draw == "given" || in.mix.draw == "proportional" || in.mix.draw == "square_root", "mix.draw",
            "expected \"given\", \"proportional\" or \"square_root\", found \"", in.mix.draw, "\"");
    require(in.mix.cosine_every >= 0, "mix.cosine_every", "expected at least 0, found ", in.mix.cosine_every);
    require(in.eval_every >= 1, "eval_every", "expected at least 1, found ", in.eval_every);
    require(in.evaluation.group >= 1, "evaluation.group", "expected at least 1, found ", in.evaluation.group);
    for (const auto n : {in.limit.train, in.limit.dev, in.limit.test}) require(n >= 0, "limit", "expected numbers of examples >= 0, 0: all; found ", n);
}

Normalise normalise_of(const std::string& name, const json::Place& place) {
    if (name == "none") return Normalise::none;
    if (name == "shared") return Normalise::shared;
    if (name == "all") return Normalise::all;
    fail_usage(place, ": expected \"none\", \"shared\" or \"all\", found \"", name, "\"");
}

const std::vector<Column> task_columns = {
    {"step", "updates", "updates done, this one included"},
    {"micro_step", "1", "which micro-step of the update"},
    {"loss", "nats", "mean over examples, sequences or predicted tokens of the micro-step"},
    {"accuracy", "1", "share of them answered rightly"},
    {"counted", "1", "how many they are"},
    {"grad_norm", "1", "norm of its gradient"},
    {"weight", "1", "of its gradient, after normalisation"},
    {"cosine", "1", "between its gradient and the sum, over the shared tensors; NaN where not measured"},
};

/// A task of the mix: supervised, or masked language modelling.
struct Source {
    std::string name;
    int head = tasks::mlm_head;
    std::int64_t units = 0;  ///< of a micro-step
    const TaskData* data = nullptr;
    std::unique_ptr<tasks::SampleOrder> order;
};

class Multitask final : public Run {
public:
    Multitask(MultitaskInput input, const json::Place& place, Ranks& ranks, bool restart);

protected:
    std::vector<MicroStep> steps_of(std::int64_t update) override;
    void evaluate(std::int64_t step) override;
    void record(const UpdateStats& stats) override;
    void declare(Results& results) override;
    void introduce() override;
    std::string changed(const json::value& there) const override;

private:
    void read_corpus(const tasks::TaskFile& file, const json::Place& place);
    void make_sources();
    json::value identity() const;
    const std::string& name_of_head(int head) const;

    MultitaskInput in_;
    json::Place place_;
    std::unique_ptr<Vocabulary> vocab_;
    std::vector<TaskData> all_;
    std::optional<Corpus> corpus_;
    std::optional<SampleStream> stream_;
    std::vector<Source> sources_;
    std::unique_ptr<TaskMix> mix_;
    json::value identity_;
};

Multitask::Multitask(MultitaskInput input, const json::Place& place, Ranks& ranks, bool restart) : Run(ranks), in_(std::move(input)), place_(place) {
    check_input(in_, place);
    Start start = read_start(in_.checkpoint, in_.model, in_.vocab, in_.parallel.tensor, place);
    if (in_.schedule.alpha.is_null()) in_.schedule.alpha = start.alpha;
    config_ = start.config;
    vocab_ = std::move(start.vocab);
    lr_ = Schedule(in_.schedule.lr, place.at("schedule.lr"));
    alpha_ = Schedule(in_.schedule.alpha, place.at("schedule.alpha"));
    in_.model = json::write(config_);

    const Tokenizer tokenizer(*vocab_);
    all_ = load_tasks({.files = in_.tasks, .data = in_.data, .cache = in_.cache.empty() ? in_.output + "/prepared" : in_.cache, .limit = in_.limit}, tokenizer, grid_.world);
    std::int64_t longest = 3;
    for (const TaskData& one : all_) {
        if (one.task.kind == tasks::Kind::mlm) read_corpus(one.task.file, one.task.place);
        longest = std::max(longest, one.task.file.max_length);
    }
    model_ = std::make_unique<EncoderModel>(config_, grid_,
                                            EncoderModel::Options{.device = ranks.device, .dtype = resolve_dtype(in_.dtype, place), .training = true,
                                                                  .graphs = in_.parallel.graphs, .max_length = longest, .seed = static_cast<std::uint64_t>(in_.seed)},
                                            heads_of(all_));
    trainer_ = std::make_unique<Trainer>(*model_, grid_, in_.optimizer,
                                         TrainerOptions{.lanes = static_cast<int>(in_.batch.lanes), .micro_steps = static_cast<int>(in_.mix.micro_steps),
                                                        .normalise = normalise_of(in_.mix.normalise, place.at("mix.normalise")), .min_norm = in_.mix.min_norm,
                                                        .skips_allowed = in_.skips_allowed, .cosine_every = in_.mix.cosine_every});
    make_sources();
    identity_ = identity();
    open({.command = "multitask", .input = in_, .whole = json::write(in_), .place = place, .steps = in_.steps, .eval_every = in_.eval_every,
          .identity = identity_, .vocab = start.vocab_text, .samples_of_update = in_.batch.sequences},
         restart, in_.checkpoint);
}

void Multitask::read_corpus(const tasks::TaskFile& file, const json::Place& place) {
    if (corpus_) fail_usage(place.at("kind"), ": a second task of kind mlm; there is one corpus");
    if (in_.corpus == json::value("")) fail_usage(place_.at("corpus"), ": task ", file.name, " is of kind mlm and needs a corpus");
    check_corpus(in_.corpus, place_.at("corpus"), grid_.world);
    corpus_.emplace(in_.corpus, place_.at("corpus"), Corpus::Check::none);
    if (vocab_->digest() != corpus_->vocab_digest())
        fail_usage(place_.at("corpus"), ": was built with another vocabulary (", corpus_->vocab_digest(), ") than this run's (", vocab_->digest(), ")");
    stream_.emplace(SampleStream{.corpus = *corpus_,
                                 .seed = static_cast<std::uint64_t>(in_.seed),
                                 .sequences = std::max<std::int64_t>(in_.batch.sequences / in_.mix.micro_steps, 1),
                                 .max_length = file.max_length,
                                 .lanes = static_cast<int>(in_.batch.lanes),
                                 .window = Window::head,
                                 .masking = in_.masking,
                                 .special = {vocab_->cls(), vocab_->sep(), vocab_->mask()},
                                 .vocab_size = config_.vocab_size,
                                 .held_out = std::min(in_.evaluation.documents, corpus_->documents() / 10)});
}

void Multitask::make_sources() {
    const double sequences = static_cast<double>(in_.batch.sequences) / static_cast<double>(in_.mix.micro_steps);
    std::vector<double> weights;
    int head = 0;
    for (const TaskData& one : all_) {
        Source source{.name = one.task.file.name, .data = &one};
        double examples = 0;
        if (one.task.kind == tasks::Kind::mlm) {
            examples = static_cast<double>(stream_->training_documents());
        } else {
            source.head = head++;
            source.order = std::make_unique<tasks::SampleOrder>(one.task, one.prepared[tasks::Split::train], source.head, static_cast<std::uint64_t>(in_.seed),
                                                                one.task.file.corrupt, SpecialIds{vocab_->cls(), vocab_->sep(), vocab_->mask()}, config_.vocab_size);
            examples = static_cast<double>(source.order->epoch());
            source.units = std::max<std::int64_t>(1, std::llround(sequences / source.order->sequences_of_unit()));
        }
        const double size = in_.mix.draw == "given" ? 1 : in_.mix.draw == "proportional" ? examples : std::sqrt(examples);
        weights.push_back(one.task.file.weight * size);
        sources_.push_back(std::move(source));
    }
    mix_ = std::make_unique<TaskMix>(weights, static_cast<std::uint64_t>(in_.seed));
}

json::value Multitask::identity() const {
    boost::json::object tasks;
    for (const TaskData& one : all_) {
        const std::string text = boost::json::serialize(json::write(one.task.file));
        tasks[one.task.file.name] = digest(text.data(), static_cast<std::int64_t>(text.size()));
    }
    return boost::json::object{{"model", in_.model},
                               {"vocab", vocab_->digest()},
                               {"corpus", corpus_ ? corpus_->digest() : ""},
                               {"seed", in_.seed},
                               {"batch", json::write(in_.batch)},
                               {"mix", json::write(in_.mix)},
                               {"limit", json::write(in_.limit)},
                               {"tasks", tasks}};
}

std::string Multitask::changed(const json::value& there) const {
    json::value here = identity_;
    if (!there.as_object().contains("tasks")) return "it is of another command";
    const auto& before = there.at("tasks").as_object();
    auto& now = here.at("tasks").as_object();
    for (const auto& item : before)
        if (!now.contains(item.key())) return message("task ", item.key(), ": absent here");
    for (const TaskData& one : all_)
        if (!before.contains(one.task.file.name)) now.erase(one.task.file.name);  // added since
    return difference(there, here);
}

void Multitask::declare(Results& results) {
    for (const Source& source : sources_) results.declare("tasks/" + source.name, task_columns);
}

void Multitask::introduce() {
    std::int64_t examples = 0;
    for (const TaskData& one : all_) examples += one.prepared[tasks::Split::train].examples();
    log::info(all_.size(), " tasks, ", examples, " training examples", corpus_ ? message(", ", stream_->training_documents(), " documents of text") : "", "; ",
              in_.mix.micro_steps, " micro-steps an update, gradients normalised: ", in_.mix.normalise);
}

std::vector<MicroStep> Multitask::steps_of(std::int64_t update) {
    std::vector<MicroStep> steps;
    const int first = trainer_->first_lane(), count = trainer_->lane_count(), lanes = static_cast<int>(in_.batch.lanes);
    for (std::int64_t k = 0; k < in_.mix.micro_steps; ++k) {
        const std::int64_t micro_step = (update - 1) * in_.mix.micro_steps + k;
        const Source& source = sources_[static_cast<std::size_t>(mix_->task_of(micro_step))];
        const std::int64_t turn = mix_->earlier(micro_step);
        if (source.head == tasks::mlm_head) {
            const std::vector<PackedBatch> packed = stream_->lanes_of(turn, first, count);
            steps.emplace_back(packed.begin(), packed.end());
            continue;
        }
        steps.push_back(source.order->lanes_of(turn * source.units, (turn + 1) * source.units, static_cast<std::uint64_t>(micro_step) * tasks::samples_of_micro_step, lanes, first, count));
    }
    return steps;
}

const std::string& Multitask::name_of_head(int head) const {
    return std::find_if(sources_.begin(), sources_.end(), [&](const Source& source) { return source.head == head; })->name;
}

void Multitask::record(const UpdateStats& stats) {
    const auto step = static_cast<double>(stats.update);
    for (std::size_t k = 0; k < stats.steps.size(); ++k) {
        const StepStats& one = stats.steps[k];
        results()->append("tasks/" + name_of_head(one.head), {step, static_cast<double>(k), one.loss, one.accuracy, static_cast<double>(one.counted), one.gradient_norm,
                                                              one.weight, one.cosine});
    }
}

void Multitask::evaluate(std::int64_t step) {
    double sum = 0;
    int judged = 0;
    for (const Source& source : sources_) {
        if (step == 0 && source.head != tasks::mlm_head) continue;  // a head that has learnt nothing has nothing to judge
        log::live(message("judging ", source.name, " at step ", step));
        std::vector<Column> columns{{"step", "updates", "updates done"}, {"loss", "nats", "mean over what the head counts"}};
        std::vector<double> row{static_cast<double>(step)};
        if (source.head == tasks::mlm_head) {
            if (stream_->held_out == 0) continue;
            const Evaluation e = rf::evaluate(*model_, grid_, *stream_, in_.evaluation.group, alpha_at(step));
            columns.push_back({"accuracy", "1", "share of the held-out predicted tokens that were the most likely"});
            row.insert(row.end(), {e.loss, e.accuracy});
        } else {
            const tasks::Prepared& dev = source.data->prepared[tasks::Split::dev];
            if (dev.examples() == 0) continue;
            const Judged result = judge(*model_, grid_, source.data->task, dev, source.head, alpha_at(step));
            row.push_back(result.loss);
            for (const tasks::Metric& metric : result.metrics) {
                columns.push_back({metric.name, "1", "of the dev part"});
                row.push_back(metric.value);
            }
            if (std::isfinite(result.metrics[0].value)) sum += result.metrics[0].value, ++judged;
        }
        if (!results()) continue;
        results()->declare("eval/" + source.name, columns);
        const std::vector<double> done = results()->column("eval/" + source.name, "step");
        if (done.empty() || done.back() < static_cast<double>(step)) results()->append("eval/" + source.name, row);
    }
    if (judged > 0) log::info("dev at step ", step, ": mean of the main figures of ", judged, " tasks ", std::round(sum / judged * 1e4) / 1e4);
}

}  // namespace

int multitask(MultitaskInput input, const json::Place& place, World& world, bool restart) {
    Ranks ranks(world, input, place);
    return Multitask(std::move(input), place, ranks, restart).go();
}

}  // namespace rf
