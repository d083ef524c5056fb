#pragma once

#include "core/philox.hpp"
#include "core/stream.hpp"

#include <cmath>

namespace rf {

/// Inverted dropout by counter: an element is kept when its 16 random bits reach `threshold()`, and then scaled by
/// `scale()`. The rate is so rounded to 1/65536 (0.1 becomes 0.100006) and the scale is exact for the rounded rate.
///
/// Bits for a row of token `position` in sample `sample`: philox(counter {element / 8, position, sample, stream}),
/// stream = philox_stream(Purpose::dropout, detail). Element e of the row takes the lower (even e) or upper (odd e)
/// half of word (e % 8) / 2. So bits depend on the sample and the place in it, never on batch, rank or thread.
struct Dropout {
    double rate = 0;           ///< 0: off
    std::uint64_t seed = 0;
    std::uint32_t detail = 0;  ///< which layer and branch (and head), 24 bits

    bool active() const { return threshold() > 0; }
    std::uint32_t threshold() const { return static_cast<std::uint32_t>(std::lround(rate * 65536)); }
    double scale() const { return 65536.0 / (65536.0 - threshold()); }
};

/// Where each token of a packed batch comes from: what rotary angles and dropout bits depend on.
struct TokenOrigin {
    ConstTensor sample;    ///< [T] i32, sample number modulo 2^32
    ConstTensor position;  ///< [T] i32, 0 at [CLS]
};

}  // namespace rf
