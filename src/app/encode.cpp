#include "app/loaded_model.hpp"
#include "core/log.hpp"
#include "io/files.hpp"
#include "io/hdf5.hpp"
#include "io/schema.hpp"

#include <chrono>
#include <cmath>
#include <filesystem>
#include <future>
#include <iostream>
#include <memory>

namespace rf::app {

namespace {

/// Tokens of one packed batch. The last bits of a product may depend on its shape, so batches are cut from the lines alone
/// and dealt whole: any number of ranks writes the same file.
constexpr std::int64_t batch_tokens = 2048;

Example encode_line(const LoadedModel& loaded, const std::string& line, std::size_t number) {
    Example example;
    example.ids.push_back(loaded.vocab().cls());
    try {
        loaded.tokenizer().encode(decode_utf8(line), example.ids);
    } catch (const Error& e) {
        fail_usage("standard input, line ", number + 1, ": ", e.what());
    }
    example.ids.resize(std::min(example.ids.size(), static_cast<std::size_t>(loaded.longest_line()) - 1));
    example.ids.push_back(loaded.vocab().sep());
    return example;
}

/// The file of hidden states, written as they come and beside what comes next; it has its name only when it is whole.
class HiddenFile {
public:
    HiddenFile(std::string out, const std::vector<std::int64_t>& offsets, std::int64_t c) : out_(std::move(out)), partial_(out_ + ".partial"), c_(c) {
        const auto hold = h5::lock();
        file_ = h5::create_file(partial_);
        h5::set_attribute(file_, schema::kind, schema::kind_hidden);
        h5::set_attribute(file_, schema::version, std::int64_t{1});
        h5::write_vector(file_, "offsets", offsets, {"tokens", "first token of each line [lines + 1]"});
        rows_ = std::make_unique<h5::RowWriter>(file_, "hidden", H5T_NATIVE_FLOAT, Shape{offsets.back(), c},
                                                h5::Info{"1", "last hidden states [tokens, C], [CLS] and [SEP] included"});
    }
    ~HiddenFile() {
        if (writing_.valid()) writing_.wait();
        const auto hold = h5::lock();
        rows_.reset();
        file_.close();
        std::error_code ignored;
        if (!finished_) std::filesystem::remove(partial_, ignored);
    }
    HiddenFile(const HiddenFile&) = delete;
    HiddenFile& operator=(const HiddenFile&) = delete;

    /// What went wrong with the states before is thrown here, or by `finish`.
    void add(std::vector<float> hidden) {
        if (writing_.valid()) writing_.get();
        writing_ = std::async(std::launch::async, [this, hidden = std::move(hidden)] { write(hidden); });
    }
    void finish() {
        if (writing_.valid()) writing_.get();
        {
            const auto hold = h5::lock();
            rows_.reset();
            h5::close_file(file_, partial_);
        }
        sync_path(partial_);
        rename_durably(partial_, out_);
        finished_ = true;
    }

private:
    void write(const std::vector<float>& hidden) {
        const auto hold = h5::lock();
        rows_->add(hidden.data(), static_cast<std::int64_t>(hidden.size()) / c_);
        // A full disk is met now rather than at the end.
        constexpr std::int64_t flushed_bytes = 256 << 20;
        unflushed_ += static_cast<std::int64_t>(hidden.size() * sizeof(float));
        if (unflushed_ < flushed_bytes) return;
        h5::flush_file(file_, partial_);
        unflushed_ = 0;
    }

    std::string out_, partial_;
    std::int64_t c_, unflushed_ = 0;
    h5::File file_;
    std::unique_ptr<h5::RowWriter> rows_;
    std::future<void> writing_;
    bool finished_ = false;
};

}  // namespace

int run_encode(const Invocation& invocation, World& world) {
    const std::string out = invocation.need("out");
    if (const std::string trouble = trouble_on_rank_0(world.communicator(), [&] { return place_trouble(out); }); !trouble.empty()) fail_usage("--out: ", trouble);
    LoadedModel loaded(invocation, world);
    Communicator& all = world.communicator();
    const std::vector<std::string> lines = read_lines(all, std::cin);
    const std::int64_t c = loaded.model().config().hidden_size;
    std::vector<Example> examples;
    std::vector<std::int64_t> offsets{0};
    for (std::size_t i = 0; i < lines.size(); ++i) {
        examples.push_back(encode_line(loaded, lines[i], i));
        offsets.push_back(offsets.back() + static_cast<std::int64_t>(examples.back().ids.size()));
    }
    std::vector<std::size_t> batches{0};  // first line of each, and the end
    for (std::size_t i = 1; i < lines.size(); ++i)
        if (offsets[i + 1] - offsets[batches.back()] > batch_tokens) batches.push_back(i);
    batches.push_back(lines.size());
    const std::size_t count = batches.size() - 1, ranks = static_cast<std::size_t>(all.size());
    std::unique_ptr<HiddenFile> file;
    if (all.rank() == 0) file = std::make_unique<HiddenFile>(out, offsets, c);
    const auto started = std::chrono::steady_clock::now();
    // In rounds of one batch a rank, whose pieces go to rank 0 in rank order: no more is held than a round and the one being written.
    for (std::size_t first = 0; first < count; first += ranks) {
        const auto line_at = [&](std::size_t rank) { return batches[std::min(first + rank, count)]; };
        const auto rank = static_cast<std::size_t>(all.rank());
        std::vector<float> hidden, round;
        if (line_at(rank) < line_at(rank + 1)) {
            PackedBatch batch;
            batch.clear();
            for (std::size_t i = line_at(rank); i < line_at(rank + 1); ++i) batch.append(examples[i], i);
            hidden = loaded.model().encode(tasks::LaneBatch(std::move(batch)), loaded.alpha());
        }
        if (ranks == 1) {
            round = std::move(hidden);
        } else {
            std::vector<std::int64_t> send(ranks + 1, static_cast<std::int64_t>(hidden.size() * sizeof(float))), recv(ranks + 1, 0);
            send[0] = 0;
            if (rank == 0) {
                for (std::size_t r = 0; r <= ranks; ++r) recv[r] = (offsets[line_at(r)] - offsets[line_at(0)]) * c * static_cast<std::int64_t>(sizeof(float));
                round.resize(static_cast<std::size_t>(recv.back()) / sizeof(float));
            }
            Stream host;
            all.all_to_all(host, hidden.data(), send, round.data(), recv);
        }
        if (!file) continue;
        file->add(std::move(round));
        log::live(message("encoded ", line_at(ranks), " of ", lines.size(), " lines"));
    }
    if (!file) return 0;
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
    file->finish();
    log::info("encoded ", lines.size(), " lines, ", offsets.back(), " tokens in ", seconds, " s (", std::llround(static_cast<double>(offsets.back()) / std::max(seconds, 1e-9)),
              " tokens/s) -> ", out);
    return 0;
}

}  // namespace rf::app
