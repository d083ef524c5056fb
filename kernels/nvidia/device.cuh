#pragma once
/// Everything a kernel may use beside plain C++: the device primitives of this program, each a thin name for one
/// instruction or one CUDA built-in. `tests/emulator/device/device.cuh` offers the same names on a host; which of the two
/// is found is decided by the include path alone. Semantics: CUDA C++ Programming Guide and PTX ISA 8/9.
///
/// Kernels read and write global and shared memory in packs through `load`, `store`, `load_shared` and `store_shared`
/// wherever it is hot, so that the emulator can count sectors and bank conflicts.

#include "core/cuda.hpp"
#include "core/dtype.hpp"
#include "core/philox.hpp"

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <utility>

namespace rf::device {

/// N neighbours moved by one instruction; sizeof is 2, 4, 8 or 16.
template <class T, int N>
struct alignas(sizeof(T) * N) Pack {
    T v[N];
};

/// Where and how a kernel runs. Blocks are whole warps.
struct Launch {
    const char* name;       ///< of the kernel, for messages and counters
    dim3 grid;
    dim3 block;
    std::size_t shared = 0; ///< bytes of dynamic shared memory
    cudaStream_t stream = nullptr;
};

/// The only way a kernel is started.
template <class... Parameters, class... Arguments>
void launch(const Launch& at, void (*kernel)(Parameters...), Arguments&&... arguments) {
    if (std::uint64_t{at.grid.x} * at.grid.y * at.grid.z == 0) return;
    if (at.shared > 48 << 10)
        check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(at.shared)), at.name);
    kernel<<<at.grid, at.block, at.shared, at.stream>>>(static_cast<Parameters>(std::forward<Arguments>(arguments))...);
    check(cudaGetLastError(), at.name);
}

__device__ inline int lane() { return static_cast<int>(threadIdx.x & 31U); }
__device__ inline int warp() { return static_cast<int>(threadIdx.x >> 5U); }

/// The block's dynamic shared memory as one struct.
template <class T>
__device__ inline T& shared_memory() {
    extern __shared__ __align__(128) unsigned char bytes[];
    return *reinterpret_cast<T*>(bytes);
}

__device__ inline void block_barrier() { __syncthreads(); }
__device__ inline void warp_barrier() { __syncwarp(); }

/// Shuffles over whole warps. T has at most 8 bytes.
template <class T> __device__ inline T shuffle_xor(T value, int mask) { return __shfl_xor_sync(0xffffffffU, value, mask); }
template <class T> __device__ inline T shuffle(T value, int from_lane) { return __shfl_sync(0xffffffffU, value, from_lane); }

/// One access of sizeof(T) bytes (a number or a Pack), aligned to it.
template <class T> __device__ inline T load(const T* p) { return *p; }
template <class T> __device__ inline void store(T* p, const T& value) {
    if constexpr (sizeof(T) == 16) {  // left to itself the compiler sometimes writes 4 bytes at a time
        const auto w = __builtin_bit_cast(uint4, value);
        asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(p), "r"(w.x), "r"(w.y), "r"(w.z), "r"(w.w) : "memory");
    } else {
        *p = value;
    }
}
template <class T> __device__ inline T load_shared(const T* p) { return *p; }
template <class T> __device__ inline void store_shared(T* p, const T& value) { *p = value; }

__device__ inline std::uint32_t shared_address(const void* p) { return static_cast<std::uint32_t>(__cvta_generic_to_shared(p)); }

/// 16 bytes from global to shared memory behind the thread's back; zeros when `valid` is false. They are there after the
/// copy's group was waited for by this thread and a barrier was passed by the readers.
__device__ inline void copy_async(void* shared, const void* global, bool valid = true) {
    const int bytes = valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global), "r"(bytes) : "memory");
}
/// Closes the group of this thread's copies since the last one.
__device__ inline void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/// Waits until at most `Pending` of this thread's newest groups are under way.
template <int Pending> __device__ inline void copy_async_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory"); }

/// ldmatrix.x4: four 8 x 8 matrices of 16-bit elements; lanes 8i … 8i+7 give the row addresses of matrix i (16 bytes each).
__device__ inline void load_matrix_x4(std::uint32_t (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
}
/// The same, each matrix transposed.
__device__ inline void load_matrix_x4_transposed(std::uint32_t (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
}
/// D += A B on tensor cores: A [16, 16] row-major bf16, B [16, 8] column-major bf16, D [16, 8] f32; fragments as
/// mma.m16n8k16 lays them over the lanes.
__device__ inline void multiply_m16n8k16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/// bf16 bits of two numbers, `low` in the lower half; to nearest even.
__device__ inline std::uint32_t pack_bf16(float low, float high) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<const std::uint32_t*>(&pair);
}
__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(bfloat16 x) { return __uint_as_float(std::uint32_t{x.bits} << 16); }
template <class T> __device__ inline T from_float(float x) {
    if constexpr (sizeof(T) == 4) {
        return x;
    } else {
        bfloat16 y;
        y.bits = __bfloat16_as_ushort(__float2bfloat16_rn(x));
        return y;
    }
}

/// 2^x by the special function unit: relative error 2^-22.
__device__ inline float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
/// High half of a 32 x 32-bit product.
__device__ inline std::uint32_t multiply_high(std::uint32_t a, std::uint32_t b) { return __umulhi(a, b); }

}  // namespace rf::device
