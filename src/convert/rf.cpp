/// Our own checkpoints.

#include "convert/formats.hpp"
#include "train/start.hpp"

#include <algorithm>

namespace rf::convert {

namespace fs = std::filesystem;

namespace {

/// Whether a task's head is one dense layer.
bool is_dense(const TaskNote& task) {
    const std::string kind = task.kind();
    return kind == "classify" || kind == "regress" || kind == "multiple_choice" || kind == "rank";
}

class RfOrigin final : public Origin {
public:
    explicit RfOrigin(const fs::path& given) : path_(find_checkpoint(given, "IN:")), source_(path_) {
        const CheckpointMeta meta = read_checkpoint_meta(path_);
        json::read(json::parse(meta.model, path_.string()), content_.model, {path_.string(), "model"});
        content_.model.check({path_.string(), "model"});
        const std::string& family = content_.model.family;
        if (!(content_.model.style() == ModelConfig{.family = family}.style()))
            fail_usage(path_.string(), ": model: other biases, norms, activation, positions or head than family ", family, " has, which only rf holds");
        content_.vocab = meta.vocab;
        content_.alpha = saved_alpha(meta, content_.model);
        const json::value input = json::parse(meta.input, path_.string());
        if (input.is_object() && input.as_object().contains("task_file")) content_.task = read_task_note(input, {path_.string(), "input"});
        content_.weights = weights_of(content_.model, {});
        const auto stored = list_checkpoint(path_);
        for (const Weight& weight : content_.weights) {
            const auto found = std::find_if(stored.begin(), stored.end(), [&](const auto& t) { return t.first == weight.slice.name; });
            if (found == stored.end() || found->second != weight.shape) fail_usage(path_.string(), ": tensor ", weight.slice.name, " is missing or of another shape than the model's");
        }
        std::vector<std::string> heads;
        for (const auto& [name, shape] : stored)
            if (name.starts_with("task/")) add_head(name, shape, heads);
        std::string names;
        for (const std::string& head : heads) names += (names.empty() ? "" : ", ") + head;
        if (!heads.empty()) content_.left_out.push_back("heads that only rf holds: " + names);
    }

    void read(const Weight& weight, float* out, std::vector<float>&) const override { source_.read(weight.slice, out); }

private:
    void add_head(const std::string& name, const Shape& shape, std::vector<std::string>& heads) {
        if (content_.task && is_dense(*content_.task) && name == "task/" + content_.task->name() + "/dense") {
            for (Weight& weight : weights_of(content_.model, HeadShape{content_.task->name(), shape[0]}))
                if (weight.of_head()) content_.weights.push_back(std::move(weight));
            return;
        }
        for (const Weight& weight : content_.weights)
            if (weight.slice.name == name) return;
        const std::string task = name.substr(5, name.rfind('/') - 5);
        if (content_.task && is_dense(*content_.task) && task == content_.task->name()) return;  // its bias, which came with its matrix or will
        if (heads.empty() || heads.back() != task) heads.push_back(task);
        content_.weights.push_back({.rows = shape.count(), .columns = 1, .slice = {name, 0, 1}, .shape = shape});
    }

    fs::path path_;
    CheckpointSource source_;
};

class RfTarget final : public Target {
public:
    RfTarget(const fs::path& folder, const Content& content) : order_(content.weights) {
        CheckpointMeta meta;
        meta.model = json::pretty(json::write(content.model));
        meta.vocab = content.vocab;
        meta.identity = "{}";
        boost::json::object input = {{"command", "convert"}};
        if (content.task) {
            const json::value note = convert::write(*content.task);
            for (const auto& [key, value] : note.as_object()) input[key] = value;
        }
        // What a schedule said of the residual weight goes on holding.
        if (content.model.residual_mode == "alpha")
            input["schedule"] = {{"alpha", boost::json::array{boost::json::array{0, content.alpha}}}};
        meta.input = boost::json::serialize(input);
        std::string last;
        for (const Weight& weight : order_) {
            if (weight.slice.name == last) continue;
            last = weight.slice.name;
            layout_.add({.name = last, .shape = weight.shape});
        }
        sink_.emplace(folder, layout_, std::move(meta));
    }
    std::vector<Weight> order() const override { return order_; }
    void write(const Weight& weight, const float* arranged) override { sink_->write(weight.slice, arranged); }
    void finish() override { sink_->finish(); }

private:
    std::vector<Weight> order_;
    ParamLayout layout_;
    std::optional<CheckpointSink> sink_;
};

}  // namespace

std::unique_ptr<Origin> open_rf(const fs::path& path) { return std::make_unique<RfOrigin>(path); }
std::unique_ptr<Target> make_rf(const fs::path& out, const Content& content) { return std::make_unique<RfTarget>(out, content); }

}  // namespace rf::convert
