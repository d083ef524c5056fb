#include "convert/tensor_file.hpp"

#include "core/check.hpp"
#include "core/dtype.hpp"

#include <algorithm>
#include <bit>

namespace rf::convert {

namespace {

/// IEEE binary16: 5 bits of exponent, 10 of fraction.
float half_to_float(std::uint16_t h) {
    const std::uint32_t sign = static_cast<std::uint32_t>(h & 0x8000U) << 16, exponent = (h >> 10) & 0x1fU, fraction = h & 0x3ffU;
    if (exponent == 0) {
        const float magnitude = static_cast<float>(fraction) * 0x1p-24F;
        return sign ? -magnitude : magnitude;
    }
    const std::uint32_t widened = exponent == 31 ? 255 : exponent + 112;
    return std::bit_cast<float>(sign | (widened << 23) | (fraction << 13));
}

}  // namespace

std::string to_text(const Dims& dims) {
    std::string text = "[";
    for (std::size_t i = 0; i < dims.size(); ++i) text += (i ? ", " : "") + std::to_string(dims[i]);
    return text + "]";
}

std::int64_t size_of(Element element) {
    switch (element) {
        case Element::f32: return 4;
        case Element::f16:
        case Element::bf16: return 2;
        case Element::other: break;
    }
    return 0;
}

void widen(Element element, const void* from, std::int64_t count, float* to) {
    const auto* bytes = static_cast<const char*>(from);
    for (std::int64_t i = 0; i < count; ++i) {
        const auto bits = load<std::uint16_t>(bytes + 2 * i);
        to[i] = element == Element::f16 ? half_to_float(bits) : std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
    }
}

std::int64_t element_count(const Dims& dims, std::int64_t limit, const std::string& file, std::string_view tensor) {
    std::int64_t count = 1;
    bool empty = false;
    for (const std::int64_t d : dims) empty = empty || d == 0;
    for (const std::int64_t d : dims) {
        if (d < 0 || (!empty && d > limit / count)) fail_usage(file, ": tensor ", tensor, " has the impossible shape ", to_text(dims));
        if (!empty) count *= d;
    }
    return empty ? 0 : count;
}

void read_numbers(const Bytes& file, std::int64_t offset, Element element, std::int64_t count, float* out, std::string_view what, Checksum checksum, std::uint32_t* crc) {
    if (element == Element::f32) {
        // Summed in pieces that a core's cache still holds.
        constexpr std::int64_t piece = 1 << 18;
        for (std::int64_t at = 0; at < count; at += piece) {
            const std::int64_t n = std::min(piece, count - at);
            file.read(offset + 4 * at, 4 * n, out + at, what);
            if (checksum) *crc = checksum(out + at, 4 * n, *crc);
        }
        return;
    }
    std::vector<char> stored(1 << 20);
    const auto piece = static_cast<std::int64_t>(stored.size()) / 2;
    for (std::int64_t at = 0; at < count; at += piece) {
        const std::int64_t n = std::min(piece, count - at);
        file.read(offset + 2 * at, 2 * n, stored.data(), what);
        if (checksum) *crc = checksum(stored.data(), 2 * n, *crc);
        widen(element, stored.data(), n, out + at);
    }
}

void TensorReader::read(const std::string& tensor, float* out) const {
    const auto found = tensors_.find(tensor);
    RF_REQUIRE(found != tensors_.end(), name_, ": no tensor ", tensor);
    if (found->second.element == Element::other)
        fail_usage(name_, ": tensor ", tensor, " holds ", found->second.type, " (expected 32-bit or 16-bit floating point)");
    read_numbers_of(tensor, found->second, out);
}

}  // namespace rf::convert
