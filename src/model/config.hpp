#pragma once

#include "io/json.hpp"

#include <boost/describe.hpp>

#include <cstdint>
#include <string>

namespace rf {

/// What the blocks of an encoder are made of, as its family and switches say.
struct BlockStyle {
    bool biases = false;             ///< on every dense product
    bool centred_norm = false;       ///< layer normalisation; else root mean square
    bool norm_gain = false;          ///< a gain and a bias behind every norm
    bool gelu = false;               ///< between the products of the feed-forward; else relu
    bool learned_positions = false;  ///< a table added to the embedding; else rotary
    bool head_transform = false;     ///< dense, activation and norm before the word table, a bias behind it; else the table alone
    bool segments = true;            ///< the second text of a pair has a segment of its own

    /// The bare RMS norm of RoFormerV2, which has a kernel of its own.
    bool bare_norm() const { return !centred_norm && !norm_gain; }
    /// Relu without a bias, which goes with the product.
    bool fused_relu() const { return !biases && !gelu; }
    friend bool operator==(const BlockStyle&, const BlockStyle&) = default;
};

/// Shape and options of an encoder. The first nine keys are those of the released bert_config.json; the rest are this
/// program's own. Released sizes: small 6 x 384, base 12 x 768, large 24 x 1024 (RoFormerV2, Su 2022).
struct ModelConfig {
    std::string hidden_act = "";                ///< "relu" or "gelu"; "": as the family has it (roformer_v2 relu, the others gelu)
    std::int64_t hidden_size = 384;             ///< C
    double hidden_dropout_prob = 0.1;           ///< on both branches, on the embedding and before the MLM head
    double attention_probs_dropout_prob = 0.1;
    std::int64_t intermediate_size = 1536;      ///< F
    std::int64_t num_attention_heads = 6;       ///< H; head size D = C / H
    std::int64_t num_hidden_layers = 6;         ///< L
    std::int64_t type_vocab_size = 2;
    std::int64_t vocab_size = 12000;            ///< V
    /// roformer_v2 (Su 2022): no biases, bare RMS norm, relu, rotary positions, the word table as head. roformer (v1, Su et al. 2021): biases, layer norm with gain
    /// and bias, gelu, rotary positions, head with dense, norm and bias. bert (Devlin et al. 2019): the same with learned positions. roberta (Liu et al. 2019): bert
    /// without the use of segments.
    std::string family = "roformer_v2";
    // One thing of the family at a time, for comparisons: "" leaves it as it is.
    std::string biases = "";                    ///< "on" or "off"
    std::string norm = "";                      ///< "rms" or "layer"
    std::string norm_gain = "";                 ///< "on" or "off"
    std::string positions = "";                 ///< "rotary" or "learned"
    std::string mlm_head = "";                  ///< "tied" or "transform"
    std::int64_t max_position_embeddings = 512; ///< of learned positions
    /// y = norm(x + a f(x)). "alpha": a rises by schedule.alpha (the article); "plain": a = 1; "rezero": y = x + a f(x)
    /// with one trained a per branch, no norm (Bachlechner et al. 2020).
    std::string residual_mode = "alpha";
    /// Standard deviation gain / sqrt(fan). "unit": gain 1 (release of 2022-03-20); "depth": gain L^(-1/2) (bert4keras
    /// since 2022-03-30, the DeepNet solution for LAMB). fan: C, and F for the second feed-forward matrix.
    std::string init_mode = "unit";             ///< or "fixed": initializer_range for all, as BERT
    double initializer_range = 0.02;
    double norm_epsilon = 1e-12;                ///< inside the root; bert4keras since 0.11.4 uses 1e-7

    BlockStyle style() const;
    std::int64_t head_size() const { return hidden_size / num_attention_heads; }
    double initial_gain() const;
    /// 12000 C + 2 C + L (4 C^2 + 2 C F), with the true table sizes; plus 2 L for rezero, and what the style adds.
    std::int64_t parameter_count() const;
    /// Model FLOPs (multiply-add = 2) of forward and backward over one packed batch: `tokens`, the sum of squared
    /// lengths, and the number of predicted positions. Weights, attention and head; nothing else is counted. Every layer counts
    /// whole, as other programs compute it, though the last one works on the predicted positions alone (Encoder).
    double training_flops(double tokens, double squared_lengths, double targets) const;
    /// Throws UsageError naming `place` for impossible values, also over `tensor_size` ranks.
    void check(const json::Place& place, std::int64_t tensor_size = 1) const;
};
BOOST_DESCRIBE_STRUCT(ModelConfig, (),
                      (hidden_act, hidden_size, hidden_dropout_prob, attention_probs_dropout_prob, intermediate_size,
                       num_attention_heads, num_hidden_layers, type_vocab_size, vocab_size, family, biases, norm, norm_gain, positions, mlm_head,
                       max_position_embeddings, residual_mode, init_mode, initializer_range, norm_epsilon))

/// A model named by file, by {"file": …, key: override}, or given whole. Errors are UsageErrors.
ModelConfig read_model(const json::value& v, const json::Place& place);

}  // namespace rf
