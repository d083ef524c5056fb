#include "convert/named_weights.hpp"

#include "io/files.hpp"

#include <algorithm>
#include <set>

namespace rf::convert {

namespace fs = std::filesystem;

namespace {

constexpr std::int64_t released_head_size = 64;

/// A list for a message, cut where it grows long.
std::string join(const std::vector<std::string>& items) {
    constexpr std::size_t shown = 12;
    std::string out;
    for (std::size_t i = 0; i < std::min(items.size(), shown); ++i) out += (i ? ", " : "") + items[i];
    if (items.size() > shown) out += message(", and ", items.size() - shown, " more");
    return out;
}

Dims dims_of(const TensorReader& reader, const Naming& naming, Role role, std::int64_t layer) {
    const auto found = reader.tensors().find(naming({.role = role, .layer = layer, .rows = 1, .columns = 1}).name);
    return found == reader.tensors().end() ? Dims{} : found->second.dims;
}

/// The shape as the tensors have it.
ModelConfig shape_of(const TensorReader& reader, const Naming& naming, const std::string& family) {
    ModelConfig model;
    set_family(model, family);
    const Dims word = dims_of(reader, naming, Role::word, -1), segment = dims_of(reader, naming, Role::segment, -1), up = dims_of(reader, naming, Role::up, 0);
    if (word.size() != 2 || segment.size() != 2 || up.size() != 2)
        fail_usage(reader.name(), ": no weights of family ", family, " (", naming({.role = Role::word, .rows = 1, .columns = 1}).name, ", ",
                   naming({.role = Role::up, .layer = 0, .rows = 1, .columns = 1}).name, " and so on are missing or no matrices); give its shape with --config");
    model.vocab_size = word[0], model.hidden_size = word[1], model.type_vocab_size = segment[0];
    if (model.style().learned_positions)
        if (const Dims position = dims_of(reader, naming, Role::position, -1); position.size() == 2) model.max_position_embeddings = position[0];
    model.intermediate_size = up[0] == model.hidden_size ? up[1] : up[0];
    model.num_hidden_layers = 1;
    while (model.num_hidden_layers < 1000 && !dims_of(reader, naming, Role::up, model.num_hidden_layers).empty()) ++model.num_hidden_layers;
    if (model.hidden_size % released_head_size != 0)
        fail_usage(reader.name(), ": ", model.hidden_size, " channels are no multiple of the released heads' ", released_head_size, "; give the model's shape with --config");
    model.num_attention_heads = model.hidden_size / released_head_size;
    model.check({reader.name(), "the shape of its tensors"});
    return model;
}

bool belongs_to_another_model(const std::string& name) {
    for (const char* part : {"LayerNorm", "layer_norm", "gamma", "beta", "bias", "position_embeddings", "-Norm["})
        if (name.find(part) != std::string::npos) return true;
    return false;
}

}  // namespace

void read_beside(const fs::path& folder, const std::vector<std::string>& config_names, const OriginOptions& options, const TensorReader& reader, const Naming& naming,
                 Content& content) {
    std::string config = options.config;
    for (const std::string& name : config_names)
        if (config.empty() && fs::exists(folder / name)) config = (folder / name).string();
    ForeignConfig foreign;
    if (config.empty()) {
        foreign.model = shape_of(reader, naming, options.family);
        content.left_out.push_back(message("no ", config_names.front(), " beside the weights: shape taken from the tensors, ", foreign.model.num_attention_heads, " heads of ",
                                           released_head_size, " channels (--config names a file)"));
    } else {
        foreign = read_config(json::parse_file(config), config, options.family);
    }
    content.model = foreign.model;
    std::string vocab = options.vocab;
    if (vocab.empty() && fs::exists(folder / "vocab.txt")) vocab = (folder / "vocab.txt").string();
    if (vocab.empty()) {
        content.left_out.push_back("no vocab.txt beside the weights: the checkpoint has none (--vocab names a file)");
    } else {
        content.vocab = read_file(vocab);
        if (content.vocab.empty()) fail_usage(vocab, ": is empty");
        check_vocabulary(content.vocab, vocab, foreign);
    }
    if (const fs::path task = folder / "task.json"; fs::exists(task)) content.task = read_task_note(json::parse_file(task.string()), {task.string(), ""});
}

void check_tensors(const TensorReader& reader, const Content& content, const Naming& naming, const std::function<Extra(const std::string&)>& judge, Content& notes) {
    std::vector<std::string> missing, shapes, unexpected, others, left_out;
    std::set<std::string> expected;
    for (const Weight& weight : content.weights) {
        const Foreign foreign = naming(weight);
        expected.insert(foreign.name);
        const auto found = reader.tensors().find(foreign.name);
        if (found == reader.tensors().end()) missing.push_back(foreign.name);
        else if (found->second.dims != foreign.dims) shapes.push_back(foreign.name + " is " + to_text(found->second.dims) + ", expected " + to_text(foreign.dims));
        else if (found->second.element == Element::other) shapes.push_back(foreign.name + " holds " + found->second.type);
    }
    for (const auto& [name, info] : reader.tensors()) {
        if (expected.contains(name)) continue;
        const Extra extra = judge(name);
        if (extra == Extra::left_out) left_out.push_back(name);
        const bool other = content.model.family == "roformer_v2" && belongs_to_another_model(name);
        if (extra == Extra::refused) (other ? others : unexpected).push_back(name);
    }
    if (!others.empty())
        fail_usage(reader.name(), ": weights of another model, RoFormer of the first version or BERT (RoFormerV2 has no biases, no weights of norms, no table of positions; --family bert, roberta or roformer takes them for "
                                  "those): ",
                   join(others));
    std::string problems;
    if (!missing.empty()) problems += message("; missing: ", join(missing));
    if (!shapes.empty()) problems += message("; wrong shape: ", join(shapes));
    if (!unexpected.empty()) problems += message("; unexpected: ", join(unexpected));
    if (!problems.empty()) fail_usage(reader.name(), ": not the weights of this model (", problems.substr(2), ")");
    if (!left_out.empty()) notes.left_out.push_back("left out: " + join(left_out));
}

void read_named(const TensorReader& reader, const Foreign& foreign, const Weight& weight, std::vector<float>& scratch, float* out) {
    if (!foreign.transposed) return reader.read(foreign.name, out);
    scratch.resize(std::max(scratch.size(), static_cast<std::size_t>(weight.count())));  // smaller would be filled again later
    reader.read(foreign.name, scratch.data());
    transpose(scratch.data(), weight.columns, weight.rows, out);
}

const float* arrange_named(const Foreign& foreign, const Weight& weight, const float* data, std::vector<float>& scratch) {
    if (!foreign.transposed) return data;
    scratch.resize(std::max(scratch.size(), static_cast<std::size_t>(weight.count())));  // smaller would be filled again later
    transpose(data, weight.rows, weight.columns, scratch.data());
    return scratch.data();
}

TensorList list_of(const std::vector<Weight>& weights, const Naming& naming) {
    TensorList out;
    for (const Weight& weight : weights) {
        const Foreign foreign = naming(weight);
        out.emplace_back(foreign.name, foreign.dims);
    }
    return out;
}

std::vector<Weight> known_elsewhere(const Content& content) {
    std::vector<Weight> out;
    for (const Weight& weight : content.weights)
        if (weight.role != Role::ours_only && (!weight.of_head() || content.task)) out.push_back(weight);
    return out;
}

void write_text(const fs::path& path, std::string_view text) {
    OutputFile file(path);
    file.write(text);
    file.finish();
}

void write_beside(const fs::path& folder, const Content& content) {
    if (!content.vocab.empty()) write_text(folder / "vocab.txt", content.vocab);
    if (content.task) write_text(folder / "task.json", json::pretty(convert::write(*content.task)));
}

}  // namespace rf::convert
