#pragma once
/// What the origins and targets of foreign formats share: finding the model's weights among named tensors, and the files beside them.

#include "convert/formats.hpp"

#include <functional>

namespace rf::convert {

using Naming = std::function<Foreign(const Weight&)>;

/// The config and vocabulary beside (or given for) the weights, and the task note of an export of ours. Where there is no config, the shape is
/// read from the tensors, with heads of 64 channels as all released models have.
void read_beside(const std::filesystem::path& folder, const std::vector<std::string>& config_names, const OriginOptions& options, const TensorReader& reader,
                 const Naming& naming, Content& content);

/// Which tensors besides the model's own may be there.
enum class Extra : std::uint8_t { refused, known, left_out };

/// A UsageError listing what is missing, of another shape, or unexpected.
void check_tensors(const TensorReader& reader, const Content& content, const Naming& naming, const std::function<Extra(const std::string&)>& judge, Content& notes);

/// Reads one weight, turned where the format has inputs outermost.
void read_named(const TensorReader& reader, const Foreign& foreign, const Weight& weight, std::vector<float>& scratch, float* out);

/// A weight's numbers as the format orders them: turned likewise into `scratch`, or `data` itself.
const float* arrange_named(const Foreign& foreign, const Weight& weight, const float* data, std::vector<float>& scratch);

/// Names and dimensions of weights in a format.
TensorList list_of(const std::vector<Weight>& weights, const Naming& naming);
/// Those that other formats know: all but the heads that are not dense.
std::vector<Weight> known_elsewhere(const Content& content);

void write_text(const std::filesystem::path& path, std::string_view text);
/// vocab.txt, and task.json for a model with a head.
void write_beside(const std::filesystem::path& folder, const Content& content);

}  // namespace rf::convert
