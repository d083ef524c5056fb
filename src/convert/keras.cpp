/// Weight files of Keras, as bert4keras saves and loads them: a file, or a folder with bert_config.json, vocab.txt and the file.

#include "convert/keras_file.hpp"
#include "convert/named_weights.hpp"
#include "io/files.hpp"

#include <algorithm>

namespace rf::convert {

namespace fs = std::filesystem;

namespace {

constexpr const char* file_name = "roformer.v2.weights";  // as bert4keras' training script of RoFormerV2 names it
// Attributes beside the weights that let a file alone be read back; Keras does not look at them.
constexpr const char* note_config = "roformer_config";
constexpr const char* note_vocab = "roformer_vocab";
constexpr const char* note_task = "roformer_task";

fs::path find_file(const fs::path& given) {
    if (!fs::is_directory(given)) {
        if (!fs::exists(given)) fail_usage(given.string(), ": does not exist");
        return given;
    }
    if (fs::exists(given / file_name)) return given / file_name;
    std::vector<fs::path> found;
    for (const auto& entry : fs::directory_iterator(given))
        for (const char* ending : {".h5", ".hdf5", ".weights"})
            if (entry.path().extension() == ending) found.push_back(entry.path());
    if (found.size() != 1) fail_usage(given.string(), ": ", found.empty() ? "no" : "more than one", " weight file of Keras in this folder (.h5, .hdf5 or .weights); name the file");
    return found.front();
}

class KerasOrigin final : public Origin {
public:
    KerasOrigin(const fs::path& path, const OriginOptions& options) : reader_(read_keras(path)) {
        const std::string config = reader_->note(note_config);
        if (options.config.empty() && !config.empty()) read_notes(config, options);
        else read_beside(path.parent_path(), {"bert_config.json", "config.json"}, options, *reader_, &keras_name, content_);
        std::optional<HeadShape> head;
        // A layer behind the encoder with a matrix and a bias; its name depends on how many were made before it.
        for (const auto& [name, info] : reader_->tensors())
            if (content_.task && name.starts_with("dense") && name.ends_with("[0]") && info.dims.size() == 2) {
                head_layer_ = name.substr(0, name.size() - 3);
                head = {content_.task->name(), info.dims[1]};
            }
        if (!head) content_.task.reset();
        content_.weights = weights_of(content_.model, head);
        check_tensors(*reader_, content_, naming(), [&](const std::string& name) { return judge(name); }, content_);
    }
    void read(const Weight& weight, float* out, std::vector<float>& scratch) const override { read_named(*reader_, naming()(weight), weight, scratch, out); }

private:
    void read_notes(const std::string& config, const OriginOptions& options) {
        const std::string place = reader_->name() + ": " + note_config;
        const ForeignConfig foreign = read_config(json::parse(config, place), place, "roformer_v2");
        content_.model = foreign.model;
        content_.vocab = reader_->note(note_vocab);
        if (!options.vocab.empty()) content_.vocab = read_file(options.vocab);
        check_vocabulary(content_.vocab, options.vocab.empty() ? reader_->name() + ": " + note_vocab : options.vocab, foreign);
        if (const std::string task = reader_->note(note_task); !task.empty()) {
            const std::string task_place = reader_->name() + ": " + note_task;
            content_.task = read_task_note(json::parse(task, task_place), {task_place, ""});
        }
    }

    Naming naming() const {
        return [layer = head_layer_](const Weight& weight) {
            Foreign foreign = keras_name(weight);
            if (weight.of_head()) foreign.name.replace(0, foreign.name.find('['), layer);
            return foreign;
        };
    }

    /// Layers behind the encoder may be anything; those of an encoder must be its own.
    static Extra judge(const std::string& name) {
        for (const char* part : {"Embedding-", "Transformer-", "MLM-", "NSP-", "Pooler"})
            if (name.starts_with(part)) return Extra::refused;
        return Extra::left_out;
    }

    std::unique_ptr<KerasReader> reader_;
    std::string head_layer_ = "dense";
};

class KerasTarget final : public Target {
public:
    KerasTarget(const fs::path& out, const Content& content) : order_(known_elsewhere(content)) {
        const json::value config = bert_config(content.model, count_tokens(content.vocab));
        std::map<std::string, std::string> notes = {{note_config, boost::json::serialize(config)}, {note_vocab, content.vocab}};
        if (content.task) notes[note_task] = boost::json::serialize(convert::write(*content.task));
        const bool folder = fs::is_directory(out);
        if (folder) {
            write_beside(out, content);
            write_text(out / "bert_config.json", json::pretty(config));
        }
        TensorList list;
        for (const Weight& weight : order_) list.emplace_back(keras_path(weight), keras_name(weight).dims);
        writer_ = write_keras(folder ? out / file_name : out, list, notes);
    }
    std::vector<Weight> order() const override { return order_; }
    const float* arrange(const Weight& weight, const float* data, std::vector<float>& scratch) const override { return arrange_named(keras_name(weight), weight, data, scratch); }
    void write(const Weight&, const float* arranged) override { writer_->write(arranged); }
    void finish() override { writer_->finish(); }

private:
    std::vector<Weight> order_;
    std::unique_ptr<TensorWriter> writer_;
};

}  // namespace

std::unique_ptr<Origin> open_keras(const fs::path& path, const OriginOptions& options) { return std::make_unique<KerasOrigin>(find_file(path), options); }
std::unique_ptr<Target> make_keras(const fs::path& out, const Content& content) { return std::make_unique<KerasTarget>(out, content); }

}  // namespace rf::convert
