#include "app/loaded_model.hpp"

#include "comm/device_choice.hpp"
#include "io/files.hpp"
#include "train/run.hpp"
#include "train/start.hpp"

#include <algorithm>

namespace rf::app {

namespace fs = std::filesystem;

LoadedModel::LoadedModel(const Invocation& invocation, World& world, bool with_task)
    : device_(choose_device(world, invocation.option("device", "auto"))), grid_(world.communicator(), 1) {
    share_cores(world, 0);
    const fs::path path = find_checkpoint(invocation.need("checkpoint"), "--checkpoint");
    const CheckpointMeta meta = read_checkpoint_meta(path);
    ModelConfig config;
    json::read(json::parse(meta.model, path.string()), config, {path.string(), "model"});
    const std::string given = invocation.option("vocab", "");
    vocab_ = given.empty() ? std::make_unique<Vocabulary>(meta.vocab, path.string() + ": vocab") : std::make_unique<Vocabulary>(given);
    if (!meta.vocab.empty() && vocab_->digest() != rf::digest(meta.vocab.data(), static_cast<std::int64_t>(meta.vocab.size())))
        fail_usage("--vocab ", given, " is not the vocabulary the checkpoint was trained with");
    tokenizer_ = std::make_unique<Tokenizer>(*vocab_);
    const Dtype dtype = resolve_dtype(invocation.option("dtype", "auto"), {"--dtype", ""});
    alpha_ = saved_alpha(meta, config);
    std::vector<EncoderModel::Head> heads;
    if (config.style().learned_positions) longest_ = std::min(longest_, config.max_position_embeddings);
    if (with_task) {
        const json::value input = json::parse(meta.input, path.string());
        const auto* file = input.as_object().if_contains("task_file");
        if (!file) fail_usage("--checkpoint ", path.string(), ": was not fine-tuned on a task");
        heads.push_back({tasks::stored_task(*file, input.at("task_labels"), {path.string(), ""}), input.at("task_choices").as_int64()});
        longest_ = heads.front().task.file.max_length;
    }
    model_ = std::make_unique<EncoderModel>(config, grid_, EncoderModel::Options{.device = device_, .dtype = dtype, .max_length = longest_, .seed = 0}, std::move(heads));
    model_->load(path);
}

std::vector<std::string> read_lines(Communicator& world, std::istream& in) {
    std::string all;
    if (world.rank() == 0) all.assign(std::istreambuf_iterator<char>(in), {});
    world.broadcast(all, 0);
    if (all.empty()) fail_usage("no text on standard input");
    std::vector<std::string> lines;
    for (std::size_t at = 0; at < all.size();) {
        const std::size_t end = std::min(all.find('\n', at), all.size());
        lines.push_back(all.substr(at, end - at));
        if (!lines.back().empty() && lines.back().back() == '\r') lines.back().pop_back();
        at = end + 1;
    }
    return lines;
}

}  // namespace rf::app
