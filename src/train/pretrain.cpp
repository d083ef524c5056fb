#include "train/pretrain.hpp"

#include "core/log.hpp"
#include "io/files.hpp"
#include "text/vocabulary.hpp"
#include "train/replay_dump.hpp"

#include <algorithm>

namespace rf {

namespace {

void check_input(const PretrainInput& in, const json::Place& place) {
    const json::Requirements require{place};
    require(!in.vocab.empty(), "vocab", "expected a vocab.txt");
    require(in.steps >= 0, "steps", "expected a number of updates >= 0, found ", in.steps);
    in.batch.check(place.at("batch"));
    const Masking& m = in.masking;
    require(m.mask >= 0 && m.keep >= 0 && m.random >= 0 && m.mask + m.keep + m.random <= 1, "masking", "mask, keep and random are shares >= 0 with a sum <= 1");
    require(m.mask + m.keep + m.random > 0, "masking", "nothing would be predicted (mask, keep and random are all 0)");
    require(in.evaluation.documents >= 0, "evaluation.documents", "expected at least 0, found ", in.evaluation.documents);
    require(in.evaluation.group >= 1, "evaluation.group", "expected at least 1, found ", in.evaluation.group);
    require(in.eval_every >= 1, "eval_every", "expected at least 1, found ", in.eval_every);
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

const std::vector<Column> eval_columns = {
    {"step", "updates", "updates done"},
    {"loss", "nats", "mean cross-entropy of the held-out predicted tokens"},
    {"accuracy", "1", "share of them that were the most likely"},
    {"perplexity", "1", "exp(loss)"},
    {"tokens", "tokens", "held-out predicted tokens"},
};

class Pretraining final : public Run {
public:
    Pretraining(PretrainInput input, const json::Place& place, Ranks& ranks, bool restart);

protected:
    std::vector<MicroStep> steps_of(std::int64_t update) override {
        const std::vector<PackedBatch> lanes = stream_.lanes_of(update - 1, trainer_->first_lane(), trainer_->lane_count());
        return {MicroStep(lanes.begin(), lanes.end())};
    }
    void evaluate(std::int64_t step) override;
    void declare(Results& results) override;
    void introduce() override;
    bool wants(std::int64_t step) const override { return step <= in_.dump_batches; }
    void look_at(std::int64_t step, const std::vector<MicroStep>& steps) override;

private:
    PretrainInput in_;
    Vocabulary vocab_;
    Corpus corpus_;
    SampleStream stream_;
    double unigram_ = 0;
    std::unique_ptr<ReplayDump> dump_;
};

Pretraining::Pretraining(PretrainInput input, const json::Place& place, Ranks& ranks, bool restart)
    : Run(ranks),
      in_(std::move(input)),
      vocab_((check_input(in_, place), in_.vocab)),
      corpus_((check_corpus(in_.corpus, place.at("corpus"), grid_.world), in_.corpus), place.at("corpus"), Corpus::Check::none),
      stream_{.corpus = corpus_,
              .seed = static_cast<std::uint64_t>(in_.seed),
              .sequences = in_.batch.sequences,
              .max_length = in_.batch.max_length,
              .lanes = static_cast<int>(in_.batch.lanes),
              .window = in_.batch.window == "random" ? Window::random : Window::head,
              .masking = in_.masking,
              .special = {vocab_.cls(), vocab_.sep(), vocab_.mask()},
              .vocab_size = 0,
              .held_out = std::min(in_.evaluation.documents, corpus_.documents() / 10)} {
    config_ = read_model(in_.model, place.at("model"));
    lr_ = Schedule(in_.schedule.lr, place.at("schedule.lr"));
    alpha_ = Schedule(in_.schedule.alpha, place.at("schedule.alpha"));
    stream_.vocab_size = config_.vocab_size;
    config_.check(place.at("model"), in_.parallel.tensor);
    if (vocab_.digest() != corpus_.vocab_digest())
        fail_usage(place.at("vocab"), ": ", in_.vocab, " (", vocab_.digest(), ") is not the vocabulary the corpus was built with (",
                   corpus_.vocab_digest(), ")");
    if (vocab_.size() > config_.vocab_size)
        fail_usage(place.at("model.vocab_size"), ": ", config_.vocab_size, " rows are too few for the ", vocab_.size(), " entries of ", in_.vocab);
    in_.model = json::write(config_);
    const Dtype dtype = resolve_dtype(in_.dtype, place);
    model_ = std::make_unique<EncoderModel>(config_, grid_, EncoderModel::Options{.device = ranks.device, .dtype = dtype, .training = true,
                                                                    .graphs = in_.parallel.graphs, .max_length = in_.batch.max_length, .seed = stream_.seed});
    trainer_ = std::make_unique<Trainer>(*model_, grid_, in_.optimizer, TrainerOptions{.lanes = stream_.lanes, .skips_allowed = in_.skips_allowed});
    open({.command = "pretrain",
          .input = in_,
          .whole = json::write(in_),
          .place = place,
          .steps = in_.steps,
          .eval_every = in_.eval_every,
          .identity = identity_of(in_, config_, corpus_, vocab_),
          .vocab = read_file(in_.vocab),
          .samples_of_update = in_.batch.sequences},
         restart, in_.checkpoint);
    dump_ = std::make_unique<ReplayDump>(in_.dump_batches > 0 && first() == 0 && in_.replay == 0 ? (folder() / "replay.h5").string() : "", grid_, model_->stream(), model_->state());
}

void Pretraining::declare(Results& results) {
    results.declare("eval/mlm", eval_columns);
    results.set_meta("segmenter", boost::json::string(corpus_.segmenter()));
}

void Pretraining::introduce() {
    if (stream_.held_out > 0) unigram_ = unigram_cross_entropy(stream_);
    if (results() && unigram_ > 0) results()->set_meta("unigram_cross_entropy", unigram_);
    log::info("corpus: ", corpus_.documents(), " documents, ", corpus_.tokens(), " tokens, ", stream_.held_out,
              " documents held out; one epoch is ", (stream_.training_documents() + in_.batch.sequences - 1) / in_.batch.sequences, " updates");
}

void Pretraining::evaluate(std::int64_t step) {
    if (stream_.held_out == 0) return;
    const Evaluation e = rf::evaluate(*model_, grid_, stream_, in_.evaluation.group, alpha_.at(step));
    if (e.targets == 0) {
        log::warning("held out at step ", step, ": nothing to judge by, no token of the ", stream_.held_out, " documents is masked (more: evaluation.documents)");
        return;
    }
    if (results()) {
        const std::vector<double> done = results()->column("eval/mlm", "step");
        if (done.empty() || done.back() < static_cast<double>(step))
            results()->append("eval/mlm", {static_cast<double>(step), e.loss, e.accuracy, e.perplexity, static_cast<double>(e.targets)});
    }
    char text[160];
    std::snprintf(text, sizeof text, "held out at step %lld: loss %.4f (unigram %.4f)  perplexity %.2f  acc %.4f  over %lld tokens",
                  static_cast<long long>(step), e.loss, unigram_, e.perplexity, e.accuracy, static_cast<long long>(e.targets));
    log::info(text);
}

void Pretraining::look_at(std::int64_t step, const std::vector<MicroStep>& steps) {
    std::vector<PackedBatch> lanes;
    for (const tasks::LaneBatch& lane : steps.front()) lanes.push_back(lane.packed);
    dump_->add(lanes, lr_at(step), alpha_at(step), results()->column("train", "loss").back());
}

}  // namespace

void BatchInput::check(const json::Place& place) const {
    const json::Requirements require{place};
    require(sequences >= 1, "sequences", "expected at least 1, found ", sequences);
    require(max_length >= 3 && max_length <= 65536, "max_length", "expected 3 to 65536, found ", max_length);
    require(lanes >= 1 && lanes <= sequences, "lanes", "expected 1 to batch.sequences = ", sequences, ", found ", lanes);
    require(window == "head" || window == "random", "window", "expected \"head\" or \"random\", found \"", window, "\"");
}

void check_corpus(const json::value& corpus, const json::Place& place, Communicator& world) {
    const std::string damage = world.first_text(find_corpus_damage(corpus, place, world.rank(), world.size()));
    if (!damage.empty()) throw UsageError(damage);
}

int pretrain(PretrainInput input, const json::Place& place, World& world, bool restart) {
    Ranks ranks(world, input, place);
    return Pretraining(std::move(input), place, ranks, restart).go();
}

}  // namespace rf
