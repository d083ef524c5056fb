#pragma once
/// The formats of `roformer convert`: `rf` (ours), `hf` (PyTorch's `roformer` package), `tf` (checkpoint of TensorFlow), `keras-h5`.
/// Each has an origin, which gives a model's weights one at a time in our orientation, and a target, which takes them.

#include "convert/model_files.hpp"
#include "convert/weights.hpp"

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace rf::convert {

/// All of a model but the numbers.
struct Content {
    ModelConfig model;
    std::string vocab;             ///< text of vocab.txt; empty: not known
    std::optional<TaskNote> task;  ///< of the head, where the weights have one
    std::vector<Weight> weights;
    double alpha = 1;              ///< the residual weight that its training had reached
    std::vector<std::string> left_out;  ///< what it has and the other format does not, in words
};

/// What the command line adds to an origin.
struct OriginOptions {
    std::string family = "roformer_v2";  ///< what the weights are taken for; bert, roberta and roformer have BERT's names
    std::string config;  ///< file in place of the one beside the weights
    std::string vocab;
};

class Origin {
public:
    virtual ~Origin() = default;
    const Content& content() const { return content_; }
    /// Several threads may read at once. `scratch`: a thread's own memory, kept from one weight to the next, for pages that are new to the process cost
    /// more than what is read into them.
    virtual void read(const Weight& weight, float* out, std::vector<float>& scratch) const = 0;

protected:
    Content content_;
};

/// How PyTorch's files are written.
enum class TorchFile : std::uint8_t { safetensors, zip };

class Target {
public:
    virtual ~Target() = default;
    /// The weights in the order in which they are to come.
    virtual std::vector<Weight> order() const = 0;
    /// A weight's numbers as the format orders them: `data` itself, or in `scratch`. May be called on another thread than `write`.
    virtual const float* arrange(const Weight&, const float* data, std::vector<float>& /*scratch*/) const { return data; }
    /// `arranged`: what `arrange` gave.
    virtual void write(const Weight& weight, const float* arranged) = 0;
    virtual void finish() = 0;
};

std::unique_ptr<Origin> open_rf(const std::filesystem::path& path);
std::unique_ptr<Origin> open_hf(const std::filesystem::path& path, const OriginOptions& options);
std::unique_ptr<Origin> open_tf(const std::filesystem::path& path, const OriginOptions& options);
std::unique_ptr<Origin> open_keras(const std::filesystem::path& path, const OriginOptions& options);

/// `out`: a folder that exists and is empty (keras: or a path where nothing is, for a file alone). `content` outlives the target.
std::unique_ptr<Target> make_rf(const std::filesystem::path& out, const Content& content);
std::unique_ptr<Target> make_hf(const std::filesystem::path& out, const Content& content, TorchFile file);
std::unique_ptr<Target> make_tf(const std::filesystem::path& out, const Content& content);
std::unique_ptr<Target> make_keras(const std::filesystem::path& out, const Content& content);

}  // namespace rf::convert
