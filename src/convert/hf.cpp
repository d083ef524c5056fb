/// Folders of PyTorch's packages (`roformer`; `transformers` for BERT and RoFormer's first version): config.json, model.safetensors or pytorch_model.bin,
/// vocab.txt and tokenizer files.
///
/// The classifier of package `roformer` has a hidden layer: out_proj(relu(dense(x))), dense of C x C. Ours is one matrix W and a bias. As y = relu(y) - relu(-y),
/// dense holds each row of W and its negative, out_proj takes their difference: the same logits from the same products, for up to C / 2 outputs.

#include "convert/named_weights.hpp"
#include "convert/safetensors.hpp"
#include "convert/torch_file.hpp"

#include <algorithm>

namespace rf::convert {

namespace fs = std::filesystem;

namespace {

/// Before the encoder's names; those of a bare encoder have none, and those of the head for masking ("cls.") never.
std::string prefix_of(const std::string& family) { return family == "bert" || family == "roberta" ? "bert." : "roformer."; }

Naming naming_with(const std::string& prefix) {
    return [prefix](const Weight& weight) {
        Foreign foreign = hf_name(weight);
        if (!foreign.name.starts_with("cls.")) foreign.name = prefix + foreign.name;
        return foreign;
    };
}

constexpr const char* decoder = "cls.predictions.decoder.weight";
constexpr const char *dense_weight = "classifier.dense.weight", *dense_bias = "classifier.dense.bias", *out_weight = "classifier.out_proj.weight",
                     *out_bias = "classifier.out_proj.bias";

fs::path find_file(const fs::path& given) {
    if (!fs::is_directory(given)) {
        if (!fs::exists(given)) fail_usage(given.string(), ": does not exist");
        return given;
    }
    for (const char* name : {"model.safetensors", "pytorch_model.bin"})
        if (fs::exists(given / name)) return given / name;
    for (const char* name : {"model.safetensors.index.json", "pytorch_model.bin.index.json"})
        if (fs::exists(given / name)) fail_usage(given.string(), ": weights in several files (", name, "); save them as one");
    fail_usage(given.string(), ": neither model.safetensors nor pytorch_model.bin in this folder");
}

std::unique_ptr<TensorReader> open_file(const fs::path& path) {
    auto bytes = std::make_unique<Bytes>(path);
    return path.extension() == ".safetensors" ? read_safetensors(std::move(bytes)) : read_torch(std::move(bytes));
}

class HfOrigin final : public Origin {
public:
    HfOrigin(const fs::path& path, const OriginOptions& options) : reader_(open_file(path)) {
        prefix_ = prefix_of(options.family);
        // A bare encoder (RoFormerModel) is saved without the prefix.
        if (!reader_->tensors().contains(prefix_ + "embeddings.word_embeddings.weight") && reader_->tensors().contains("embeddings.word_embeddings.weight"))
            prefix_.clear();
        read_beside(path.parent_path(), {"config.json", "bert_config.json"}, options, *reader_, naming(), content_);
        std::optional<HeadShape> head;
        if (content_.task && reader_->tensors().contains(out_weight)) head = read_head();
        has_head_ = head.has_value();
        if (!head) content_.task.reset();
        content_.weights = weights_of(content_.model, {});
        check_tensors(*reader_, content_, naming(), [&](const std::string& name) { return judge(name); }, content_);
        check_tied();
        if (head) content_.weights = weights_of(content_.model, head);
    }

    void read(const Weight& weight, float* out, std::vector<float>& scratch) const override {
        if (weight.role == Role::head_dense) std::copy(head_dense_.begin(), head_dense_.end(), out);
        else if (weight.role == Role::head_bias) std::copy(head_bias_.begin(), head_bias_.end(), out);
        else read_named(*reader_, naming()(weight), weight, scratch, out);
    }

private:
    Naming naming() const {
        return [usual = naming_with(prefix_), old = reader_->tensors().contains(prefix_ + "embeddings.LayerNorm.gamma")](const Weight& weight) {
            Foreign foreign = usual(weight);
            // The first exports of BERT have TensorFlow's names for gains and biases of norms.
            if (const std::size_t at = foreign.name.rfind("LayerNorm."); old && at != std::string::npos) foreign.name.replace(at + 10, std::string::npos, foreign.name.ends_with("weight") ? "gamma" : "beta");
            return foreign;
        };
    }

    Extra judge(const std::string& name) const {
        if (name == decoder || name.ends_with("encoder.embed_positions.weight")) return Extra::known;
        if (content_.model.family != "roformer_v2") {
            if (name == "cls.predictions.decoder.bias" || name.ends_with("embeddings.position_ids")) return Extra::known;  // a second name, and 0, 1, 2, …
            if (name.starts_with("cls.seq_relationship.")) return Extra::left_out;
        }
        if (name.starts_with("classifier.")) return has_head_ ? Extra::known : Extra::left_out;
        if (name.starts_with(prefix_ + "pooler.")) return Extra::left_out;
        return Extra::refused;
    }

    std::vector<float> numbers(const std::string& name, const Dims& dims) const {
        const auto found = reader_->tensors().find(name);
        if (found == reader_->tensors().end() || found->second.dims != dims) return {};
        std::int64_t count = 1;
        for (const std::int64_t d : dims) count *= d;
        std::vector<float> out(static_cast<std::size_t>(count));
        reader_->read(name, out.data());
        return out;
    }

    /// The head, where the classifier is one that was written here; otherwise none.
    std::optional<HeadShape> read_head() {
        const Dims& dims = reader_->tensors().at(out_weight).dims;
        const std::int64_t c = content_.model.hidden_size, n = dims.empty() ? 0 : dims[0];
        if (n < 1 || 2 * n > c) return {};
        const std::vector<float> dense = numbers(dense_weight, {c, c}), bias = numbers(dense_bias, {c}), out = numbers(out_weight, {n, c});
        head_bias_ = numbers(out_bias, {n});
        if (dense.empty() || bias.empty() || out.empty() || head_bias_.empty()) return {};
        for (std::int64_t i = 0; i < n; ++i)
            for (std::int64_t j = 0; j < c; ++j)
                if (out[static_cast<std::size_t>(i * c + j)] != (j == 2 * i ? 1.0F : j == 2 * i + 1 ? -1.0F : 0.0F)) return {};
        for (std::int64_t j = 0; j < c; ++j)
            if (bias[static_cast<std::size_t>(j)] != 0) return {};
        for (std::int64_t i = 0; i < n; ++i) {
            const auto row = dense.begin() + 2 * i * c;
            for (std::int64_t j = 0; j < c; ++j)
                if (!(row[j] == -row[c + j])) return {};
            head_dense_.insert(head_dense_.end(), row, row + c);
        }
        return HeadShape{content_.task->name(), n};
    }

    /// The decoder is the table of words; a file that stores another beside it is no RoFormerV2.
    void check_tied() {
        const auto found = reader_->tensors().find(decoder);
        if (found == reader_->tensors().end()) return;
        const std::string word = prefix_ + "embeddings.word_embeddings.weight";
        if (reader_->same_storage(decoder, word)) return;
        const std::vector<float> table = numbers(word, {content_.model.vocab_size, content_.model.hidden_size}), other = numbers(decoder, {content_.model.vocab_size, content_.model.hidden_size});
        if (table != other) fail_usage(reader_->name(), ": ", decoder, " differs from ", word, " (a model here has one table for both)");
    }

    std::unique_ptr<TensorReader> reader_;
    std::string prefix_;
    bool has_head_ = false;
    std::vector<float> head_dense_, head_bias_;
};

class HfTarget final : public Target {
public:
    HfTarget(const fs::path& folder, const Content& content, TorchFile file) : c_(content.model.hidden_size), order_(known_elsewhere(content)) {
        const std::string prefix = prefix_of(content.model.family);
        const Naming naming = naming_with(prefix);
        TensorList list;
        bool head = false;
        for (const Weight& weight : order_) {
            if (weight.role == Role::head_dense) {
                head = true;
                list.emplace_back(dense_weight, Dims{c_, c_});
                list.emplace_back(dense_bias, Dims{c_});
                list.emplace_back(out_weight, Dims{weight.rows, c_});
            } else if (weight.role == Role::head_bias) {
                list.emplace_back(out_bias, Dims{weight.rows});
            } else {
                list.emplace_back(naming(weight).name, naming(weight).dims);
            }
        }
        write_beside(folder, content);
        write_text(folder / "config.json", json::pretty(hf_config(content.model, count_tokens(content.vocab), head ? &*content.task : nullptr)));
        write_text(folder / "tokenizer_config.json", json::pretty(tokenizer_config()));
        write_text(folder / "special_tokens_map.json", json::pretty(special_tokens()));
        // Readers of safetensors tie the decoder themselves, as they do where save_pretrained wrote the file; the older file names it.
        const std::vector<std::pair<std::string, std::string>> tied = {{decoder, prefix + "embeddings.word_embeddings.weight"}};
        if (file == TorchFile::safetensors) writer_ = write_safetensors(folder / "model.safetensors", list);
        else writer_ = write_torch(folder / "pytorch_model.bin", list, head ? decltype(tied){} : tied);
    }
    std::vector<Weight> order() const override { return order_; }
    void write(const Weight& weight, const float* data) override {
        if (weight.role == Role::head_dense) write_head(weight.rows, data);
        else writer_->write(data);
    }
    void finish() override { writer_->finish(); }

private:
    void write_head(std::int64_t outputs, const float* data) {
        std::vector<float> dense(static_cast<std::size_t>(c_ * c_)), out(static_cast<std::size_t>(outputs * c_));
        for (std::int64_t i = 0; i < outputs; ++i) {
            for (std::int64_t j = 0; j < c_; ++j) {
                dense[static_cast<std::size_t>(2 * i * c_ + j)] = data[i * c_ + j];
                dense[static_cast<std::size_t>((2 * i + 1) * c_ + j)] = -data[i * c_ + j];
            }
            out[static_cast<std::size_t>(i * c_ + 2 * i)] = 1;
            out[static_cast<std::size_t>(i * c_ + 2 * i + 1)] = -1;
        }
        writer_->write(dense.data());
        writer_->write(std::vector<float>(static_cast<std::size_t>(c_)).data());
        writer_->write(out.data());
    }

    std::int64_t c_;
    std::vector<Weight> order_;
    std::unique_ptr<TensorWriter> writer_;
};

}  // namespace

std::unique_ptr<Origin> open_hf(const fs::path& path, const OriginOptions& options) { return std::make_unique<HfOrigin>(find_file(path), options); }
std::unique_ptr<Target> make_hf(const fs::path& out, const Content& content, TorchFile file) { return std::make_unique<HfTarget>(out, content, file); }

}  // namespace rf::convert
