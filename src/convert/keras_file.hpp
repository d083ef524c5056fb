#pragma once
/// Weight files of Keras in HDF5 (`save_weights(…, save_format="h5")`): the root's attribute `layer_names` lists groups, each group's
/// `weight_names` its datasets in the order of the layer's weights. Layers and order are what counts; the datasets' own names differ between versions.

#include "convert/tensor_file.hpp"

#include <filesystem>
#include <map>
#include <memory>
#include <string>

namespace rf::convert {

/// Tensors are named "<layer>[<number of the weight>]". Of a file that `model.save` wrote its weights are read.
class KerasReader : public TensorReader {
public:
    /// Texts that this program keeps beside the weights; empty where there is none.
    virtual std::string note(const std::string& name) const = 0;

protected:
    using TensorReader::TensorReader;
};
/// HDF5 files carry no checksums, and the library may crash or work for ever over a damaged one. So a child process tries it first, and what ends it is a
/// UsageError here. Changed numbers cannot be told from right ones.
enum class Trial : std::uint8_t { in_child, none };
std::unique_ptr<KerasReader> read_keras(const std::filesystem::path& path, Trial trial = Trial::in_child);

/// `tensors`: named by their path "<layer>/<name of the weight>", those of a layer together. `notes`: attributes that Keras does not look at.
std::unique_ptr<TensorWriter> write_keras(const std::filesystem::path& path, const TensorList& tensors, const std::map<std::string, std::string>& notes);

}  // namespace rf::convert
