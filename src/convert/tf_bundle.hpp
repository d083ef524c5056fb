#pragma once
/// Checkpoints of TensorFlow (tensor bundles): `<prefix>.index`, a sorted table of what each variable is and where, and
/// `<prefix>.data-00000-of-00001`, the numbers in the order of the names, without gaps.

#include "convert/tensor_file.hpp"

#include <filesystem>
#include <memory>
#include <string>

namespace rf::convert {

/// `prefix`: the path of both files without their endings.
std::unique_ptr<TensorReader> read_tf_bundle(const std::filesystem::path& prefix);
/// From bytes: `open(n, of)` gives data file n of so many, or null where there is none.
using OpenShard = std::unique_ptr<Bytes> (*)(const std::string& prefix, std::int64_t shard, std::int64_t shards);
std::unique_ptr<TensorReader> read_tf_bundle(const Bytes& index, const std::string& prefix, OpenShard open);

/// `tensors` in the order of their names.
std::unique_ptr<TensorWriter> write_tf_bundle(const std::filesystem::path& prefix, const TensorList& tensors);

}  // namespace rf::convert
