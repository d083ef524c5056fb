#pragma once
/// The weights of a model as every format knows them, one matrix at a time, and what the formats call them.

#include "convert/tensor_file.hpp"
#include "model/config.hpp"
#include "params/checkpoint_stream.hpp"
#include "params/layout.hpp"

#include <optional>
#include <string>
#include <vector>

namespace rf::convert {

enum class Role : std::uint8_t {
    word, segment, query, key, value, attention_output, up, down, head_dense, head_bias,
    // Of BERT, RoBERTa and RoFormer's first version alone.
    position, embedding_gain, embedding_bias, query_bias, key_bias, value_bias, attention_output_bias, attention_gain, attention_bias, up_bias, down_bias, feed_forward_gain,
    feed_forward_bias, transform, transform_bias, transform_gain, transform_norm_bias, decoder_bias,
    ours_only
};

/// A matrix that maps `columns` inputs to `rows` outputs, rows outermost: y = W x. Tables of embeddings: a row a token. Biases and gains: rows x 1.
struct Weight {
    Role role = Role::ours_only;
    std::int64_t layer = -1;
    std::int64_t rows = 0, columns = 0;
    TensorSlice slice;  ///< where it stands in a checkpoint of ours
    Shape shape;        ///< of the whole tensor there

    std::int64_t count() const { return rows * columns; }
    /// The end of a branch, which a residual weight multiplies.
    bool ends_branch() const {
        return role == Role::attention_output || role == Role::attention_output_bias || role == Role::down || role == Role::down_bias;
    }
    bool of_head() const { return role == Role::head_dense || role == Role::head_bias; }
    /// "layer_0/attention/qkv[1]"
    std::string name() const;
};

/// The dense output layer of a fine-tuned model.
struct HeadShape {
    std::string task;
    std::int64_t outputs = 0;
};
/// Every weight, in the order of our layout.
std::vector<Weight> weights_of(const ModelConfig& model, const std::optional<HeadShape>& head);

/// What another format calls a weight.
struct Foreign {
    std::string name;
    Dims dims;
    bool transposed = false;  ///< stored with inputs outermost
};
/// PyTorch's packages, the encoder's prefix ("roformer.", "bert.") left out; not of a fine-tuned head, which they have in another form (hf.cpp).
Foreign hf_name(const Weight& weight);
/// Checkpoints of TensorFlow: BERT's names; a head as in BERT's run_classifier.
Foreign tf_name(const Weight& weight);
/// Keras, RoFormerV2 only: "<layer>[<number>]" to read by, and the dataset's path to write under. A head is a layer `dense` behind the encoder.
Foreign keras_name(const Weight& weight);
std::string keras_path(const Weight& weight);

/// The transpose of a matrix of `rows` x `columns`.
void transpose(const float* from, std::int64_t rows, std::int64_t columns, float* to);

}  // namespace rf::convert
