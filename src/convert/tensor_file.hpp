#pragma once
/// What all foreign formats have in common: named tensors of numbers, read one at a time, written one after another.

#include "convert/bytes.hpp"

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace rf::convert {

using Dims = std::vector<std::int64_t>;
std::string to_text(const Dims& dims);

/// Element types that weights are stored in; read, all become f32, which holds each of their numbers.
enum class Element : std::uint8_t { f32, f16, bf16, other };
std::int64_t size_of(Element element);  ///< bytes; `other` has none
void widen(Element element, const void* from, std::int64_t count, float* to);

/// Number of elements: a UsageError naming `file` and `tensor` for negative sizes and for more than `limit`, which the file's size bounds.
std::int64_t element_count(const Dims& dims, std::int64_t limit, const std::string& file, std::string_view tensor);

/// `count` numbers from `offset` of a file, as f32. `crc`, where given, is continued over their bytes as they are stored.
using Checksum = std::uint32_t (*)(const void*, std::int64_t, std::uint32_t);
void read_numbers(const Bytes& file, std::int64_t offset, Element element, std::int64_t count, float* out, std::string_view what, Checksum checksum = nullptr,
                  std::uint32_t* crc = nullptr);

struct TensorInfo {
    Dims dims;
    Element element = Element::f32;
    std::string type;  ///< the format's own word for the element type, for messages
};

/// A file of named tensors, its directory read and checked: every tensor lies within the file.
class TensorReader {
public:
    virtual ~TensorReader() = default;
    const std::string& name() const { return name_; }
    const std::map<std::string, TensorInfo>& tensors() const { return tensors_; }
    /// The whole of it, row after row. A UsageError where its element type is none of ours.
    void read(const std::string& tensor, float* out) const;
    /// Whether the file stores one array under both names.
    virtual bool same_storage(const std::string&, const std::string&) const { return false; }

protected:
    explicit TensorReader(std::string name) : name_(std::move(name)) {}
    virtual void read_numbers_of(const std::string& tensor, const TensorInfo& info, float* out) const = 0;

    std::string name_;
    std::map<std::string, TensorInfo> tensors_;
};

/// Tensors in the order in which they are written.
using TensorList = std::vector<std::pair<std::string, Dims>>;

/// Writes tensors in the order that was declared.
class TensorWriter {
public:
    virtual ~TensorWriter() = default;
    virtual void write(const float* data) = 0;  ///< the next tensor
    virtual void finish() = 0;                  ///< closes the file
};

}  // namespace rf::convert
