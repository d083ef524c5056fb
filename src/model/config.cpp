#include "model/config.hpp"

#include <cmath>

namespace rf {

double ModelConfig::initial_gain() const {
    return init_mode == "depth" ? 1 / std::sqrt(static_cast<double>(num_hidden_layers)) : 1;
}

std::int64_t ModelConfig::parameter_count() const {
    const std::int64_t c = hidden_size;
    return (vocab_size + type_vocab_size) * c + num_hidden_layers * (4 * c * c + 2 * c * intermediate_size) +
           (residual_mode == "rezero" ? 2 * num_hidden_layers : 0);
}

double ModelConfig::training_flops(double tokens, double squared_lengths, double targets) const {
    const double c = static_cast<double>(hidden_size), f = static_cast<double>(intermediate_size);
    const double layers = static_cast<double>(num_hidden_layers), v = static_cast<double>(vocab_size);
    return 3 * (2 * layers * (4 * c * c + 2 * c * f) * tokens + 4 * layers * c * squared_lengths + 2 * v * c * targets);
}

void ModelConfig::check(const json::Place& place, std::int64_t tensor_size) const {
    const json::Requirements require{place};
    require(family == "roformer_v2", "family", "expected \"roformer_v2\", found \"", family, "\"");
    require(hidden_act == "relu", "hidden_act", "expected \"relu\" (RoFormerV2 has no other), found \"", hidden_act, "\"");
    require(hidden_size >= 2 && hidden_size <= 8192, "hidden_size", "expected 2 to 8192, found ", hidden_size);
    require(intermediate_size >= 1 && intermediate_size <= 1 << 20, "intermediate_size", "expected 1 to 1048576, found ", intermediate_size);
    require(num_hidden_layers >= 1 && num_hidden_layers <= 1000, "num_hidden_layers", "expected 1 to 1000, found ", num_hidden_layers);
    require(num_attention_heads >= 1 && num_attention_heads <= 256, "num_attention_heads", "expected 1 to 256, found ", num_attention_heads);
    require(hidden_size % num_attention_heads == 0, "num_attention_heads", num_attention_heads, " heads do not divide hidden_size ",
            hidden_size);
    require(head_size() % 2 == 0, "num_attention_heads", "head size ", head_size(), " is odd (rotary positions turn pairs of channels)");
    require(type_vocab_size >= 1 && type_vocab_size <= 1000, "type_vocab_size", "expected 1 to 1000, found ", type_vocab_size);
    require(vocab_size >= 5 && vocab_size <= 65536, "vocab_size", "expected 5 to 65536 (corpora hold 16-bit ids), found ", vocab_size);
    require(hidden_dropout_prob >= 0 && hidden_dropout_prob < 1, "hidden_dropout_prob", "expected 0 <= p < 1, found ", hidden_dropout_prob);
    require(attention_probs_dropout_prob >= 0 && attention_probs_dropout_prob < 1, "attention_probs_dropout_prob",
            "expected 0 <= p < 1, found ", attention_probs_dropout_prob);
    require(residual_mode == "plain" || residual_mode == "alpha" || residual_mode == "rezero", "residual_mode",
            "expected \"plain\", \"alpha\" or \"rezero\", found \"", residual_mode, "\"");
    require(init_mode == "unit" || init_mode == "depth", "init_mode", "expected \"unit\" or \"depth\", found \"", init_mode, "\"");
    require(norm_epsilon > 0 && norm_epsilon < 1, "norm_epsilon", "expected 0 < epsilon < 1, found ", norm_epsilon);
    require(num_attention_heads % tensor_size == 0, "num_attention_heads", num_attention_heads, " heads do not divide over ", tensor_size,
            " tensor ranks (each needs whole heads)");
    require(intermediate_size >= tensor_size && vocab_size >= tensor_size, "intermediate_size", "less than one unit for each of ",
            tensor_size, " tensor ranks");
}

ModelConfig read_model(const json::value& v, const json::Place& place) {
    ModelConfig model;
    if (v.is_string()) {
        const std::string path(v.as_string());
        const json::Place inside{path, ""};
        json::read(json::parse_file(path), model, inside);
        model.check(inside);
        return model;
    }
    if (!v.is_object()) json::fail_type(place, "a model file or an object { … }", v);
    boost::json::object overrides = v.as_object();
    if (const auto* file = overrides.if_contains("file")) {
        if (!file->is_string()) json::fail_type(place.at("file"), "a model file", *file);
        model = read_model(*file, place);
        overrides.erase("file");
    }
    json::read(overrides, model, place);
    model.check(place);
    return model;
}

}  // namespace rf
