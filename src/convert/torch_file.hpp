#pragma once
/// Files of torch.save: a zip archive (a pickle and one entry a storage) or the older stream (five pickles, then the storages). Read
/// without running anything (pickle.hpp); written as the archive.

#include "convert/tensor_file.hpp"

#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace rf::convert {

std::unique_ptr<TensorReader> read_torch(std::unique_ptr<Bytes> file);

/// `tied`: pairs of a further name and the tensor that it shows too.
std::unique_ptr<TensorWriter> write_torch(const std::filesystem::path& path, const TensorList& tensors, const std::vector<std::pair<std::string, std::string>>& tied);

}  // namespace rf::convert
