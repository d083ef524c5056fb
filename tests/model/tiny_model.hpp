#pragma once
/// A model small enough to check by hand, in f64, without dropout unless asked for.

#include "kernels/embedding.hpp"
#include "kernels/rotary.hpp"
#include "model/mlm_head.hpp"
#include "params/layout.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <vector>

namespace rf::test {

/// Packed sequences with their predicted positions.
struct Batch {
    std::vector<std::int32_t> ids, position, token_sample, cu_seqlens{0}, sample, rows, targets;
    std::vector<std::int32_t> segments;    ///< of each token, or empty: all 0
    std::size_t empty_groups = 0;  ///< behind the groups of the ids

    /// The same with what a captured step fills its batch up with: tokens after the last sequence, empty sequences, rows that do
    /// not count, empty groups of ids.
    Batch padded(std::size_t tokens, std::size_t sequences, std::size_t predictions, std::size_t groups) const {
        Batch b = *this;
        for (std::vector<std::int32_t>* list : {&b.ids, &b.position, &b.token_sample}) list->resize(list->size() + tokens, 0);
        b.cu_seqlens.resize(b.cu_seqlens.size() + sequences, b.cu_seqlens.back());
        b.sample.resize(b.sample.size() + sequences, 0);
        for (std::vector<std::int32_t>* list : {&b.rows, &b.targets}) list->resize(list->size() + predictions, -1);
        b.empty_groups = groups;
        return b;
    }
    /// Sample or position of each predicted token; 0 of padding.
    std::vector<std::int32_t> of_rows(const std::vector<std::int32_t>& list) const {
        std::vector<std::int32_t> out;
        for (const std::int32_t row : rows) out.push_back(row < 0 ? 0 : list[static_cast<std::size_t>(row)]);
        return out;
    }
    /// Predictions that count.
    std::int64_t count() const { return std::count_if(rows.begin(), rows.end(), [](std::int32_t row) { return row >= 0; }); }
    void add(const std::vector<std::int32_t>& sequence, const std::vector<std::int32_t>& wanted) {
        const auto begin = static_cast<std::int32_t>(ids.size());
        for (std::size_t t = 0; t < sequence.size(); ++t) {
            ids.push_back(sequence[t]);
            position.push_back(static_cast<std::int32_t>(t));
            token_sample.push_back(static_cast<std::int32_t>(sample.size()) + 5);
            if (wanted[t] == 0) continue;
            rows.push_back(begin + static_cast<std::int32_t>(t));
            targets.push_back(wanted[t]);
        }
        sample.push_back(static_cast<std::int32_t>(sample.size()) + 5);
        cu_seqlens.push_back(static_cast<std::int32_t>(ids.size()));
    }
};

inline ConstTensor list(const std::vector<std::int32_t>& v) {
    static const std::int32_t none = 0;
    return view(v.empty() ? &none : v.data(), {static_cast<std::int64_t>(v.size())});
}

/// What the head adds its loss and its hits to.
struct Sums {
    double values[2] = {0, 0};
    Tensor tensor() { return view(values, {2}); }
    double loss() const { return values[0]; }
    double correct() const { return values[1]; }
};

class TinyModel {
public:
    /// `tensor`: the group that splits the model; alone by default.
    explicit TinyModel(const ModelConfig& config, Dtype dtype = Dtype::f64, std::unique_ptr<Communicator> tensor = make_self_communicator())
        : config(config), comm(std::move(tensor)), layout(comm->rank(), comm->size()), encoder(this->config, layout), head(this->config, encoder, layout), dtype(dtype) {
        const std::int64_t n = layout.size();
        weights_ = Buffer(n * size_of(dtype));
        grads_ = Buffer(n * size_of(accumulator_of(dtype)));
        table_ = Buffer(512 * config.head_size() * size_of(accumulator_of(dtype)));
        table = table_.tensor({512, config.head_size() / 2, 2}, accumulator_of(dtype));
        rotary_table(table);
        if (this->config.style().learned_positions) table = {};
    }

    Tensor weights() const { return weights_.tensor({layout.size()}, dtype); }
    Tensor grads() const { return grads_.tensor({layout.size()}, accumulator_of(dtype)); }

    /// The hidden states of predicted positions alone are read.
    StepContext step(const Batch& b, const Scalar& alpha, bool training) {
        arena.reset();
        read_sample_ = b.of_rows(b.token_sample), read_position_ = b.of_rows(b.position);
        const auto used = static_cast<std::size_t>(b.cu_seqlens.back());
        groups_ = group_by_id({b.ids.data(), used});
        for (std::size_t t = used; t < b.ids.size(); ++t) groups_.tokens.push_back(static_cast<std::int32_t>(t));
        groups_.begin.insert(groups_.begin.end(), b.empty_groups, groups_.begin.back());
        std::int64_t longest = 0;
        for (std::size_t s = 0; s + 1 < b.cu_seqlens.size(); ++s) longest = std::max<std::int64_t>(longest, b.cu_seqlens[s + 1] - b.cu_seqlens[s]);
        return {.model = config, .stream = stream, .arena = arena, .tensor = *comm,
                .batch = {.ids = list(b.ids), .segments = b.segments.empty() ? ConstTensor{} : list(b.segments), .cu_seqlens = list(b.cu_seqlens), .sample = list(b.sample),
                          .origin = {.sample = list(b.token_sample), .position = list(b.position)},
                          .id_tokens = list(groups_.tokens), .id_begin = list(groups_.begin), .longest = longest,
                          .read = list(b.rows), .read_origin = {.sample = list(read_sample_), .position = list(read_position_)}},
                .rotary_table = table, .alpha = alpha, .training = training, .seed = 42};
    }
    /// Mean loss over (count + 1e-7), as train_mlm.py has it. `outputs` are of every token.
    double loss(const Batch& b, const Scalar& alpha, bool training = false) {
        const StepContext context = step(b, alpha, training);
        const ParamView w(layout, weights());
        Encoder::Saved saved;
        const Tensor x = encoder.forward(context, w, saved);
        Sums sums;
        head.evaluate(context, w, x, list(b.targets), sums.tensor());
        if (!b.rows.empty()) logits = copy(head.logits(context, w, x));
        StepContext whole = context;
        whole.batch.read = {};
        encoder.forward(whole, w, saved);
        outputs.assign(1, copy(saved.embedded.y));
        for (const auto& layer : saved.layers) outputs.push_back(copy(layer.second.norm.y));
        return sums.loss() / (static_cast<double>(b.count()) + 1e-7);
    }
    /// Gradients of `loss` into grads().
    double gradient(const Batch& b, const Scalar& alpha, bool training = false) {
        std::fill_n(grads_.data(), grads_.size(), std::byte{0});
        const StepContext context = step(b, alpha, training);
        const ParamView w(layout, weights()), g(layout, grads());
        Encoder::Saved saved;
        const Tensor x = encoder.forward(context, w, saved);
        const Tensor dx = arena.tensor_like(x);
        const double count = static_cast<double>(b.count());
        Sums sums;
        head.forward_backward(context, w, g, x, list(b.targets), 1 / (count + 1e-7), dx, sums.tensor());
        encoder.backward(context, w, g, dx, saved);
        return sums.loss() / (count + 1e-7);
    }
    std::vector<double> copy(const Tensor& t) const {
        std::vector<double> out(static_cast<std::size_t>(t.count()));
        for (std::size_t i = 0; i < out.size(); ++i)
            out[i] = t.dtype == Dtype::f64 ? t.as<double>()[i] : t.dtype == Dtype::f32 ? t.as<float>()[i] : static_cast<float>(t.as<bfloat16>()[i]);
        return out;
    }

    ModelConfig config;
    std::unique_ptr<Communicator> comm;
    Stream stream;
    Arena arena;
    ParamLayout layout;
    Encoder encoder;
    MlmHead head;
    Dtype dtype;
    Tensor table;
    std::vector<std::vector<double>> outputs;  ///< embedding output, then every layer's
    std::vector<double> logits;                ///< of the predicted positions

private:
    Buffer weights_, grads_, table_;
    IdGroups groups_;  ///< of the step's batch
    std::vector<std::int32_t> read_sample_, read_position_;
};

inline ModelConfig tiny_config() {
    ModelConfig config;
    config.vocab_size = 12;
    config.hidden_size = 8;
    config.num_attention_heads = 2;
    config.intermediate_size = 16;
    config.num_hidden_layers = 2;
    return config;
}

/// The tiny model as every family has it, and RoFormerV2 with one thing of the others at a time.
inline std::vector<ModelConfig> other_styles(const ModelConfig& base) {
    std::vector<ModelConfig> all;
    const auto add = [&](std::string ModelConfig::*key, const char* value) { (all.emplace_back(base)).*key = value; };
    for (const char* family : {"roformer", "bert", "roberta"}) add(&ModelConfig::family, family);
    add(&ModelConfig::biases, "on");
    add(&ModelConfig::norm, "layer");
    add(&ModelConfig::norm_gain, "on");
    add(&ModelConfig::hidden_act, "gelu");
    add(&ModelConfig::positions, "learned");
    add(&ModelConfig::mlm_head, "transform");
    for (ModelConfig& config : all) config.max_position_embeddings = 70;
    return all;
}
inline std::string style_name(const ModelConfig& c) {
    return message(c.family, ' ', c.biases, ' ', c.norm, ' ', c.norm_gain, ' ', c.hidden_act, ' ', c.positions, ' ', c.mlm_head, ' ', c.residual_mode);
}

/// Lengths 1, 2, 7 and 64, with a third of the positions predicted.
inline Batch packed_batch(std::int64_t vocab) {
    Batch batch;
    for (const int length : {1, 2, 7, 64}) {
        std::vector<std::int32_t> ids, wanted;
        for (int t = 0; t < length; ++t) {
            ids.push_back(static_cast<std::int32_t>((7 * t + 3 * length + 1) % vocab));
            wanted.push_back(t % 3 == 0 ? static_cast<std::int32_t>(1 + (5 * t + length) % (vocab - 1)) : 0);
        }
        batch.add(ids, wanted);
    }
    return batch;
}

/// Weights of a size that lets every part of the model matter, for a model that is not split.
inline void randomise(TinyModel& model) {
    double* w = model.weights().as<double>();
    for (std::int64_t i = 0; i < model.layout.size(); ++i) {
        const PhiloxCounter bits = philox({static_cast<std::uint32_t>(i), 0, 0, 0}, {3, 4});
        w[i] = (uniform(bits[0]) + uniform(bits[1]) - 1) * 0.8;
    }
}

/// The formula weights of the reference model: tensor t in the order word, segment, then per layer q, k, v, o, W1, W2, all
/// (in, out); element n of it is sin(k^2) / 2 with k = 100 t + n + 1. `place` says where element (tensor, row, column) goes.
inline void fill_by_formula(TinyModel& model) {
    double* flat = model.weights().as<double>();
    const auto value = [](std::int64_t tensor, std::int64_t n) {
        const auto k = static_cast<double>(100 * tensor + n + 1);
        return 0.5 * std::sin(k * k);
    };
    const std::int64_t c = model.config.hidden_size;
    for (const ParamEntry& entry : model.layout.entries()) {
        const std::string& name = entry.spec.name;
        double* out = flat + entry.offset;
        const std::int64_t count = entry.local.count();
        if (name.starts_with("embedding/")) {
            const std::int64_t tensor = name == "embedding/word" ? 0 : 1;
            for (std::int64_t i = 0; i < count; ++i) out[i] = value(tensor, i);
            continue;
        }
        const std::int64_t first = 2 + 6 * (name[6] - '0');
        if (name.ends_with("qkv")) {
            for (std::int64_t i = 0; i < count; ++i)  // [3, C out, C in]
                out[i] = value(first + i / (c * c), (i % c) * c + i / c % c);
        } else {
            const std::int64_t tensor = first + (name.ends_with("output") ? 3 : name.ends_with("up") ? 4 : 5);
            const std::int64_t rows = entry.local[0], columns = count / rows;  // (out, in)
            for (std::int64_t i = 0; i < count; ++i) out[i] = value(tensor, (i % columns) * rows + i / columns);
        }
    }
}

}  // namespace rf::test
