#include "convert/weights.hpp"

#include "model/encoder.hpp"
#include "model/mlm_head.hpp"
#include "tasks/heads.hpp"

#include <algorithm>
#include <cstring>

namespace rf::convert {

namespace {

/// How a weight's numbers lie: a table has a row a token, a matrix of TensorFlow and Keras has inputs outermost (so theirs are transposes of ours and
/// PyTorch's), a vector is a bias or a gain.
enum class Form : std::uint8_t { table, matrix, vector };

/// A row a role: our logical tensor (below "layer_N/"; empty: as it stands) and, in the other formats, the names and Keras' order of weights.
/// {} stands for the layer.
struct Names {
    Role role;
    Form form;
    const char* ours;
    std::int64_t slice, slices;
    const char* hf;
    const char* tf;
    const char* keras_layer = nullptr;
    int keras_number = 0;
    const char* keras_weight = nullptr;
};
constexpr Names table[] = {
    {Role::word, Form::table, "embedding/word", 0, 1, "embeddings.word_embeddings.weight", "bert/embeddings/word_embeddings", "Embedding-Token", 0, "embeddings:0"},
    {Role::segment, Form::table, "embedding/segment", 0, 1, "embeddings.token_type_embeddings.weight", "bert/embeddings/token_type_embeddings", "Embedding-Segment", 0,
     "embeddings:0"},
    {Role::query, Form::matrix, "attention/qkv", 0, 3, "encoder.layer.{}.attention.self.query.weight", "bert/encoder/layer_{}/attention/self/query/kernel",
     "Transformer-{}-MultiHeadSelfAttention", 0, "dense/kernel:0"},
    {Role::key, Form::matrix, "attention/qkv", 1, 3, "encoder.layer.{}.attention.self.key.weight", "bert/encoder/layer_{}/attention/self/key/kernel",
     "Transformer-{}-MultiHeadSelfAttention", 1, "dense_1/kernel:0"},
    {Role::value, Form::matrix, "attention/qkv", 2, 3, "encoder.layer.{}.attention.self.value.weight", "bert/encoder/layer_{}/attention/self/value/kernel",
     "Transformer-{}-MultiHeadSelfAttention", 2, "dense_2/kernel:0"},
    {Role::attention_output, Form::matrix, "attention/output", 0, 1, "encoder.layer.{}.attention.output.dense.weight", "bert/encoder/layer_{}/attention/output/dense/kernel",
     "Transformer-{}-MultiHeadSelfAttention", 3, "dense_3/kernel:0"},
    {Role::up, Form::matrix, "feed_forward/up", 0, 1, "encoder.layer.{}.intermediate.dense.weight", "bert/encoder/layer_{}/intermediate/dense/kernel",
     "Transformer-{}-FeedForward", 0, "dense/kernel:0"},
    {Role::down, Form::matrix, "feed_forward/down", 0, 1, "encoder.layer.{}.output.dense.weight", "bert/encoder/layer_{}/output/dense/kernel", "Transformer-{}-FeedForward", 1,
     "dense_1/kernel:0"},
    // BERT's run_classifier has its output_weights as we do, Keras its kernels the other way.
    {Role::head_dense, Form::matrix, "dense", 0, 1, "", "output_weights", "dense", 0, "kernel:0"},
    {Role::head_bias, Form::vector, "bias", 0, 1, "", "output_bias", "dense", 1, "bias:0"},
    // Of the families that RoFormerV2 is compared with.
    {Role::position, Form::table, "embedding/position", 0, 1, "embeddings.position_embeddings.weight", "bert/embeddings/position_embeddings"},
    {Role::embedding_gain, Form::vector, "embedding/norm/gain", 0, 1, "embeddings.LayerNorm.weight", "bert/embeddings/LayerNorm/gamma"},
    {Role::embedding_bias, Form::vector, "embedding/norm/bias", 0, 1, "embeddings.LayerNorm.bias", "bert/embeddings/LayerNorm/beta"},
    {Role::query_bias, Form::vector, "attention/qkv_bias", 0, 3, "encoder.layer.{}.attention.self.query.bias", "bert/encoder/layer_{}/attention/self/query/bias"},
    {Role::key_bias, Form::vector, "attention/qkv_bias", 1, 3, "encoder.layer.{}.attention.self.key.bias", "bert/encoder/layer_{}/attention/self/key/bias"},
    {Role::value_bias, Form::vector, "attention/qkv_bias", 2, 3, "encoder.layer.{}.attention.self.value.bias", "bert/encoder/layer_{}/attention/self/value/bias"},
    {Role::attention_output_bias, Form::vector, "attention/output_bias", 0, 1, "encoder.layer.{}.attention.output.dense.bias",
     "bert/encoder/layer_{}/attention/output/dense/bias"},
    {Role::attention_gain, Form::vector, "attention/norm/gain", 0, 1, "encoder.layer.{}.attention.output.LayerNorm.weight",
     "bert/encoder/layer_{}/attention/output/LayerNorm/gamma"},
    {Role::attention_bias, Form::vector, "attention/norm/bias", 0, 1, "encoder.layer.{}.attention.output.LayerNorm.bias",
     "bert/encoder/layer_{}/attention/output/LayerNorm/beta"},
    {Role::up_bias, Form::vector, "feed_forward/up_bias", 0, 1, "encoder.layer.{}.intermediate.dense.bias", "bert/encoder/layer_{}/intermediate/dense/bias"},
    {Role::down_bias, Form::vector, "feed_forward/down_bias", 0, 1, "encoder.layer.{}.output.dense.bias", "bert/encoder/layer_{}/output/dense/bias"},
    {Role::feed_forward_gain, Form::vector, "feed_forward/norm/gain", 0, 1, "encoder.layer.{}.output.LayerNorm.weight", "bert/encoder/layer_{}/output/LayerNorm/gamma"},
    {Role::feed_forward_bias, Form::vector, "feed_forward/norm/bias", 0, 1, "encoder.layer.{}.output.LayerNorm.bias", "bert/encoder/layer_{}/output/LayerNorm/beta"},
    {Role::transform, Form::matrix, "mlm/dense", 0, 1, "cls.predictions.transform.dense.weight", "cls/predictions/transform/dense/kernel"},
    {Role::transform_bias, Form::vector, "mlm/dense_bias", 0, 1, "cls.predictions.transform.dense.bias", "cls/predictions/transform/dense/bias"},
    {Role::transform_gain, Form::vector, "mlm/norm/gain", 0, 1, "cls.predictions.transform.LayerNorm.weight", "cls/predictions/transform/LayerNorm/gamma"},
    {Role::transform_norm_bias, Form::vector, "mlm/norm/bias", 0, 1, "cls.predictions.transform.LayerNorm.bias", "cls/predictions/transform/LayerNorm/beta"},
    {Role::decoder_bias, Form::vector, "mlm/bias", 0, 1, "cls.predictions.bias", "cls/predictions/output_bias"},
};

const Names& names_of(const Weight& weight) {
    const auto* found = std::ranges::find(table, weight.role, &Names::role);
    RF_REQUIRE(found != std::end(table), "no other format knows ", weight.name());
    return *found;
}

std::string with_layer(std::string text, std::int64_t layer) {
    const std::size_t at = text.find("{}");
    return at == std::string::npos ? text : text.replace(at, 2, std::to_string(layer));
}

Foreign foreign(const Weight& weight, std::string name, bool transposed) {
    if (names_of(weight).form == Form::vector) return {std::move(name), {weight.rows}, false};
    return {std::move(name), transposed ? Dims{weight.columns, weight.rows} : Dims{weight.rows, weight.columns}, transposed};
}

/// Adds what a logical tensor holds.
void add_weights(const ParamSpec& spec, std::vector<Weight>& out) {
    std::int64_t layer = -1;
    std::string part = spec.name;
    if (spec.name.starts_with("layer_")) {
        const std::size_t slash = spec.name.find('/');
        layer = std::stoll(spec.name.substr(6, slash - 6));
        part = spec.name.substr(slash + 1);
    } else if (spec.name.starts_with(tasks::head_prefix)) {
        part = spec.name.substr(spec.name.rfind('/') + 1);
    }
    const std::size_t before = out.size();
    for (const Names& names : table) {
        if (names.ours != part) continue;
        Weight weight{.role = names.role, .layer = layer, .slice = {spec.name, names.slice, names.slices}, .shape = spec.shape};
        const std::int64_t count = spec.shape.count() / names.slices;
        // Inputs are the last axis, or for the product of attention the last two.
        weight.columns = names.form == Form::vector ? 1 : names.role == Role::attention_output ? spec.shape[1] * spec.shape[2] : spec.shape[spec.shape.rank - 1];
        weight.rows = count / weight.columns;
        out.push_back(std::move(weight));
    }
    if (out.size() == before) out.push_back({.rows = spec.shape.count(), .columns = 1, .slice = {spec.name, 0, 1}, .shape = spec.shape});
}

constexpr std::int64_t tile = 16;

/// One tile, by squares of 4 x 4 and through a buffer: each line of either side is touched once, for rows of a matrix often lie a power of two apart
/// and push one another out of the first cache.
void transpose_tile(const float* from, std::int64_t from_row, float* to, std::int64_t to_row) {
    using Four [[gnu::vector_size(16)]] = float;
    float turned[tile * tile];
    for (std::int64_t r = 0; r < tile; r += 4)
        for (std::int64_t c = 0; c < tile; c += 4) {
            Four row[4], column[4];
            for (int i = 0; i < 4; ++i) std::memcpy(&row[i], from + (r + i) * from_row + c, sizeof(Four));
            const Four low01 = __builtin_shufflevector(row[0], row[1], 0, 4, 1, 5), high01 = __builtin_shufflevector(row[0], row[1], 2, 6, 3, 7);
            const Four low23 = __builtin_shufflevector(row[2], row[3], 0, 4, 1, 5), high23 = __builtin_shufflevector(row[2], row[3], 2, 6, 3, 7);
            column[0] = __builtin_shufflevector(low01, low23, 0, 1, 4, 5);
            column[1] = __builtin_shufflevector(low01, low23, 2, 3, 6, 7);
            column[2] = __builtin_shufflevector(high01, high23, 0, 1, 4, 5);
            column[3] = __builtin_shufflevector(high01, high23, 2, 3, 6, 7);
            for (int i = 0; i < 4; ++i) std::memcpy(turned + (c + i) * tile + r, &column[i], sizeof(Four));
        }
    for (std::int64_t c = 0; c < tile; ++c) std::memcpy(to + c * to_row, turned + c * tile, tile * sizeof(float));
}

}  // namespace

std::string Weight::name() const { return slice.count == 1 ? slice.name : message(slice.name, '[', slice.index, ']'); }

std::vector<Weight> weights_of(const ModelConfig& model, const std::optional<HeadShape>& head) {
    ParamLayout layout;
    const Encoder encoder(model, layout);
    const MlmHead mlm(model, encoder, layout);
    if (head) {
        layout.add({.name = tasks::head_parameter(head->task, "dense"), .shape = {head->outputs, model.hidden_size}});
        layout.add({.name = tasks::head_parameter(head->task, "bias"), .shape = {head->outputs}});
    }
    std::vector<Weight> out;
    for (const ParamEntry& entry : layout.entries()) add_weights(entry.spec, out);
    return out;
}

Foreign hf_name(const Weight& weight) { return foreign(weight, with_layer(names_of(weight).hf, weight.layer), false); }

Foreign tf_name(const Weight& weight) {
    const Names& names = names_of(weight);
    return foreign(weight, with_layer(names.tf, weight.layer), names.form == Form::matrix && weight.role != Role::head_dense);
}

Foreign keras_name(const Weight& weight) {
    const Names& names = names_of(weight);
    return foreign(weight, message(with_layer(names.keras_layer, weight.layer), '[', names.keras_number, ']'), names.form == Form::matrix);
}

std::string keras_path(const Weight& weight) {
    const Names& names = names_of(weight);
    const std::string layer = with_layer(names.keras_layer, weight.layer);
    return layer + "/" + layer + "/" + names.keras_weight;
}

void transpose(const float* from, std::int64_t rows, std::int64_t columns, float* to) {
    // Strips of rows, so that the lines which a strip's columns are written to stay in the second cache's reach.
    constexpr std::int64_t strip = 256;
    const std::int64_t tiled_rows = rows / tile * tile, tiled_columns = columns / tile * tile;
    for (std::int64_t s = 0; s < tiled_rows; s += strip)
        for (std::int64_t c = 0; c < tiled_columns; c += tile)
            for (std::int64_t r = s; r < std::min(s + strip, tiled_rows); r += tile) transpose_tile(from + r * columns + c, columns, to + c * rows + r, rows);
    for (std::int64_t r = 0; r < rows; ++r)
        for (std::int64_t c = r < tiled_rows ? tiled_columns : 0; c < columns; ++c) to[c * rows + r] = from[r * columns + c];
}

}  // namespace rf::convert
