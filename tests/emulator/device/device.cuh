#pragma once
/// The device primitives of kernels/nvidia/device.cuh for a host compiler: every thread of a block is a fiber of
/// `emulator/machine.hpp`. Semantics as the CUDA programming guide and the PTX manual define them, taken at their worst:
/// asynchronous copies arrive at the wait and destroy their target at the issue, shared memory starts as NaN.

#include "core/cuda.hpp"
#include "core/dtype.hpp"
#include "core/philox.hpp"
#include "emulator/machine.hpp"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <source_location>
#include <type_traits>
#include <utility>

// CUDA's built-in variables.
#define threadIdx (::rf::emulator::this_thread().index)
#define blockIdx (::rf::emulator::this_block().index)
#define blockDim (::rf::emulator::this_block().threads)
#define gridDim (::rf::emulator::this_block().grid)
#ifndef __launch_bounds__
#define __launch_bounds__(...)
#endif

namespace rf::device {

using Where = std::source_location;

template <class T, int N>
struct alignas(sizeof(T) * N) Pack {
    T v[N];
};

struct Launch {
    const char* name;
    dim3 grid;
    dim3 block;
    std::size_t shared = 0;
    cudaStream_t stream = nullptr;
};

template <class... Parameters, class... Arguments>
void launch(const Launch& at, void (*kernel)(Parameters...), Arguments&&... arguments) {
    if (std::uint64_t{at.grid.x} * at.grid.y * at.grid.z == 0) return;
    // Parameters are copied at the launch, as the hardware does.
    std::tuple<std::remove_cvref_t<Parameters>...> kept(static_cast<Parameters>(std::forward<Arguments>(arguments))...);
    emulator::enqueue_kernel(at.stream, {.name = at.name, .grid = at.grid, .block = at.block, .shared = at.shared},
                             [kernel, kept] { std::apply(kernel, kept); });
}

inline int lane() { return emulator::this_thread().lane; }
inline int warp() { return emulator::this_thread().warp; }

template <class T>
inline T& shared_memory() {
    return *static_cast<T*>(emulator::shared_memory(sizeof(T), alignof(T)));
}

inline void block_barrier(Where where = Where::current()) { emulator::block_barrier(where); }
inline void warp_barrier(Where where = Where::current()) { emulator::warp_barrier(where); }

template <class T>
inline T shuffle(T value, int from_lane, Where where = Where::current()) {
    static_assert(sizeof(T) <= emulator::slot_bytes);
    T result;
    std::memcpy(&result, emulator::exchange(&value, sizeof value, where) + (from_lane & 31) * emulator::slot_bytes, sizeof value);
    return result;
}
template <class T> inline T shuffle_xor(T value, int mask, Where where = Where::current()) { return device::shuffle(value, lane() ^ mask, where); }

template <class T>
inline T load(const T* p, Where where = Where::current()) {
    emulator::note_access(p, sizeof(T), alignof(T), emulator::Access::global_load, where);
    return *p;
}
template <class T>
inline void store(T* p, const T& value, Where where = Where::current()) {
    emulator::note_access(p, sizeof(T), alignof(T), emulator::Access::global_store, where);
    *p = value;
}
template <class T>
inline T load_shared(const T* p, Where where = Where::current()) {
    emulator::note_access(p, sizeof(T), alignof(T), emulator::Access::shared_load, where);
    return *p;
}
template <class T>
inline void store_shared(T* p, const T& value, Where where = Where::current()) {
    emulator::note_access(p, sizeof(T), alignof(T), emulator::Access::shared_store, where);
    *p = value;
}

/// The target is destroyed now and filled at the wait, by code of this file, so that a race checker sees both.
inline void copy_async(void* shared, const void* global, bool valid = true, Where where = Where::current()) {
    if (valid) emulator::note_access(global, 16, 16, emulator::Access::global_load, where);
    emulator::note_access(shared, 16, 16, emulator::Access::shared_store, where);
    auto* target = static_cast<std::uint64_t*>(shared);
    target[0] = target[1] = ~std::uint64_t{0};
    emulator::add_copy(shared, valid ? global : nullptr);
}
inline void copy_async_commit() { emulator::commit_copies(); }
template <int Pending>
inline void copy_async_wait() {
    emulator::AsyncCopy copy;
    while (emulator::take_copy(Pending, copy)) {
        auto* target = static_cast<std::uint64_t*>(copy.target);
        const auto* source = static_cast<const std::uint64_t*>(copy.source);
        for (int half = 0; half < 2; ++half) target[half] = source ? source[half] : 0;
    }
}

namespace detail {
/// Lane i holds in register j of matrix j the elements (row i / 4, columns 2 (i % 4) and the next); transposed: of the
/// transposed matrix. Each lane reads its own elements, so a race checker sees who reads what.
inline void load_matrix(std::uint32_t (&r)[4], const void* row, bool transposed, Where where) {
    emulator::note_access(row, 16, 16, emulator::Access::matrix_load, where);
    const std::byte* rows = emulator::exchange(&row, sizeof row, where);
    const auto row_of = [&](int matrix, int index) {
        const std::uint16_t* p = nullptr;
        std::memcpy(&p, rows + (8 * matrix + index) * emulator::slot_bytes, sizeof p);
        return p;
    };
    const int i = lane() / 4, c = lane() % 4 * 2;
    for (int m = 0; m < 4; ++m) {
        const std::uint32_t low = transposed ? row_of(m, c)[i] : row_of(m, i)[c];
        const std::uint32_t high = transposed ? row_of(m, c + 1)[i] : row_of(m, i)[c + 1];
        r[m] = low | high << 16;
    }
}
}  // namespace detail

inline void load_matrix_x4(std::uint32_t (&r)[4], const void* row, Where where = Where::current()) { detail::load_matrix(r, row, false, where); }
inline void load_matrix_x4_transposed(std::uint32_t (&r)[4], const void* row, Where where = Where::current()) { detail::load_matrix(r, row, true, where); }

inline void multiply_m16n8k16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2], Where where = Where::current()) {
    emulator::multiply_m16n8k16(d, a, b, where);
}

inline std::uint32_t pack_bf16(float low, float high) { return std::uint32_t{bfloat16(low).bits} | std::uint32_t{bfloat16(high).bits} << 16; }
inline float to_float(float x) { return x; }
inline float to_float(bfloat16 x) { return static_cast<float>(x); }
template <class T> inline T from_float(float x) { return static_cast<T>(x); }
inline float exp2_fast(float x) { return std::exp2(x); }
inline std::uint32_t multiply_high(std::uint32_t a, std::uint32_t b) { return static_cast<std::uint32_t>(std::uint64_t{a} * b >> 32); }

}  // namespace rf::device
