#include "convert/model_files.hpp"

#include "text/vocabulary.hpp"

#include <algorithm>
#include <array>

namespace rf::convert {

namespace {

using boost::json::object;

constexpr double released_epsilon = 1e-12;

std::string text_at(const object& config, std::string_view key) {
    const auto* value = config.if_contains(key);
    return value && value->is_string() ? std::string(value->as_string()) : std::string();
}

/// Rotary positions come in two layouts: neighbouring channels are a pair (RoFormer), or channel i and i + D/2. What says the second, or
/// turns values, has another base or a scale, is refused; so is what is not known to say the first.
void check_rotary(const object& config, const std::string& file) {
    for (const auto& [key, value] : config) {
        std::string name(key);
        std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
        const auto has = [&](const char* part) { return name.find(part) != std::string::npos; };
        if (!has("rope") && !has("rotary") && !has("neox") && !has("interleave") && !has("rotate_half") && !has("half_split")) continue;
        const std::string said = boost::json::serialize(value);
        const bool off = value.is_null() || (value.is_bool() && !value.as_bool());
        bool fine = off && !has("interleave");
        if (has("interleave")) fine = value.is_bool() ? value.as_bool() : value.is_null();
        if (has("theta") || has("base")) fine = value.is_number() && value.to_number<double>() == 10000;
        if (value.is_string()) fine = value.as_string() == "interleaved" || value.as_string() == "rotary";
        if (!fine)
            fail_usage(file, ": ", key, ": ", said, " (expected rotary positions of interleaved pairs, base 10000, queries and keys only; weights for "
                             "half-split pairs would give wrong results here)");
    }
}

void check_v2(const object& config, const std::string& file) {
    const auto refuse = [&](std::string_view key, const std::string& found, const char* other) {
        fail_usage(file, ": ", key, " ", found, ": ", other, ", not RoFormerV2 (which has norm_type \"rms_norm\", use_bias false, hidden_act \"relu\"); --family bert, roberta or "
                   "roformer takes it for that");
    };
    const std::string type = text_at(config, "model_type");
    if (!type.empty() && type != "roformer" && type != "roformer_v2" && type != "roformerv2") refuse("model_type", "\"" + type + "\"", "another model");
    if (const std::string norm = text_at(config, "norm_type"); norm == "layer_norm" || (type == "roformer" && norm.empty()))
        refuse("norm_type", norm.empty() ? "absent" : "\"" + norm + "\"", "RoFormer of the first version");
    if (const auto* bias = config.if_contains("use_bias"); bias && !(bias->is_bool() && !bias->as_bool())) refuse("use_bias", boost::json::serialize(*bias), "a model with biases");
    if (const std::string act = text_at(config, "hidden_act"); act != "relu")
        refuse("hidden_act", act.empty() ? "absent" : "\"" + act + "\"", "BERT or RoFormer of the first version");
}

/// BERT, RoBERTa with BERT's names (as the Chinese ones are released) and RoFormer of the first version: biases, layer norm, gelu by the error function.
void check_bert_like(const object& config, const std::string& file, const std::string& family) {
    const auto expect = [&](const char* key, std::string_view otherwise, std::initializer_list<std::string_view> known) {
        const std::string found = config.contains(key) && !config.at(key).is_string() ? boost::json::serialize(config.at(key)) : text_at(config, key);
        if (std::ranges::find(known, found.empty() ? otherwise : std::string_view(found)) != known.end()) return;
        std::string words;
        for (const std::string_view word : known) words += (words.empty() ? "" : " or ") + std::string(word);
        fail_usage(file, ": ", key, ": expected ", words, " of family ", family, ", found ", found.empty() ? "nothing" : found);
    };
    if (family == "roformer") expect("model_type", "roformer", {"roformer"});
    else expect("model_type", "bert", {"bert"});
    expect("hidden_act", "", {"gelu"});
    expect("norm_type", "layer_norm", {"layer_norm"});
    expect("use_bias", "true", {"true"});
    expect("position_embedding_type", "absolute", {"absolute"});
}

/// The keys of a released config that are the model's, in its order.
object shape_keys(const ModelConfig& model) {
    return {{"hidden_act", model.style().gelu ? "gelu" : "relu"},
            {"hidden_size", model.hidden_size},
            {"hidden_dropout_prob", model.hidden_dropout_prob},
            {"attention_probs_dropout_prob", model.attention_probs_dropout_prob},
            {"intermediate_size", model.intermediate_size},
            {"num_attention_heads", model.num_attention_heads},
            {"num_hidden_layers", model.num_hidden_layers},
            {"type_vocab_size", model.type_vocab_size},
            {"vocab_size", model.vocab_size}};
}

void put_vocab_tokens(object& config, const ModelConfig& model, std::int64_t vocab_tokens) {
    if (vocab_tokens > 0 && vocab_tokens != model.vocab_size) config["vocab_tokens"] = vocab_tokens;
}

}  // namespace

std::string TaskNote::name() const { return text_at(file.as_object(), "name"); }
std::string TaskNote::kind() const { return text_at(file.as_object(), "kind"); }

json::value write(const TaskNote& task) { return object{{"task_file", task.file}, {"task_labels", json::write(task.labels)}, {"task_choices", task.choices}}; }

TaskNote read_task_note(const json::value& note, const json::Place& place) {
    if (!note.is_object()) json::fail_type(place, "an object { … }", note);
    const object& from = note.as_object();
    TaskNote task;
    for (const char* key : {"task_file", "task_labels", "task_choices"})
        if (!from.contains(key)) fail_usage(place.at(key), ": missing");
    task.file = from.at("task_file");
    if (!task.file.is_object() || text_at(task.file.as_object(), "name").empty()) json::fail_type(place.at("task_file"), "a task file with a name", task.file);
    json::read(from.at("task_labels"), task.labels, place.at("task_labels"));
    json::read(from.at("task_choices"), task.choices, place.at("task_choices"));
    return task;
}

ForeignConfig read_config(const json::value& config, const std::string& file, const std::string& family) {
    const json::Place place{file, ""};
    if (!config.is_object()) json::fail_type(place, "an object { … }", config);
    const object& from = config.as_object();
    if (family == "roformer_v2") check_v2(from, file);
    else check_bert_like(from, file, family);
    check_rotary(from, file);
    ForeignConfig out;
    ModelConfig& model = out.model;
    set_family(model, family);
    const auto take = [&](const char* key, auto& member, bool needed) {
        if (from.contains(key)) json::read(from.at(key), member, place.at(key));
        else if (needed) fail_usage(place.at(key), ": missing");
    };
    take("hidden_size", model.hidden_size, true);
    take("intermediate_size", model.intermediate_size, true);
    take("num_attention_heads", model.num_attention_heads, true);
    take("num_hidden_layers", model.num_hidden_layers, true);
    take("vocab_size", model.vocab_size, true);
    take("type_vocab_size", model.type_vocab_size, false);
    take("hidden_dropout_prob", model.hidden_dropout_prob, false);
    take("attention_probs_dropout_prob", model.attention_probs_dropout_prob, false);
    take("layer_norm_eps", model.norm_epsilon, false);
    if (model.style().learned_positions) take("max_position_embeddings", model.max_position_embeddings, false);
    take("vocab_tokens", out.vocab_tokens, false);
    model.check(place);
    for (const auto& [key, expected] : {std::pair{"embedding_size", model.hidden_size}, {"attention_head_size", model.head_size()}, {"attention_key_size", model.head_size()},
                                        {"head_size", model.head_size()}}) {
        std::int64_t found = expected;
        if (from.contains(key) && !from.at(key).is_null()) take(key, found, false);
        if (found != expected) fail_usage(place.at(key), ": expected ", expected, ", found ", found, " (no projections between sizes are known here)");
    }
    return out;
}

void set_family(ModelConfig& model, const std::string& family) {
    model.family = family;
    model.residual_mode = "plain";  // what is released has its residual weight at 1
    if (family != "roformer_v2") model.init_mode = "fixed";  // what is still to be drawn (a new head) is drawn as BERT draws it
}

json::value bert_config(const ModelConfig& model, std::int64_t vocab_tokens) {
    object out = shape_keys(model);
    if (model.style().learned_positions) out["max_position_embeddings"] = model.max_position_embeddings;
    if (model.norm_epsilon != released_epsilon) out["layer_norm_eps"] = model.norm_epsilon;
    put_vocab_tokens(out, model, vocab_tokens);
    return out;
}

json::value hf_config(const ModelConfig& model, std::int64_t vocab_tokens, const TaskNote* head) {
    const BlockStyle style = model.style();
    const std::string name = style.learned_positions ? "Bert" : "RoFormer";
    object out{{"architectures", boost::json::array{name + (head ? "ForSequenceClassification" : "ForMaskedLM")}}};
    for (const auto& [key, value] : shape_keys(model)) out[key] = value;
    out["initializer_range"] = 0.02;
    out["layer_norm_eps"] = model.norm_epsilon;
    out["pad_token_id"] = 0;
    out["torch_dtype"] = "float32";
    if (style.learned_positions) {
        out["max_position_embeddings"] = model.max_position_embeddings;
        out["model_type"] = "bert";
        out["position_embedding_type"] = "absolute";
    } else {
        out["embedding_size"] = model.hidden_size;
        out["max_position_embeddings"] = 512;  // rows of the package's table of angles: its longest sequence
        out["model_type"] = "roformer";
        out["norm_type"] = style.centred_norm ? "layer_norm" : "rms_norm";
        out["rotary_value"] = false;
        out["use_bias"] = style.biases;
    }
    put_vocab_tokens(out, model, vocab_tokens);
    if (head) {
        object names, numbers;
        const std::vector<std::string> labels = head->kind() == "classify" ? head->labels : std::vector<std::string>{"score"};
        for (std::size_t i = 0; i < labels.size(); ++i) {
            names[std::to_string(i)] = labels[i];
            numbers[labels[i]] = static_cast<std::int64_t>(i);
        }
        out["id2label"] = names;
        out["label2id"] = numbers;
        out["problem_type"] = head->kind() == "classify" ? "single_label_classification" : "regression";
        out["finetuning_task"] = head->name();
    }
    return out;
}

json::value tokenizer_config() {
    object out{{"tokenizer_class", "BertTokenizer"}, {"do_lower_case", true}, {"do_basic_tokenize", true}, {"tokenize_chinese_chars", true}, {"strip_accents", nullptr},
               {"never_split", nullptr}, {"model_max_length", 512}};
    const json::value tokens = special_tokens();
    for (const auto& [key, token] : tokens.as_object()) out[key] = token;
    return out;
}

json::value special_tokens() {
    return object{{"unk_token", "[UNK]"}, {"sep_token", "[SEP]"}, {"pad_token", "[PAD]"}, {"cls_token", "[CLS]"}, {"mask_token", "[MASK]"}};
}

std::int64_t count_tokens(const std::string& vocab) { return vocab.empty() ? 0 : Vocabulary(vocab, "the vocabulary").size(); }

void check_vocabulary(const std::string& text, const std::string& file, const ForeignConfig& config) {
    if (text.empty()) return;
    const std::int64_t found = Vocabulary(text, file).size(), expected = config.vocab_tokens > 0 ? config.vocab_tokens : config.model.vocab_size;
    if (found != expected) fail_usage(file, ": a vocabulary of ", found, " entries, the model has ", expected, " (vocab_size ", config.model.vocab_size, ")");
}

}  // namespace rf::convert
