#include "core/buffer.hpp"

#include "core/build.hpp"
#include "core/device_memory.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace rf {

namespace {
constexpr std::int64_t alignment = 128;
constexpr std::int64_t huge_page = 2 << 20;
constexpr std::int64_t arena_block = 16 << 20;

std::int64_t round_up(std::int64_t n, std::int64_t unit) { return (n + unit - 1) / unit * unit; }
}  // namespace

Buffer::Buffer(std::int64_t bytes, Device device) : size_(bytes) {
    RF_REQUIRE(bytes >= 0, "negative size");
    if (bytes == 0) return;
    if constexpr (has_cuda) {
        if (device == Device::cuda) {
            data_ = static_cast<std::byte*>(cuda::allocate(bytes));
            kind_ = Kind::device;
            return;
        }
    }
    RF_REQUIRE(device == Device::cpu, "this build allocates on the CPU only");
    const std::int64_t unit = bytes >= huge_page ? huge_page : alignment;
    void* block = std::aligned_alloc(static_cast<std::size_t>(unit), static_cast<std::size_t>(round_up(bytes, unit)));
    if (!block) fail("out of memory: ", bytes >> 20, " MiB asked for (use more ranks, a smaller batch or a smaller model)");
    data_ = static_cast<std::byte*>(block);
    if (unit == huge_page) madvise(block, static_cast<std::size_t>(round_up(bytes, unit)), MADV_HUGEPAGE);
    std::memset(block, 0, static_cast<std::size_t>(bytes));
}

Buffer Buffer::staging(std::int64_t bytes, [[maybe_unused]] Device device) {
    if constexpr (has_cuda) {
        if (device == Device::cuda && bytes > 0) {
            Buffer buffer;
            buffer.data_ = static_cast<std::byte*>(cuda::allocate_pinned(bytes));
            buffer.size_ = bytes;
            buffer.kind_ = Kind::pinned;
            return buffer;
        }
    }
    return Buffer(bytes);
}

Buffer::Buffer(Buffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)), kind_(std::exchange(other.kind_, Kind::host)) {}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(kind_, other.kind_);
    return *this;
}

Buffer::~Buffer() { free(); }

void Buffer::free() {
    if constexpr (has_cuda) {
        if (kind_ == Kind::device) return cuda::release(data_);
        if (kind_ == Kind::pinned) return cuda::release_pinned(data_);
    }
    std::free(data_);
}

Tensor Buffer::tensor(Shape shape, Dtype dtype, std::int64_t byte_offset) const {
    RF_REQUIRE(byte_offset + shape.count() * size_of(dtype) <= size_, "tensor ", shape, " exceeds its buffer");
    return {data_ + byte_offset, shape, dtype};
}

Tensor Arena::tensor(Shape shape, Dtype dtype) {
    // An empty tensor still gets an address: a view without one counts as absent.
    const std::int64_t bytes = round_up(std::max<std::int64_t>(shape.count() * size_of(dtype), 1), alignment);
    while (at_.block < blocks_.size() && at_.used + bytes > blocks_[at_.block].size()) {
        before_ += blocks_[at_.block].size();
        at_ = {at_.block + 1, 0};
    }
    if (at_.block == blocks_.size()) blocks_.emplace_back(std::max(bytes, arena_block), device_);
    std::byte* data = blocks_[at_.block].data() + at_.used;
    at_.used += bytes;
    peak_ = std::max(peak_, before_ + at_.used);
    return {data, shape, dtype};
}

bool Arena::reset() {
    const bool joined = blocks_.size() > 1;
    if (joined) {
        std::int64_t total = 0;
        for (const Buffer& block : blocks_) total += block.size();
        blocks_.clear();
        blocks_.emplace_back(total, device_);
    }
    at_ = {};
    before_ = 0;
    return joined;
}

}  // namespace rf
