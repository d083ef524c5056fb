#include "model/encoder.hpp"

#include "kernels/add_norm.hpp"
#include "kernels/attention.hpp"
#include "kernels/bias.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/embedding.hpp"
#include "kernels/gather.hpp"
#include "kernels/gemm.hpp"
#include "kernels/position.hpp"

#include <cmath>

namespace rf {

namespace {
std::string layer_name(std::int64_t layer, const char* part) { return message("layer_", layer, "/", part); }

/// The step as blocks see it that work on these rows alone.
StepContext on_rows(const StepContext& step, const ConstTensor& read) {
    StepContext rows = step;
    if (read) rows.batch.origin = step.batch.read_origin;
    return rows;
}
}  // namespace

SelfAttention::SelfAttention(const ModelConfig& m, std::int64_t layer, ParamLayout& layout)
    : layer_(layer),
      heads_(m.num_attention_heads / layout.tensor_size()),
      first_head_(heads_ * layout.tensor_rank()),
      head_size_(m.head_size()),
      biases_(m.style().biases),
      qkv_(layout.add({.name = layer_name(layer, "attention/qkv"), .shape = {3, m.num_attention_heads, m.head_size(), m.hidden_size},
                       .split_axis = 1, .fan = m.hidden_size, .tensors = 3})),
      output_(layout.add({.name = layer_name(layer, "attention/output"), .shape = {m.hidden_size, m.num_attention_heads, m.head_size()},
                          .split_axis = 1, .fan = m.hidden_size})) {
    if (!biases_) return;
    qkv_bias_ = layout.add({.name = layer_name(layer, "attention/qkv_bias"), .shape = {3, m.num_attention_heads, m.head_size()}, .split_axis = 1, .tensors = 3, .decays = false});
    output_bias_ = layout.add({.name = layer_name(layer, "attention/output_bias"), .shape = {m.hidden_size}, .decays = false});
}

Tensor SelfAttention::forward(const StepContext& step, const ParamView& weights, const ConstTensor& x, const ConstTensor& read, Saved& saved) const {
    const std::int64_t t = x.shape[0], c = x.shape[1];
    saved.qkv = step.arena.tensor({t, 3, heads_, head_size_}, x.dtype);
    saved.context = step.arena.tensor({t, heads_, head_size_}, x.dtype);
    saved.log_sum = step.arena.tensor({heads_, t}, accumulator_of(x.dtype));
    saved.read = read ? step.arena.tensor({read.shape[0], heads_ * head_size_}, x.dtype) : as_matrix(saved.context, t);
    const Tensor f = step.arena.tensor({saved.read.shape[0], c}, x.dtype);
    gemm(step.stream, {.a = x, .b = as_matrix(weights[qkv_], 3 * heads_ * head_size_), .trans_b = true, .c = as_matrix(saved.qkv, t)});
    if (biases_) bias_activation(step.stream, {.bias = weights[qkv_bias_].reshape({3 * heads_ * head_size_}), .x = as_matrix(saved.qkv, t)});
    attention(step.stream, {.qkv = saved.qkv,
                            .rotary = step.rotary_table,
                            .cu_seqlens = step.batch.cu_seqlens,
                            .sample = step.batch.sample,
                            .context = saved.context,
                            .log_sum = saved.log_sum,
                            .scale = 1 / std::sqrt(static_cast<double>(head_size_)),
                            .first_head = first_head_,
                            .longest = step.batch.longest,
                            .dropout = step.dropout(step.model.attention_probs_dropout_prob, attention_dropout(layer_))});
    if (read) gather(step.stream, {.x = as_matrix(saved.context, t), .rows = read, .y = saved.read});
    gemm(step.stream, {.a = saved.read, .b = as_matrix(weights[output_], c), .trans_b = true, .c = f});
    step.tensor.all_reduce(step.stream, f, ReduceOp::sum);  // each rank saw h of the H heads
    if (biases_) bias_activation(step.stream, {.bias = weights[output_bias_], .x = f});
    return f;
}

Tensor SelfAttention::backward(const StepContext& step, const ParamView& weights, const ParamView& grads, const ConstTensor& df,
                               const ConstTensor& x, const ConstTensor& read, const Saved& saved) const {
    const std::int64_t t = x.shape[0], c = x.shape[1];
    const Tensor dx = step.arena.tensor({t, c}, x.dtype);  // outlives the scope below
    const ArenaScope scratch(step.arena);
    const Tensor d_context = step.arena.tensor_like(saved.context);
    const Tensor d_read = read ? step.arena.tensor_like(saved.read) : as_matrix(d_context, t);
    const Tensor d_qkv = step.arena.tensor_like(saved.qkv);
    if (biases_) add_bias_backward(step.stream, {.dy = df, .d_bias = grads[output_bias_]});
    gemm(step.stream, {.a = df, .trans_a = true, .b = saved.read, .c = as_matrix(grads[output_], c), .beta = step.beta()});
    gemm(step.stream, {.a = df, .b = as_matrix(weights[output_], c), .c = d_read});
    if (read) gather_backward(step.stream, {.dy = d_read, .rows = read, .dx = as_matrix(d_context, t)});
    attention_backward(step.stream, {.qkv = saved.qkv,
                                     .rotary = step.rotary_table,
                                     .cu_seqlens = step.batch.cu_seqlens,
                                     .sample = step.batch.sample,
                                     .context = saved.context,
                                     .log_sum = saved.log_sum,
                                     .d_context = d_context,
                                     .d_qkv = d_qkv,
                                     .scratch = step.arena.tensor_like(saved.log_sum),
                                     .scale = 1 / std::sqrt(static_cast<double>(head_size_)),
                                     .first_head = first_head_,
                                     .longest = step.batch.longest,
                                     .dropout = step.dropout(step.model.attention_probs_dropout_prob, attention_dropout(layer_))});
    const std::int64_t rows = 3 * heads_ * head_size_;
    if (biases_) add_bias_backward(step.stream, {.dy = as_matrix(d_qkv, t), .d_bias = grads[qkv_bias_].reshape({rows})});
    gemm(step.stream, {.a = as_matrix(d_qkv, t), .trans_a = true, .b = x, .c = as_matrix(grads[qkv_], rows), .beta = step.beta()});
    gemm(step.stream, {.a = as_matrix(d_qkv, t), .b = as_matrix(weights[qkv_], rows), .c = dx});
    step.tensor.all_reduce(step.stream, dx, ReduceOp::sum);
    return dx;
}

FeedForward::FeedForward(const ModelConfig& m, std::int64_t layer, ParamLayout& layout)
    : inner_(0),
      style_(m.style()),
      up_(layout.add({.name = layer_name(layer, "feed_forward/up"), .shape = {m.intermediate_size, m.hidden_size}, .split_axis = 0,
                      .fan = m.hidden_size})),
      down_(layout.add({.name = layer_name(layer, "feed_forward/down"), .shape = {m.hidden_size, m.intermediate_size}, .split_axis = 1,
                        .fan = m.intermediate_size})) {
    inner_ = layout[up_].local[0];
    if (!style_.biases) return;
    up_bias_ = layout.add({.name = layer_name(layer, "feed_forward/up_bias"), .shape = {m.intermediate_size}, .split_axis = 0, .decays = false});
    down_bias_ = layout.add({.name = layer_name(layer, "feed_forward/down_bias"), .shape = {m.hidden_size}, .decays = false});
}

Tensor FeedForward::forward(const StepContext& step, const ParamView& weights, const ConstTensor& x, Saved& saved) const {
    saved.activation = step.arena.tensor({x.shape[0], inner_}, x.dtype);
    if (style_.fused_relu()) {
        saved.mask = step.arena.tensor({x.shape[0], relu_mask_bytes(inner_)}, Dtype::u8);
        gemm(step.stream, {.a = x, .b = weights[up_], .trans_b = true, .c = saved.activation, .epilogue = Epilogue::relu, .mask = saved.mask});
    } else {
        saved.before = step.arena.tensor_like(saved.activation);
        gemm(step.stream, {.a = x, .b = weights[up_], .trans_b = true, .c = saved.before});
        bias_activation(step.stream, {.bias = style_.biases ? ConstTensor(weights[up_bias_]) : ConstTensor{}, .x = saved.before, .y = saved.activation, .activation = activation()});
    }
    const Tensor f = step.arena.tensor(x.shape, x.dtype);
    gemm(step.stream, {.a = saved.activation, .b = weights[down_], .trans_b = true, .c = f});
    step.tensor.all_reduce(step.stream, f, ReduceOp::sum);  // each rank saw f of the F inner units
    if (style_.biases) bias_activation(step.stream, {.bias = weights[down_bias_], .x = f});
    return f;
}

Tensor FeedForward::backward(const StepContext& step, const ParamView& weights, const ParamView& grads, const ConstTensor& df,
                             const ConstTensor& x, const Saved& saved) const {
    const Tensor dx = step.arena.tensor(x.shape, x.dtype);
    const ArenaScope scratch(step.arena);
    const Tensor d_up = step.arena.tensor_like(saved.activation);
    gemm(step.stream, {.a = df, .trans_a = true, .b = saved.activation, .c = grads[down_], .beta = step.beta()});
    if (style_.biases) add_bias_backward(step.stream, {.dy = df, .d_bias = grads[down_bias_]});
    if (style_.fused_relu()) {
        gemm(step.stream, {.a = df, .b = weights[down_], .c = d_up, .epilogue = Epilogue::relu_backward, .mask = saved.mask});
    } else {
        gemm(step.stream, {.a = df, .b = weights[down_], .c = d_up});
        activation_backward(step.stream, {.x = saved.before, .dy = d_up, .dx = d_up, .activation = activation()});
    }
    if (style_.biases) add_bias_backward(step.stream, {.dy = d_up, .d_bias = grads[up_bias_]});
    gemm(step.stream, {.a = d_up, .trans_a = true, .b = x, .c = grads[up_], .beta = step.beta()});
    gemm(step.stream, {.a = d_up, .b = weights[up_], .c = dx});
    step.tensor.all_reduce(step.stream, dx, ReduceOp::sum);
    return dx;
}

Residual::Residual(const ModelConfig& m, std::int64_t layer, int branch, ParamLayout& layout)
    : rezero_(m.residual_mode == "rezero"), dropout_(m.hidden_dropout_prob), dropout_number_(branch_dropout(layer, branch)) {
    const char* part = branch == 0 ? "attention" : "feed_forward";
    if (rezero_) scale_ = layout.add({.name = layer_name(layer, part) + "/scale", .shape = {1}});
    else norm_.emplace(m, layer_name(layer, part) + "/norm", layout);
}

Norm::Input Residual::input(const StepContext& step, const ConstTensor& x) const {
    return {.x = x, .alpha = step.alpha, .dropout = step.dropout(dropout_, dropout_number_)};
}

Tensor Residual::forward(const StepContext& step, const ParamView& weights, const ConstTensor& x, const Tensor& f, Saved& saved, const Tensor& y) const {
    if (norm_) return norm_->forward(step, weights, input(step, x), f, saved.norm, y);
    saved.f = f;
    saved.norm.y = y ? y : step.arena.tensor_like(f);
    add_norm(step.stream, {.x = x,
                           .f = f,
                           .y = saved.norm.y,
                           .alpha = weights[scale_],
                           .normalise = false,
                           .dropout = step.dropout(dropout_, dropout_number_),
                           .origin = step.batch.origin});
    return saved.norm.y;
}

void Residual::backward(const StepContext& step, const ParamView& weights, const ParamView& grads, const ConstTensor& dy,
                        const Saved& saved, const Tensor& dx, const Tensor& df) const {
    if (norm_) return norm_->backward(step, weights, grads, input(step, {}), dy, saved.norm, dx, df);
    add_norm_backward(step.stream, {.dy = dy,
                                    .f = saved.f,
                                    .dx = dx,
                                    .df = df,
                                    .d_alpha = grads[scale_],
                                    .scratch = step.arena.tensor({dy.shape[0]}, Dtype::f32),
                                    .alpha = weights[scale_],
                                    .normalise = false,
                                    .dropout = step.dropout(dropout_, dropout_number_),
                                    .origin = step.batch.origin});
}

Encoder::Encoder(const ModelConfig& m, ParamLayout& layout)
    : style_(m.style()),
      dropout_(m.hidden_dropout_prob),
      first_id_(part_begin(m.vocab_size, layout.tensor_rank(), layout.tensor_size())),
      word_(layout.add({.name = "embedding/word", .shape = {m.vocab_size, m.hidden_size}, .split_axis = 0, .fan = m.hidden_size})),
      segment_(layout.add({.name = "embedding/segment", .shape = {m.type_vocab_size, m.hidden_size}, .fan = m.hidden_size})),
      position_(style_.learned_positions ? layout.add({.name = "embedding/position", .shape = {m.max_position_embeddings, m.hidden_size}, .fan = m.hidden_size}) : ParamId{}),
      norm_(m, "embedding/norm", layout) {
    for (std::int64_t i = 0; i < m.num_hidden_layers; ++i) {
        // Braces evaluate in order, so the layout follows the layer's own order.
        layers_.push_back(
            Layer{layout.size(), SelfAttention(m, i, layout), Residual(m, i, 0, layout), FeedForward(m, i, layout), Residual(m, i, 1, layout)});
    }
}

std::vector<ParamId> Encoder::overwritten() const {
    std::vector<ParamId> ids;
    for (const Layer& layer : layers_)
        for (const ParamId id : {layer.attention.weights()[0], layer.attention.weights()[1], layer.feed_forward.weights()[0], layer.feed_forward.weights()[1]}) ids.push_back(id);
    return ids;
}

Tensor Encoder::forward(const StepContext& step, const ParamView& weights, Saved& saved) const {
    const Tensor word = weights[word_];
    const std::int64_t t = step.batch.tokens();
    const Tensor embedded = step.arena.tensor({t, word.shape[1]}, word.dtype);
    embedding(step.stream, {.ids = step.batch.ids,
                            .segments = style_.segments ? step.batch.segments : ConstTensor{},
                            .word = word,
                            .segment = step.tensor.rank() == 0 ? ConstTensor(weights[segment_]) : ConstTensor{},
                            .y = embedded,
                            .first_id = first_id_});
    step.tensor.all_reduce(step.stream, embedded, ReduceOp::sum);  // one rank of the group owns each id
    if (style_.learned_positions) add_position(step.stream, {.position = step.batch.origin.position, .table = weights[position_], .y = embedded});
    norm_.forward(step, weights, {.dropout = step.dropout(dropout_, embedding_dropout)}, embedded, saved.embedded);
    saved.layers.resize(layers_.size());
    Tensor x = saved.embedded.y, y = step.keeps ? Tensor{} : step.arena.tensor_like(x);
    for (std::size_t i = 0; i < layers_.size(); ++i) {
        std::optional<ArenaScope> shared;
        if (!step.keeps) shared.emplace(step.arena);
        const Layer& layer = layers_[i];
        LayerSaved& keep = saved.layers[i];
        keep.x = x;
        const ConstTensor read = read_by(i, step);
        const StepContext rows = on_rows(step, read);
        const Tensor f = layer.attention.forward(step, weights, x, read, keep.attention);
        Tensor residual = x;
        if (read) {
            residual = step.arena.tensor_like(f);
            gather(step.stream, {.x = x, .rows = read, .y = residual});
            if (y) y = y.rows(0, read.shape[0]);
        }
        const Tensor middle = layer.first.forward(rows, weights, residual, f, keep.first);
        const Tensor g = layer.feed_forward.forward(rows, weights, middle, keep.feed_forward);
        const Tensor last = layer.second.forward(rows, weights, middle, g, keep.second, y);
        if (!step.keeps) y = x;
        x = last;
    }
    return x;
}

void Encoder::backward(const StepContext& step, const ParamView& weights, const ParamView& grads, const Tensor& dy,
                       const Saved& saved) const {
    const Tensor below = step.batch.read ? step.arena.tensor(saved.embedded.y.shape, dy.dtype) : dy;  // of what all tokens have
    for (std::size_t i = layers_.size(); i-- > 0;) {
        const ArenaScope scratch(step.arena);
        const ConstTensor read = read_by(i, step);
        const StepContext rows = on_rows(step, read);
        const Tensor d = read ? dy : below;
        const Layer& layer = layers_[i];
        const LayerSaved& kept = saved.layers[i];
        const Tensor df = step.arena.tensor_like(d);
        layer.second.backward(rows, weights, grads, d, kept.second, d, df);
        add(step.stream, {.x = layer.feed_forward.backward(rows, weights, grads, df, kept.first.norm.y, kept.feed_forward), .y = d});
        layer.first.backward(rows, weights, grads, d, kept.first, d, df);
        if (read) gather_backward(step.stream, {.dy = d, .rows = read, .dx = below});
        add(step.stream, {.x = layer.attention.backward(step, weights, grads, df, kept.x, read, kept.attention), .y = below});
        if (step.complete) step.complete(layer.begin);
    }
    norm_.backward(step, weights, grads, {.dropout = step.dropout(dropout_, embedding_dropout)}, below, saved.embedded, {}, below);
    if (style_.learned_positions) add_position_backward(step.stream, {.cu_seqlens = step.batch.cu_seqlens, .dy = below, .d_table = grads[position_]});
    const bool gpu = step.stream.device() == Device::cuda;
    const Tensor scratch = gpu ? step.arena.tensor({embedding_scratch_rows(below.shape[0], grads[segment_].shape[0]), below.shape[1]}, Dtype::f32) : Tensor{};
    // Every tensor rank has the whole gradient; the segment table is held whole by each and gets the same gradient on all.
    embedding_backward(step.stream, {.ids = step.batch.ids,
                                     .segments = style_.segments ? step.batch.segments : ConstTensor{},
                                     .tokens = step.batch.id_tokens,
                                     .begin = step.batch.id_begin,
                                     .dy = below,
                                     .d_word = grads[word_],
                                     .d_segment = grads[segment_],
                                     .first_id = first_id_,
                                     .scratch = scratch});
}

}  // namespace rf
