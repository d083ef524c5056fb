#include "convert/convert.hpp"

#include "io/files.hpp"
#include "io/prefetcher.hpp"

#include <algorithm>
#include <map>
#include <mutex>

namespace rf::convert {

namespace fs = std::filesystem;

namespace {

std::unique_ptr<Origin> open_origin(Format format, const fs::path& path, const OriginOptions& options) {
    switch (format) {
        case Format::rf: break;
        case Format::hf: return open_hf(path, options);
        case Format::tf: return open_tf(path, options);
        case Format::keras: return open_keras(path, options);
    }
    return open_rf(path);
}

std::unique_ptr<Target> make_target(const ConvertOptions& options, const fs::path& out, const Content& content) {
    switch (options.to) {
        case Format::rf: break;
        case Format::hf: return make_hf(out, content, options.torch_file);
        case Format::tf: return make_tf(out, content);
        case Format::keras: return make_keras(out, content);
    }
    return make_rf(out, content);
}

/// A folder is written, but for Keras under a name of weight files.
bool is_folder(const ConvertOptions& options) {
    const std::string ending = options.out.extension().string();
    return options.to != Format::keras || (ending != ".h5" && ending != ".hdf5" && ending != ".weights");
}

/// `<out>.partial`, gone again unless it was given its name.
class Partial {
public:
    Partial(const fs::path& out, bool folder) : out_(out), path_(out.string() + ".partial") {
        fs::remove_all(path_);  // what a killed run left
        std::error_code error;
        if (folder && !fs::create_directory(path_, error)) fail_usage(path_.string(), ": cannot be made (", error.message(), ")");
    }
    ~Partial() {
        std::error_code ignored;
        if (!published_) fs::remove_all(path_, ignored);
    }
    Partial(const Partial&) = delete;
    Partial& operator=(const Partial&) = delete;
    const fs::path& path() const { return path_; }
    void publish() {
        if (fs::is_directory(path_))
            for (const auto& entry : fs::directory_iterator(path_)) sync_path(entry.path());
        sync_path(path_);
        // Somebody may have made it meanwhile, and a rename would put a file in its place.
        if (fs::exists(out_)) fail_usage(out_.string(), ": exists already (made while the conversion ran); nothing was overwritten");
        rename_durably(path_, out_);
        published_ = true;
    }

private:
    fs::path out_, path_;
    bool published_ = false;
};

fs::path clean(fs::path path) {
    path = path.lexically_normal();
    return path.has_filename() ? path : path.parent_path();
}

void check_output(const fs::path& out) {
    if (out.empty() || !out.has_filename()) fail_usage("OUT: expected a new path, found \"", out.string(), "\"");
    if (fs::exists(out)) fail_usage(out.string(), ": exists already; convert overwrites nothing, choose another name or remove it");
    const fs::path parent = out.parent_path();
    if (!parent.empty() && !fs::is_directory(parent)) fail_usage(parent.string(), ": is no folder; OUT is made in one that exists");
}

/// What the other format cannot hold, refused or left out, with a word to the user.
void fit_content(const ConvertOptions& options, Content& content, std::vector<std::string>& notes) {
    if (options.to == Format::rf) return;
    if (content.model.residual_mode == "rezero")
        fail_usage(options.in.string(), ": a model of residual mode \"rezero\" (its branches have trained scales and no norm, which only rf holds)");
    if (content.alpha != 1)
        notes.push_back(options.alpha == AlphaRule::fold
                            ? message("the residual weight ", content.alpha, " is multiplied into the last matrix of each branch")
                            : message("warning: this checkpoint computes with a residual weight of ", content.alpha, " (its schedule had not ended), other programs with 1; "
                                      "--alpha fold multiplies it into the matrices"));
    if (options.to != Format::hf) return;
    const auto wide = std::find_if(content.weights.begin(), content.weights.end(),
                                   [](const Weight& weight) { return weight.role == Role::head_dense && 2 * weight.rows > weight.columns; });
    if (wide == content.weights.end()) return;
    notes.push_back(message("warning: the head is left out: ", wide->rows, " outputs are more than half of the ", wide->columns, " units of the package's classifier"));
    content.task.reset();
    std::erase_if(content.weights, [](const Weight& weight) { return weight.of_head(); });
}

/// Digest of every weight that was written, by its name.
using Digests = std::map<std::string, std::string>;

std::string digest_of(const std::vector<float>& data) { return digest(data.data(), static_cast<std::int64_t>(data.size() * sizeof(float))); }

/// A weight's numbers on their way; of the one behind the last there is nothing.
using Numbers = std::vector<float>;

/// Memory that was used before is taken again: pages that are new to the process cost more than what is read into them.
class Spare {
public:
    Numbers take() {
        const std::lock_guard hold(mutex_);
        if (spare_.empty()) return {};
        Numbers numbers = std::move(spare_.back());
        spare_.pop_back();
        return numbers;
    }
    void give(Numbers numbers) {
        const std::lock_guard hold(mutex_);
        spare_.push_back(std::move(numbers));
    }

private:
    std::mutex mutex_;
    std::vector<Numbers> spare_;
};

/// The weights in this order, each read on a thread while the one before it is worked on.
Prefetcher<Numbers> read_ahead(Origin& origin, const std::vector<Weight>& order, Spare& spare) {
    return Prefetcher<Numbers>(
        [&](std::int64_t n) {
            if (n >= static_cast<std::int64_t>(order.size())) return Numbers();
            Numbers data = spare.take();
            const Weight& weight = order[static_cast<std::size_t>(n)];
            data.resize(static_cast<std::size_t>(weight.count()));
            origin.read(weight, data.data());
            return data;
        },
        0);
}

Digests write_all(Origin& origin, Target& target, double scale) {
    Digests digests;
    const std::vector<Weight> order = target.order();
    Spare spare;
    Prefetcher<Numbers> numbers = read_ahead(origin, order, spare);
    for (const Weight& weight : order) {
        Numbers data = numbers.next();
        if (scale != 1 && (weight.role == Role::attention_output || weight.role == Role::down))
            for (float& x : data) x = static_cast<float>(x * scale);
        digests[weight.name()] = digest_of(data);
        target.write(weight, data.data());
        spare.give(std::move(data));
    }
    target.finish();
    return digests;
}

void verify(Origin& written, const Content& content, Digests digests, const fs::path& path) {
    const Content& found = written.content();
    if (found.model.num_attention_heads != content.model.num_attention_heads || found.model.norm_epsilon != content.model.norm_epsilon || found.vocab != content.vocab)
        fail(path.string(), ": the model read back is not the one that was written");
    Spare spare;
    Prefetcher<Numbers> numbers = read_ahead(written, found.weights, spare);
    for (const Weight& weight : found.weights) {
        Numbers data = numbers.next();
        const auto expected = digests.find(weight.name());
        if (expected == digests.end() || expected->second != digest_of(data)) fail(path.string(), ": tensor ", weight.name(), " read back differs from what was written");
        digests.erase(expected);
        spare.give(std::move(data));
    }
    if (!digests.empty()) fail(path.string(), ": tensor ", digests.begin()->first, " was written and is not there");
}

}  // namespace

Converted convert(const ConvertOptions& given) {
    ConvertOptions options = given;
    options.out = clean(options.out);
    check_output(options.out);
    if (!fs::exists(options.in) && options.from != Format::tf) fail_usage(options.in.string(), ": does not exist");
    const std::unique_ptr<Origin> origin = open_origin(options.from, clean(options.in), options.origin);
    Content content = origin->content();
    Converted result;
    result.notes = content.left_out;
    fit_content(options, content, result.notes);
    Partial partial(options.out, is_folder(options));
    Digests digests;
    {
        const std::unique_ptr<Target> target = make_target(options, partial.path(), content);
        for (const Weight& weight : target->order()) {
            ++result.tensors;
            result.parameters += weight.count();
        }
        const bool fold = options.to != Format::rf && options.alpha == AlphaRule::fold;
        digests = write_all(*origin, *target, fold ? content.alpha : 1);
    }
    verify(*open_origin(options.to, partial.path(), {}), content, std::move(digests), partial.path());
    partial.publish();
    return result;
}

}  // namespace rf::convert
