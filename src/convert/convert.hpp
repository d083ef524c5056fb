#pragma once
/// Conversion of a model's weights from one format to another, a matrix at a time, read back before it gets its name.

#include "convert/formats.hpp"

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace rf::convert {

enum class Format : std::uint8_t { rf, hf, tf, keras };

/// What is done about a residual weight other than 1, which no other format has.
enum class AlphaRule : std::uint8_t {
    keep,  ///< matrices stay as they are: another program computes as if it were 1
    fold,  ///< the last matrix of each branch is multiplied by it: another program computes what ours does
};

struct ConvertOptions {
    Format from = Format::rf, to = Format::rf;
    std::filesystem::path in, out;
    OriginOptions origin;
    TorchFile torch_file = TorchFile::safetensors;
    AlphaRule alpha = AlphaRule::keep;
};

struct Converted {
    std::int64_t tensors = 0;
    std::int64_t parameters = 0;
    std::vector<std::string> notes;  ///< what a user should know, a line each
};

/// Writes `out`, which must not exist, beside itself as `<out>.partial`, reads that back, and renames it. Errors are UsageErrors where an input is to
/// blame; nothing of `out` is left then.
Converted convert(const ConvertOptions& options);

}  // namespace rf::convert
