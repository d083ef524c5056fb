#pragma once
/// Owners of memory: `Buffer` (one block) and `Arena` (a stack of short-lived tensors inside one block).

#include "core/tensor.hpp"

#include <cstddef>
#include <vector>

namespace rf {

/// One block of zeroed memory of the CPU or the current GPU, 128-byte aligned (on the CPU 2 MiB for large blocks, so that
/// huge pages can back it).
class Buffer {
public:
    Buffer() = default;
    explicit Buffer(std::int64_t bytes, Device device = Device::cpu);
    /// Host memory that a stream of `device` copies from and to while the host goes on.
    static Buffer staging(std::int64_t bytes, Device device);
    Buffer(Buffer&& other) noexcept;
    Buffer& operator=(Buffer&& other) noexcept;
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    ~Buffer();

    std::byte* data() const { return data_; }
    std::int64_t size() const { return size_; }
    Tensor tensor(Shape shape, Dtype dtype, std::int64_t byte_offset = 0) const;

private:
    enum class Kind : std::uint8_t { host, pinned, device };
    void free();
    std::byte* data_ = nullptr;
    std::int64_t size_ = 0;
    Kind kind_ = Kind::host;
};

/// Bump allocator. Grows by whole blocks, so earlier tensors never move. Contents are uninitialised.
class Arena {
public:
    explicit Arena(Device device = Device::cpu) : device_(device) {}
    Device device() const { return device_; }

    Tensor tensor(Shape shape, Dtype dtype);
    template <class Pointer>
    Tensor tensor_like(const BasicTensor<Pointer>& other) {
        return tensor(other.shape, other.dtype);
    }
    /// Frees everything; when several blocks were in use they are joined into one of the same total (true: addresses change).
    bool reset();
    std::int64_t peak_bytes() const { return peak_; }

private:
    friend class ArenaScope;
    struct Mark {
        std::size_t block = 0;
        std::int64_t used = 0;
    };
    Device device_;
    std::vector<Buffer> blocks_;
    Mark at_;
    std::int64_t before_ = 0;  ///< bytes in the blocks before the current one
    std::int64_t peak_ = 0;
};

/// Gives back what was taken from the arena since its construction.
class ArenaScope {
public:
    explicit ArenaScope(Arena& arena) : arena_(arena), mark_(arena.at_), before_(arena.before_) {}
    ~ArenaScope() {
        arena_.at_ = mark_;
        arena_.before_ = before_;
    }
    ArenaScope(const ArenaScope&) = delete;
    ArenaScope& operator=(const ArenaScope&) = delete;

private:
    Arena& arena_;
    Arena::Mark mark_;
    std::int64_t before_;
};

}  // namespace rf
