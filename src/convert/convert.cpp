#include "convert/convert.hpp"

#include "core/cpu.hpp"
#include "io/files.hpp"
#include "io/prefetcher.hpp"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <future>
#include <map>
#include <mutex>
#include <span>
#include <thread>

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
    const bool v2 = content.model.family == "roformer_v2";
    if (options.to == Format::keras && !v2) fail_usage(options.in.string(), ": family ", content.model.family, ": keras-h5 is written of RoFormerV2 only; hf and tf hold it");
    if (options.to != Format::hf) return;
    if (!v2 && std::ranges::any_of(content.weights, &Weight::of_head)) {
        notes.push_back("warning: the head is left out: the packages' classifiers for this family have another layer before it");
        content.task.reset();
        std::erase_if(content.weights, [](const Weight& weight) { return weight.of_head(); });
    }
    const auto wide = std::find_if(content.weights.begin(), content.weights.end(),
                                   [](const Weight& weight) { return weight.role == Role::head_dense && 2 * weight.rows > weight.columns; });
    if (wide == content.weights.end()) return;
    notes.push_back(message("warning: the head is left out: ", wide->rows, " outputs are more than half of the ", wide->columns, " units of the package's classifier"));
    content.task.reset();
    std::erase_if(content.weights, [](const Weight& weight) { return weight.of_head(); });
}

/// Digest of every weight that was written, by its name.
using Digests = std::map<std::string, std::string>;

/// A weight on its way, in memory that is kept for the next one: pages that are new to the process cost more than what is read into them.
struct Load {
    std::vector<float> numbers, scratch;
    const float* arranged = nullptr;  ///< as the target stores them
    std::string digest;

    void read(const Origin& origin, const Weight& weight) {
        if (const auto count = static_cast<std::size_t>(weight.count()); numbers.size() < count) numbers.resize(count);
        origin.read(weight, numbers.data(), scratch);
    }
    void take_digest(const Weight& weight) { digest = rf::digest(numbers.data(), weight.count() * static_cast<std::int64_t>(sizeof(float))); }
};

/// Loads that were used before, to be taken again.
class Spare {
public:
    Load take() {
        const std::lock_guard hold(mutex_);
        if (spare_.empty()) return {};
        Load load = std::move(spare_.back());
        spare_.pop_back();
        return load;
    }
    void give(Load load) {
        const std::lock_guard hold(mutex_);
        spare_.push_back(std::move(load));
    }

private:
    std::mutex mutex_;
    std::vector<Load> spare_;
};

/// Flushes what is written while the rest is made and read back, on a thread of its own. A disk's own cache is emptied by a flush only, which for a
/// whole model at once takes longer than writing it.
class Flusher {
public:
    /// `path`: the file, or the folder of files.
    explicit Flusher(fs::path path) : path_(std::move(path)), thread_([this] { work(); }) {}
    ~Flusher() { end(); }
    Flusher(const Flusher&) = delete;
    Flusher& operator=(const Flusher&) = delete;

    void wrote(std::int64_t bytes) {
        const std::lock_guard hold(mutex_);
        waiting_ += bytes;
        changed_.notify_all();
    }
    /// Nothing more is to come: begins with the rest.
    void wrote_all() { wrote(piece); }
    /// Waits; errors of the thread come out here.
    void finish() {
        end();
        if (error_) std::rethrow_exception(error_);
    }

private:
    static constexpr std::int64_t piece = 32 << 20;

    void end() {
        {
            const std::lock_guard hold(mutex_);
            ended_ = true;
        }
        changed_.notify_all();
        if (thread_.joinable()) thread_.join();
    }
    void work() {
        try {
            while (true) {
                std::unique_lock hold(mutex_);
                changed_.wait(hold, [this] { return ended_ || waiting_ >= piece; });
                if (waiting_ < piece) return;
                waiting_ = 0;
                hold.unlock();
                flush();
            }
        } catch (...) {
            error_ = std::current_exception();
        }
    }
    /// Small files come at the end: some of them have passing names.
    void flush() const {
        constexpr std::uintmax_t small = 1 << 20;
        if (!fs::is_directory(path_)) return sync_path(path_);
        std::error_code gone;
        for (const auto& entry : fs::directory_iterator(path_))
            if (const std::uintmax_t size = entry.file_size(gone); !gone && size >= small) sync_path(entry.path());
    }

    fs::path path_;
    std::mutex mutex_;
    std::condition_variable changed_;
    std::int64_t waiting_ = 0;
    bool ended_ = false;
    std::exception_ptr error_;
    std::thread thread_;
};

/// The numbers are read, digested and arranged on a thread while those of the weight before are written.
Digests write_all(const Origin& origin, Target& target, double scale, Spare& spare, Flusher& flusher) {
    Digests digests;
    const std::vector<Weight> order = target.order();
    const auto make = [&](std::int64_t n) {
        if (n >= static_cast<std::int64_t>(order.size())) return Load();  // nobody takes what is behind the last
        const Weight& weight = order[static_cast<std::size_t>(n)];
        Load load = spare.take();
        load.read(origin, weight);
        if (scale != 1 && weight.ends_branch())
            for (float& x : std::span(load.numbers).first(static_cast<std::size_t>(weight.count()))) x = static_cast<float>(x * scale);
        load.take_digest(weight);
        load.arranged = target.arrange(weight, load.numbers.data(), load.scratch);
        return load;
    };
    Prefetcher<Load> loads(make, 0);
    for (const Weight& weight : order) {
        Load load = loads.next();
        target.write(weight, load.arranged);
        flusher.wrote(weight.count() * static_cast<std::int64_t>(sizeof(float)));
        digests[weight.name()] = std::move(load.digest);
        spare.give(std::move(load));
    }
    target.finish();
    return digests;
}

/// Calls work(n, load) for every n below `count`, on a few threads: each has a load of its own, which bounds the memory, and one core reads no
/// faster than a few gigabytes a second.
template <class Work>
void on_threads(std::int64_t count, Spare& spare, Work work) {
    std::atomic<std::int64_t> next = 0;
    std::vector<std::future<void>> threads;
    for (int t = 0; t < std::min(cpu_count(), 4); ++t)
        threads.push_back(std::async(std::launch::async, [&] {
            Load load = spare.take();
            for (std::int64_t n = next++; n < count; n = next++) work(n, load);
        }));
    for (std::future<void>& thread : threads) thread.wait();
    for (std::future<void>& thread : threads) thread.get();
}

void verify(const Origin& written, const Content& content, const Digests& digests, Spare& spare, const fs::path& path) {
    const Content& found = written.content();
    if (found.model.num_attention_heads != content.model.num_attention_heads || found.model.norm_epsilon != content.model.norm_epsilon || found.model.family != content.model.family || found.vocab != content.vocab)
        fail(path.string(), ": the model read back is not the one that was written");
    Digests missing = digests;
    for (const Weight& weight : found.weights) missing.erase(weight.name());
    if (!missing.empty()) fail(path.string(), ": tensor ", missing.begin()->first, " was written and is not there");
    on_threads(static_cast<std::int64_t>(found.weights.size()), spare, [&](std::int64_t n, Load& load) {
        const Weight& weight = found.weights[static_cast<std::size_t>(n)];
        load.read(written, weight);
        load.take_digest(weight);
        const auto expected = digests.find(weight.name());
        if (expected == digests.end() || expected->second != load.digest) fail(path.string(), ": tensor ", weight.name(), " read back differs from what was written");
    });
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
    std::unique_ptr<Target> target = make_target(options, partial.path(), content);
    for (const Weight& weight : target->order()) {
        ++result.tensors;
        result.parameters += weight.count();
    }
    const bool fold = options.to != Format::rf && options.alpha == AlphaRule::fold;
    Spare spare;
    Flusher flusher(partial.path());
    const Digests digests = write_all(*origin, *target, fold ? content.alpha : 1, spare, flusher);
    target.reset();
    flusher.wrote_all();
    verify(*open_origin(options.to, partial.path(), {.family = content.model.family}), content, digests, spare, partial.path());
    flusher.finish();
    partial.publish();
    return result;
}

}  // namespace rf::convert
