#pragma once
/// Which documents say nearly the same: MinHash (Broder, "On the resemblance and containment of documents", SEQUENCES 1997) over
/// character n-grams, with one permutation (Li, Owen & Zhang, "One permutation hashing", NIPS 2012) whose empty bins are filled as
/// Shrivastava ("Optimal densification for fast and accurate minwise hashing", ICML 2017) does, looked up by bands (Indyk & Motwani, STOC 1998).

#include <boost/describe.hpp>

#include <cstdint>
#include <string_view>
#include <vector>

namespace rf {

struct NearDuplicateInput {
    bool drop = false;
    std::int64_t characters = 5;  ///< of one n-gram; white space does not count
    /// A document goes when all `rows` minima of one of its `bands` equal those of a document before it that stayed. Of pairs
    /// whose n-gram sets have Jaccard similarity s, 1 - (1 - s^rows)^bands are found: 5 % at 0.5, 56 % at 0.7, 92 % at 0.8, 99.96 % at 0.9.
    std::int64_t bands = 14;
    std::int64_t rows = 8;
};
BOOST_DESCRIBE_STRUCT(NearDuplicateInput, (), (drop, characters, bands, rows))

/// One key a band: [bands]. A pure function of the text.
std::vector<std::uint64_t> band_keys(std::u32string_view text, const NearDuplicateInput& input);

}  // namespace rf
