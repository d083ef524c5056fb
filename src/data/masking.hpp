#pragma once

#include "data/corpus.hpp"

#include <boost/describe.hpp>

#include <cstdint>
#include <vector>

namespace rf {

/// Whole-word masking (RoFormerV2's train_mlm.py): one uniform r per word decides for all its tokens.
/// r < mask: [MASK]; next `keep`: left as it is but predicted; next `random`: each token another id, uniform in 1 … V-1.
struct Masking {
    double mask = 0.12;
    double keep = 0.015;
    double random = 0.015;
    bool whole_word = true;  ///< false: every token is a word of its own
};
BOOST_DESCRIBE_STRUCT(Masking, (), (mask, keep, random, whole_word))

struct SpecialIds {
    std::int32_t cls = 101, sep = 102, mask = 103;
};

/// One training sequence, before packing.
struct Example {
    std::vector<std::int32_t> ids;      ///< [CLS] … [SEP], masked
    std::vector<std::int32_t> rows;     ///< predicted positions, rising
    std::vector<std::int32_t> targets;  ///< original ids there
};

/// Which part of a long document is read: its head (the recipe), or a window that starts at a word drawn anew each time.
enum class Window { head, random };

/// Length the example will have: min(document, max_length - 2) + 2.
std::int64_t example_length(const Corpus::Document& document, std::int64_t max_length);

/// A pure function of its arguments: `sample` keys the window and the masks.
void make_example(const Corpus::Document& document, std::int64_t max_length, Window window, const Masking& masking,
                  const SpecialIds& special, std::int64_t vocab_size, std::uint64_t seed, std::uint64_t sample, Example& out);

}  // namespace rf
