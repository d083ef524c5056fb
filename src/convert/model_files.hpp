#pragma once
/// What stands beside the weights: the model's shape as other programs write it, the vocabulary, tokenizer files, the task of a head.

#include "io/json.hpp"
#include "model/config.hpp"

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace rf::convert {

/// The task that a model was fine-tuned on, as our checkpoints keep it.
struct TaskNote {
    json::value file;
    std::vector<std::string> labels;
    std::int64_t choices = 0;

    std::string name() const;
    std::string kind() const;
};
json::value write(const TaskNote& task);
TaskNote read_task_note(const json::value& note, const json::Place& place);

/// What a foreign config says: bert_config.json as released, config.json of PyTorch's packages. A UsageError for models of another family, naming
/// what differs, and for rotary positions that are not of interleaved pairs.
struct ForeignConfig {
    ModelConfig model;
    std::int64_t vocab_tokens = 0;  ///< entries of vocab.txt, which may be fewer than the table has rows; 0: as many
};
ForeignConfig read_config(const json::value& config, const std::string& file, const std::string& family);

/// A model of this family as others release it: a residual weight of 1.
void set_family(ModelConfig& model, const std::string& family);

json::value bert_config(const ModelConfig& model, std::int64_t vocab_tokens);
/// `head`: a model for classification, with these labels.
json::value hf_config(const ModelConfig& model, std::int64_t vocab_tokens, const TaskNote* head);
/// tokenizer_config.json and special_tokens_map.json
json::value tokenizer_config();
json::value special_tokens();

/// Throws a UsageError when the vocabulary is not the table's. An empty one is none.
void check_vocabulary(const std::string& text, const std::string& file, const ForeignConfig& config);
std::int64_t count_tokens(const std::string& vocab);

}  // namespace rf::convert
