#include "app/loaded_model.hpp"
#include "core/log.hpp"
#include "io/files.hpp"
#include "io/hdf5.hpp"
#include "io/schema.hpp"

#include <chrono>
#include <cmath>
#include <iostream>
#include <numeric>

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

}  // namespace

int run_encode(const Invocation& invocation, World& world) {
    const std::string out = invocation.need("out");
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
    // Neighbouring batches of about even token counts: rank r takes the r-th run.
    const auto batch_at = [&](int r) {
        const std::int64_t token = part_begin(offsets.back(), r, all.size());
        return static_cast<std::size_t>(std::lower_bound(batches.begin(), batches.end(), token, [&](std::size_t line, std::int64_t t) { return offsets[line] < t; }) -
                                        batches.begin());
    };
    const auto line_at = [&](int r) { return batches[batch_at(r)]; };
    const std::size_t begin = line_at(all.rank()), end = line_at(all.rank() + 1);
    const auto started = std::chrono::steady_clock::now();
    std::vector<float> hidden;
    hidden.reserve(static_cast<std::size_t>((offsets[end] - offsets[begin]) * c));
    for (std::size_t b = batch_at(all.rank()); b < batch_at(all.rank() + 1); ++b) {
        PackedBatch batch;
        batch.clear();
        for (std::size_t i = batches[b]; i < batches[b + 1]; ++i) batch.append(examples[i], i);
        const std::vector<float> x = loaded.model().encode(tasks::LaneBatch(std::move(batch)), loaded.alpha());
        hidden.insert(hidden.end(), x.begin(), x.end());
        log::live(message("encoded ", batches[b + 1] - begin, " of ", end - begin, " lines"));
    }
    const double seconds = all.max(std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count());
    // Pieces go to rank 0 in rank order.
    std::vector<std::int64_t> send(static_cast<std::size_t>(all.size()) + 1, static_cast<std::int64_t>(hidden.size() * sizeof(float)));
    send[0] = 0;
    std::vector<std::int64_t> recv(static_cast<std::size_t>(all.size()) + 1, 0);
    std::vector<float> whole(all.rank() == 0 ? static_cast<std::size_t>(offsets.back() * c) : 0);
    if (all.rank() == 0)
        for (int r = 0; r <= all.size(); ++r) recv[static_cast<std::size_t>(r)] = offsets[line_at(r)] * c * static_cast<std::int64_t>(sizeof(float));
    Stream host;
    all.all_to_all(host, hidden.data(), send, whole.data(), recv);
    if (all.rank() != 0) return 0;
    const std::string partial = out + ".partial";
    {
        const auto hold = h5::lock();
        h5::File file = h5::create_file(partial);
        h5::set_attribute(file, schema::kind, schema::kind_hidden);
        h5::set_attribute(file, schema::version, std::int64_t{1});
        h5::write(file, "hidden", view(whole.data(), {offsets.back(), c}), {"1", "last hidden states [tokens, C], [CLS] and [SEP] included"});
        h5::write_vector(file, "offsets", offsets, {"tokens", "first token of each line [lines + 1]"});
        h5::close_file(file, partial);
    }
    sync_path(partial);
    rename_durably(partial, out);
    log::info("encoded ", lines.size(), " lines, ", offsets.back(), " tokens in ", seconds, " s (", std::llround(static_cast<double>(offsets.back()) / std::max(seconds, 1e-9)),
              " tokens/s) -> ", out);
    return 0;
}

}  // namespace rf::app
