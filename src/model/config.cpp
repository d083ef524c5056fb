#include "model/config.hpp"

#include <cmath>
#include <initializer_list>
#include <string_view>

namespace rf {

BlockStyle ModelConfig::style() const {
    const bool v2 = family == "roformer_v2";
    const auto switched = [](const std::string& key, std::string_view on, bool otherwise) { return key.empty() ? otherwise : key == on; };
    return {.biases = switched(biases, "on", !v2),
            .centred_norm = switched(norm, "layer", !v2),
            .norm_gain = switched(norm_gain, "on", !v2),
            .gelu = switched(hidden_act, "gelu", !v2),
            .learned_positions = switched(positions, "learned", family == "bert" || family == "roberta"),
            .head_transform = switched(mlm_head, "transform", !v2),
            .segments = family != "roberta"};
}

double ModelConfig::initial_gain() const {
    return init_mode == "depth" ? 1 / std::sqrt(static_cast<double>(num_hidden_layers)) : 1;
}

std::int64_t ModelConfig::parameter_count() const {
    const std::int64_t c = hidden_size, norms = residual_mode == "rezero" ? 0 : 2 * num_hidden_layers;
    const BlockStyle s = style();
    std::int64_t n = (vocab_size + type_vocab_size) * c + num_hidden_layers * (4 * c * c + 2 * c * intermediate_size) + (residual_mode == "rezero" ? 2 * num_hidden_layers : 0);
    if (s.biases) n += num_hidden_layers * (5 * c + intermediate_size);
    if (s.norm_gain) n += (norms + 1) * 2 * c;
    if (s.learned_positions) n += max_position_embeddings * c;
    if (s.head_transform) n += c * c + vocab_size + (s.biases ? c : 0) + (s.norm_gain ? 2 * c : 0);
    return n;
}

double ModelConfig::training_flops(double tokens, double squared_lengths, double targets) const {
    const double c = static_cast<double>(hidden_size), f = static_cast<double>(intermediate_size);
    const double layers = static_cast<double>(num_hidden_layers), v = static_cast<double>(vocab_size);
    return 3 * (2 * layers * (4 * c * c + 2 * c * f) * tokens + 4 * layers * c * squared_lengths + 2 * (v * c + (style().head_transform ? c * c : 0)) * targets);
}

void ModelConfig::check(const json::Place& place, std::int64_t tensor_size) const {
    const json::Requirements require{place};
    const auto one_of = [&](const char* key, const std::string& found, std::initializer_list<const char*> known) {
        std::string list;
        for (const char* name : known) {
            if (found == name) return;
            list += message(list.empty() ? "" : ", ", '"', name, '"');
        }
        fail_usage(place.at(key), ": expected one of ", list, ", found \"", found, "\"");
    };
    one_of("family", family, {"roformer_v2", "roformer", "bert", "roberta"});
    one_of("hidden_act", hidden_act, {"", "relu", "gelu"});
    one_of("biases", biases, {"", "on", "off"});
    one_of("norm", norm, {"", "rms", "layer"});
    one_of("norm_gain", norm_gain, {"", "on", "off"});
    one_of("positions", positions, {"", "rotary", "learned"});
    one_of("mlm_head", mlm_head, {"", "tied", "transform"});
    require(max_position_embeddings >= 3 && max_position_embeddings <= 65536, "max_position_embeddings", "expected 3 to 65536, found ", max_position_embeddings);
    require(initializer_range > 0 && initializer_range < 1, "initializer_range", "expected 0 < deviation < 1, found ", initializer_range);
    require(hidden_size >= 2 && hidden_size <= 8192, "hidden_size", "expected 2 to 8192, found ", hidden_size);
    require(intermediate_size >= 1 && intermediate_size <= 1 << 20, "intermediate_size", "expected 1 to 1048576, found ", intermediate_size);
    require(num_hidden_layers >= 1 && num_hidden_layers <= 1000, "num_hidden_layers", "expected 1 to 1000, found ", num_hidden_layers);
    require(num_attention_heads >= 1 && num_attention_heads <= 256, "num_attention_heads", "expected 1 to 256, found ", num_attention_heads);
    require(hidden_size % num_attention_heads == 0, "num_attention_heads", num_attention_heads, " heads do not divide hidden_size ",
            hidden_size);
    require(head_size() % 2 == 0 || style().learned_positions, "num_attention_heads", "head size ", head_size(), " is odd (rotary positions turn pairs of channels)");
    require(type_vocab_size >= 1 && type_vocab_size <= 1000, "type_vocab_size", "expected 1 to 1000, found ", type_vocab_size);
    require(vocab_size >= 5 && vocab_size <= 65536, "vocab_size", "expected 5 to 65536 (corpora hold 16-bit ids), found ", vocab_size);
    require(hidden_dropout_prob >= 0 && hidden_dropout_prob < 1, "hidden_dropout_prob", "expected 0 <= p < 1, found ", hidden_dropout_prob);
    require(attention_probs_dropout_prob >= 0 && attention_probs_dropout_prob < 1, "attention_probs_dropout_prob",
            "expected 0 <= p < 1, found ", attention_probs_dropout_prob);
    require(residual_mode == "plain" || residual_mode == "alpha" || residual_mode == "rezero", "residual_mode",
            "expected \"plain\", \"alpha\" or \"rezero\", found \"", residual_mode, "\"");
    one_of("init_mode", init_mode, {"unit", "depth", "fixed"});
    require(norm_epsilon > 0 && norm_epsilon < 1, "norm_epsilon", "expected 0 < epsilon < 1, found ", norm_epsilon);
    require(num_attention_heads % tensor_size == 0, "num_attention_heads", num_attention_heads, " heads do not divide over ", tensor_size,
            " tensor ranks (each needs whole heads)");
    require(intermediate_size >= tensor_size && vocab_size >= tensor_size, "intermediate_size", "less than one unit for each of ",
            tensor_size, " tensor ranks");
}

namespace {

ModelConfig read_as_given(const json::value& v, const json::Place& place) {
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
        model = read_as_given(*file, place);
        overrides.erase("file");
    }
    json::read(overrides, model, place);
    model.check(place);
    return model;
}

}  // namespace

ModelConfig read_model(const json::value& v, const json::Place& place) {
    ModelConfig model = read_as_given(v, place);
    model.hidden_act = model.style().gelu ? "gelu" : "relu";  // what the family has by itself is written out
    return model;
}

}  // namespace rf
