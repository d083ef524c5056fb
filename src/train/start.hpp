#pragma once
/// What supervised training begins from: a checkpoint, or nothing but a model and a vocabulary.

#include "io/json.hpp"
#include "model/config.hpp"
#include "params/checkpoint.hpp"
#include "text/vocabulary.hpp"

#include <memory>
#include <optional>
#include <string>

namespace rf {

/// A checkpoint's residual weight: its schedule's at the step it was written.
double saved_alpha(const CheckpointMeta& meta, const ModelConfig& config);

struct Start {
    std::optional<CheckpointMeta> meta;  ///< absent: from scratch
    ModelConfig config;
    std::string vocab_text;
    std::unique_ptr<Vocabulary> vocab;
    json::value alpha;                   ///< points of a schedule: the residual weight as it stands in the checkpoint (1 from scratch)
};
/// `checkpoint` and `vocab` may be empty, not both. `model`: with a checkpoint the keys that differ from its own, else a model as
/// `read_model` takes it. Errors are UsageErrors naming the key.
Start read_start(const std::string& checkpoint, const json::value& model, const std::string& vocab, std::int64_t tensor_ranks, const json::Place& place);

}  // namespace rf
