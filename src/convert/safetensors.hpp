#pragma once
/// safetensors: eight bytes with the length of a JSON header, the header (name -> dtype, shape, begin and end), then the numbers, without
/// holes and without overlap.

#include "convert/tensor_file.hpp"

#include <filesystem>
#include <memory>

namespace rf::convert {

std::unique_ptr<TensorReader> read_safetensors(std::unique_ptr<Bytes> file);
std::unique_ptr<TensorWriter> write_safetensors(const std::filesystem::path& path, const TensorList& tensors);

}  // namespace rf::convert
