#include "app/loaded_model.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <iostream>
#include <numeric>

namespace rf::app {

namespace {

/// Ids of a line in which the text [MASK] stands for the mask token; the text between is tokenized as usual.
Example mask_line(const LoadedModel& loaded, const std::string& line, std::size_t number) {
    constexpr std::string_view mark = "[MASK]";
    Example example;
    example.ids.push_back(loaded.vocab().cls());
    try {
        for (std::size_t at = 0;;) {
            const std::size_t mask = line.find(mark, at);
            loaded.tokenizer().encode(decode_utf8(std::string_view(line).substr(at, mask == std::string::npos ? mask : mask - at)), example.ids);
            if (mask == std::string::npos) break;
            example.rows.push_back(static_cast<std::int32_t>(example.ids.size()));
            example.targets.push_back(loaded.vocab().mask());
            example.ids.push_back(loaded.vocab().mask());
            at = mask + mark.size();
        }
    } catch (const Error& e) {
        fail_usage("standard input, line ", number + 1, ": ", e.what());
    }
    example.ids.push_back(loaded.vocab().sep());
    if (example.ids.size() > static_cast<std::size_t>(loaded.longest_line()))
        fail_usage("standard input, line ", number + 1, ": ", example.ids.size(), " tokens, at most ", loaded.longest_line(), " fit");
    if (example.rows.empty()) fail_usage("standard input, line ", number + 1, ": holds no [MASK]");
    return example;
}

void print_candidates(const LoadedModel& loaded, const float* logits, std::int64_t top) {
    const std::int64_t v = std::min(loaded.vocab().size(), static_cast<std::int64_t>(65536));
    std::vector<std::int32_t> order(static_cast<std::size_t>(v));
    std::iota(order.begin(), order.end(), 0);
    const auto more = [&](std::int32_t a, std::int32_t b) { return logits[a] != logits[b] ? logits[a] > logits[b] : a < b; };
    std::partial_sort(order.begin(), order.begin() + top, order.end(), more);
    double sum = 0;
    for (std::int64_t i = 0; i < v; ++i) sum += std::exp(static_cast<double>(logits[i]) - logits[order[0]]);
    for (std::int64_t k = 0; k < top; ++k) {
        char text[32];
        std::snprintf(text, sizeof text, " %.4f", std::exp(static_cast<double>(logits[order[static_cast<std::size_t>(k)]]) - logits[order[0]]) / sum);
        std::cout << '\t' << loaded.vocab().token(order[static_cast<std::size_t>(k)]) << text;
    }
    std::cout << '\n';
}

}  // namespace

int run_fill_mask(const Invocation& invocation, World& world) {
    if (world.communicator().size() > 1) fail_usage("fill-mask runs on one rank");
    const std::string text = invocation.option("top", "5");
    std::int64_t top = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), top);
    if (error != std::errc() || end != text.data() + text.size() || top < 1) fail_usage("--top ", text, ": expected a number of candidates >= 1");
    LoadedModel loaded(invocation, world);
    if (top > loaded.vocab().size()) fail_usage("--top ", top, ": the vocabulary has ", loaded.vocab().size(), " entries");
    const std::vector<std::string> lines = read_lines(world.communicator(), std::cin);
    for (std::size_t i = 0; i < lines.size(); ++i) {
        PackedBatch batch;
        batch.clear();
        batch.append(mask_line(loaded, lines[i], i), i);
        const std::vector<float> logits = loaded.model().logits(tasks::LaneBatch(batch), loaded.alpha());
        const std::int64_t v = loaded.model().config().vocab_size;
        std::cout << lines[i] << '\n';
        for (std::size_t m = 0; m < batch.rows.size(); ++m) print_candidates(loaded, logits.data() + static_cast<std::int64_t>(m) * v, top);
    }
    return 0;
}

}  // namespace rf::app
