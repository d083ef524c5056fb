/// Attention on a GPU against the CPU at every length to 520: last tiles of every size, one to many blocks of rows.

#include "tests/kernels/attention_twin.hpp"

#include <cstdlib>

using namespace rf;
using namespace rf::test;

namespace {

/// All lengths to 520. The time of emulated ones grows with their square: there the seeds 0 to `seeds` - 1 would share those above
/// `short_ones` between them (five seeds are run), and each has all below, which leave every remainder in a tile.
std::vector<std::int64_t> lengths_to_520(std::int64_t short_ones, std::int64_t seeds) {
    const char* seed = std::getenv("RF_EMULATOR_SEED");
    std::vector<std::int64_t> lengths;
    for (std::int64_t n = 1; n <= 520; ++n)
        if (!seed || n <= short_ones || n % seeds == std::atoll(seed) % seeds) lengths.push_back(n);
    return lengths;
}

}  // namespace

BOOST_AUTO_TEST_CASE(every_length_on_tensor_cores) {
    check_attention({.lengths = lengths_to_520(128, 5), .padding = 3, .longest = 520, .repeats = false});
}

BOOST_AUTO_TEST_CASE(every_length_in_f32) {
    check_attention({.lengths = lengths_to_520(32, 50), .head_size = 6, .dtype = Dtype::f32, .padding = 3, .longest = 520, .repeats = false});
}
