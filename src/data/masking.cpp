#include "data/masking.hpp"

#include "core/philox.hpp"

#include <algorithm>

namespace rf {

std::int64_t example_length(const Corpus::Document& document, std::int64_t max_length) {
    return std::min(static_cast<std::int64_t>(document.tokens.size()), max_length - 2) + 2;
}

namespace {

PhiloxCounter draw(std::uint64_t seed, Purpose purpose, std::uint64_t sample, std::uint32_t index) {
    return philox({index, static_cast<std::uint32_t>(sample), static_cast<std::uint32_t>(sample >> 32), philox_stream(purpose, 0)},
                  philox_key(seed));
}

/// Uniform in [0, n) by multiplication; the bias is below n / 2^32.
std::int64_t below(std::uint32_t bits, std::int64_t n) { return static_cast<std::int64_t>((std::uint64_t{bits} * static_cast<std::uint64_t>(n)) >> 32); }

/// First token of the window: the head, or a word start such that the window stays full where it can.
std::int64_t window_begin(const Corpus::Document& document, std::int64_t length, Window window, std::uint64_t seed, std::uint64_t sample) {
    const std::int64_t spare = static_cast<std::int64_t>(document.tokens.size()) - length;
    if (window == Window::head || spare <= 0) return 0;
    std::int64_t begin = below(draw(seed, Purpose::window, sample, 0)[0], spare + 1);
    while (begin > 0 && !document.starts_word(begin)) --begin;
    return begin;
}

}  // namespace

void make_example(const Corpus::Document& document, std::int64_t max_length, Window window, const Masking& masking,
                  const SpecialIds& special, std::int64_t vocab_size, std::uint64_t seed, std::uint64_t sample, Example& out) {
    const std::int64_t length = example_length(document, max_length) - 2;
    const std::int64_t begin = window_begin(document, length, window, seed, sample);
    out.ids.assign(1, special.cls);
    out.rows.clear();
    out.targets.clear();
    std::uint32_t word = 0;
    double r = 1;
    for (std::int64_t t = 0; t < length; ++t) {
        const std::int32_t id = document.tokens[static_cast<std::size_t>(begin + t)];
        if (t == 0 || !masking.whole_word || document.starts_word(begin + t)) r = uniform(draw(seed, Purpose::mask, sample, word++)[0]);
        std::int32_t seen = id;
        if (r < masking.mask + masking.keep + masking.random) {
            out.rows.push_back(static_cast<std::int32_t>(t + 1));
            out.targets.push_back(id);
            if (r < masking.mask)
                seen = special.mask;
            else if (r >= masking.mask + masking.keep)
                seen = static_cast<std::int32_t>(1 + below(draw(seed, Purpose::replace, sample, static_cast<std::uint32_t>(t))[0], vocab_size - 1));
        }
        out.ids.push_back(seen);
    }
    out.ids.push_back(special.sep);
}

}  // namespace rf
