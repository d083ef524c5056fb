#pragma once
/// Checksums of foreign files: CRC-32 of zip archives (ISO 3309) and CRC-32C of TensorFlow's (Castagnoli).

#include <cstdint>

namespace rf::convert {

/// Continued from `crc`, the checksum of the bytes that came before; 0 where there were none.
std::uint32_t crc32(const void* data, std::int64_t count, std::uint32_t crc = 0);
std::uint32_t crc32c(const void* data, std::int64_t count, std::uint32_t crc = 0);

}  // namespace rf::convert
