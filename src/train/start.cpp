#include "train/start.hpp"

#include "io/files.hpp"
#include "optim/schedule.hpp"

namespace rf {

double saved_alpha(const CheckpointMeta& meta, const ModelConfig& config) {
    if (config.residual_mode != "alpha") return 1;
    const json::value input = json::parse(meta.input, "the checkpoint's input");
    return Schedule(input.at("schedule").at("alpha"), {"checkpoint", "schedule.alpha"}).at(meta.step);
}

Start read_start(const std::string& checkpoint, const json::value& model, const std::string& vocab, std::int64_t tensor_ranks, const json::Place& place) {
    Start start;
    if (checkpoint.empty()) {
        start.config = read_model(model, place.at("model"));
    } else {
        start.meta = read_checkpoint_meta(find_checkpoint(checkpoint, message(place.at("checkpoint"), ":")));
        if (!model.is_object()) json::fail_type(place.at("model"), "an object { … } of the keys that differ from the checkpoint's", model);
        json::read(json::parse(start.meta->model, checkpoint), start.config, {checkpoint, "model"});
        json::read(model, start.config, place.at("model"));
    }
    start.config.check(place.at("model"), tensor_ranks);
    start.vocab = vocab.empty() ? std::make_unique<Vocabulary>(start.meta->vocab, checkpoint + ": vocab") : std::make_unique<Vocabulary>(vocab);
    start.vocab_text = vocab.empty() ? start.meta->vocab : read_file(vocab);
    // Weights that came without a vocabulary (convert) take the one that is given.
    if (start.meta && !start.meta->vocab.empty() && start.vocab_text != start.meta->vocab)
        fail_usage(place.at("vocab"), ": ", vocab, " is not the vocabulary the checkpoint was trained with");
    if (start.vocab->size() > start.config.vocab_size)
        fail_usage(place.at("model.vocab_size"), ": ", start.config.vocab_size, " rows are too few for the ", start.vocab->size(), " entries of the vocabulary");
    start.alpha = boost::json::array{boost::json::array{0, start.meta ? saved_alpha(*start.meta, start.config) : 1.0}};
    return start;
}

}  // namespace rf
