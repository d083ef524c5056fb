/// Checkpoints of TensorFlow, as RoFormerV2, its first version, BERT and RoBERTa were released: a folder with bert_config.json, bert_model.ckpt.*, vocab.txt.

#include "convert/named_weights.hpp"
#include "convert/tf_bundle.hpp"

#include <algorithm>

namespace rf::convert {

namespace fs = std::filesystem;

namespace {

constexpr const char* stem = "bert_model.ckpt";

/// The path of a checkpoint's files without their endings, from a folder, one of the files or that path itself.
fs::path find_prefix(const fs::path& given) {
    if (!fs::is_directory(given)) {
        std::string text = given.string();
        for (const char* ending : {".index", ".meta"})
            if (text.ends_with(ending)) text.resize(text.size() - std::string_view(ending).size());
        if (const std::size_t data = text.rfind(".data-"); data != std::string::npos) text.resize(data);
        if (!fs::exists(text + ".index")) fail_usage(given.string(), ": no checkpoint of TensorFlow (", text, ".index does not exist)");
        return text;
    }
    std::vector<fs::path> found;
    for (const auto& entry : fs::directory_iterator(given))
        if (entry.path().extension() == ".index") found.push_back(entry.path());
    if (found.empty()) fail_usage(given.string(), ": no checkpoint of TensorFlow in this folder (no file ends in .index)");
    if (found.size() > 1) fail_usage(given.string(), ": ", found.size(), " checkpoints of TensorFlow in this folder; name one by its path without .index");
    return found.front().string().substr(0, found.front().string().size() - 6);
}

class TfOrigin final : public Origin {
public:
    TfOrigin(const fs::path& prefix, const OriginOptions& options) : reader_(read_tf_bundle(prefix)) {
        read_beside(prefix.parent_path(), {"bert_config.json", "config.json"}, options, *reader_, &tf_name, content_);
        const auto& tensors = reader_->tensors();
        std::optional<HeadShape> head;
        if (const auto dense = tensors.find("output_weights"); content_.task && dense != tensors.end() && !dense->second.dims.empty())
            head = {content_.task->name(), dense->second.dims[0]};
        else content_.task.reset();
        content_.weights = weights_of(content_.model, head);
        check_tensors(*reader_, content_, &tf_name, [&](const std::string& name) { return judge(name); }, content_);
    }
    void read(const Weight& weight, float* out, std::vector<float>& scratch) const override { read_named(*reader_, tf_name(weight), weight, scratch, out); }

private:
    /// Slots of an optimizer (a variable's name and another after it) and counters are no weights.
    Extra judge(const std::string& name) const {
        if (name == "output_weights" || name == "output_bias") return Extra::left_out;
        for (const char* counter : {"global_step", "_CHECKPOINTABLE_OBJECT_GRAPH", "beta1_power", "beta2_power", "save_counter"})
            if (name.starts_with(counter)) return Extra::known;
        if (content_.model.family != "roformer_v2" && (name.starts_with("bert/pooler/") || name.starts_with("cls/seq_relationship/"))) return Extra::left_out;
        for (const Weight& weight : content_.weights)
            if (name.starts_with(tf_name(weight).name + "/")) return Extra::known;
        return Extra::refused;
    }

    std::unique_ptr<TensorReader> reader_;
};

class TfTarget final : public Target {
public:
    TfTarget(const fs::path& folder, const Content& content) : order_(known_elsewhere(content)) {
        std::sort(order_.begin(), order_.end(), [](const Weight& a, const Weight& b) { return tf_name(a).name < tf_name(b).name; });
        write_beside(folder, content);
        write_text(folder / "bert_config.json", json::pretty(bert_config(content.model, count_tokens(content.vocab))));
        write_text(folder / "checkpoint", message("model_checkpoint_path: \"", stem, "\"\nall_model_checkpoint_paths: \"", stem, "\"\n"));
        writer_ = write_tf_bundle(folder / stem, list_of(order_, &tf_name));
    }
    std::vector<Weight> order() const override { return order_; }
    const float* arrange(const Weight& weight, const float* data, std::vector<float>& scratch) const override { return arrange_named(tf_name(weight), weight, data, scratch); }
    void write(const Weight&, const float* arranged) override { writer_->write(arranged); }
    void finish() override { writer_->finish(); }

private:
    std::vector<Weight> order_;
    std::unique_ptr<TensorWriter> writer_;
};

}  // namespace

std::unique_ptr<Origin> open_tf(const fs::path& path, const OriginOptions& options) { return std::make_unique<TfOrigin>(find_prefix(path), options); }
std::unique_ptr<Target> make_tf(const fs::path& out, const Content& content) { return std::make_unique<TfTarget>(out, content); }

}  // namespace rf::convert
