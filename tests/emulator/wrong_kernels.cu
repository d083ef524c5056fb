#include "emulator/wrong_kernels.hpp"

#include <device.cuh>

namespace rf::wrong {

namespace {

using namespace device;

constexpr int threads = 64;

struct Tile {
    float row[threads];
};
struct Stage {
    alignas(16) float row[threads + 4];
};

/// Needs about 4 MiB of stack.
__device__ int deep(int n) {
    volatile char here[4096];
    here[n % 4096] = static_cast<char>(n);
    return n == 0 ? here[0] : deep(n - 1) + here[n % 4096];
}

/// Accesses that are wrong by themselves, by one thread.
__device__ void touch_wrongly(const float* x, float* y, int n, Tile& tile, Mistake mistake) {
    switch (mistake) {
        case Mistake::read_past_end: store(y, load(x + n)); break;
        case Mistake::write_past_end: store(y + n, 1.0F); break;
        case Mistake::write_far_past_end: store(y + n + 64, 1.0F); break;
        case Mistake::read_before_begin: store(y, load(x - 1025)); break;
        case Mistake::shared_past_end: store_shared(tile.row + threads, 1.0F); break;
        case Mistake::too_much_shared: shared_memory<Tile[2]>(); break;
        case Mistake::misaligned: store(y, load(reinterpret_cast<const Pack<float, 4>*>(x + 1)).v[0]); break;
        case Mistake::deep_stack: store(y, static_cast<float>(deep(1000))); break;
        default: break;
    }
}

/// One thread per element. Element i of the tile is read by thread 63 - i, handed to its mirror image in the warp, and so
/// ends at the same place of the other warp.
__global__ void twice_kernel(const float* x, float* y, Mistake mistake) {
    Tile& tile = shared_memory<Tile>();
    const int i = static_cast<int>(threadIdx.x), at = static_cast<int>(blockIdx.x) * threads + i;
    const bool chosen = blockIdx.x == 0 && i == 5;
    if (chosen) touch_wrongly(x, y, static_cast<int>(gridDim.x) * threads, tile, mistake);
    if (mistake == Mistake::barrier_after_exit && chosen) return;

    store_shared(tile.row + (mistake == Mistake::one_cell && i == 5 ? 6 : i), load(x + at));
    if (mistake == Mistake::divergent_barrier && chosen)
        block_barrier();
    else if (mistake != Mistake::no_block_barrier)
        block_barrier();
    const float mirrored = load_shared(tile.row + (threads - 1 - i));
    block_barrier();

    if (mistake == Mistake::exchange_after_exit && chosen) return;
    float partner = 0;
    if (mistake == Mistake::divergent_exchange && chosen)
        partner = shuffle(mirrored, 31 - lane());
    else
        partner = shuffle(mirrored, 31 - lane());
    store_shared(tile.row + (i + 32) % threads, 2 * partner);
    block_barrier();

    const float neighbour = load_shared(tile.row + (i ^ 1));
    warp_barrier();
    store_shared(tile.row + i, neighbour);
    if (mistake != Mistake::no_warp_barrier) warp_barrier();
    store(y + at, load_shared(tile.row + (i ^ 1)));
    if (mistake == Mistake::cell_of_all_blocks && i == 0) store(y, load(x) * 2);
}

/// One thread per element; every fourth copies 16 bytes, each warp in a group of its own.
__global__ void staged_kernel(const float* x, float* y, Mistake mistake) {
    Stage& stage = shared_memory<Stage>();
    const int i = static_cast<int>(threadIdx.x);
    for (int group = 0; group < 2; ++group) {
        const int shift = mistake == Mistake::misaligned_copy && i == 4 ? 1 : 0;
        if (i % 8 == 4 * group) copy_async(stage.row + i + shift, x + i);
        if (i == 0 && group == 0) copy_async(stage.row + threads, x, false);  // a second copy of this thread: zeros
        copy_async_commit();
    }
    if (mistake == Mistake::wait_for_older_group)
        copy_async_wait<1>();
    else if (mistake != Mistake::late_wait && mistake != Mistake::no_wait)
        copy_async_wait<0>();
    if (mistake != Mistake::no_barrier_after_wait) block_barrier();
    store(y + i, load_shared(stage.row + (threads - 1 - i)) + load_shared(stage.row + threads));
    block_barrier();
    if (mistake != Mistake::no_wait) copy_async_wait<0>();
}

/// One thread per element.
__global__ void add_kernel(float* y, int n, float value) {
    const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
    if (i < n) store(y + i, load(y + i) + value);
}

struct Operands {
    alignas(16) std::uint16_t a[16][16];
    alignas(16) std::uint16_t b[8][16];  // [n][k]
};

/// One warp. A by ldmatrix as its four quarters lie, B by the plain way.
__global__ void product_kernel(const std::uint16_t* a, const std::uint16_t* b, float* d) {
    Operands& tile = shared_memory<Operands>();
    for (int i = lane(); i < 256; i += 32) tile.a[i / 16][i % 16] = load(a + i);
    for (int i = lane(); i < 128; i += 32) tile.b[i / 16][i % 16] = load(b + i);
    warp_barrier();
    std::uint32_t fa[4];
    load_matrix_x4(fa, &tile.a[lane() % 16][lane() / 16 * 8]);
    const int g = lane() / 4, q = lane() % 4;
    const std::uint32_t fb[2] = {load_shared(reinterpret_cast<const std::uint32_t*>(&tile.b[g][2 * q])), load_shared(reinterpret_cast<const std::uint32_t*>(&tile.b[g][2 * q + 8]))};
    float fd[4] = {};
    multiply_m16n8k16(fd, fa, fb);
    for (int i = 0; i < 4; ++i) store(d + (g + i / 2 * 8) * 8 + 2 * q + i % 2, fd[i]);
}

}  // namespace

void product(cudaStream_t stream, const std::uint16_t* a, const std::uint16_t* b, float* d) {
    device::launch({.name = "product", .grid = dim3(1), .block = dim3(32), .shared = sizeof(Operands), .stream = stream}, product_kernel, a, b, d);
}

void twice(cudaStream_t stream, const float* x, float* y, int blocks, Mistake mistake) {
    device::launch({.name = "twice", .grid = dim3(static_cast<unsigned>(blocks)), .block = dim3(threads), .shared = sizeof(Tile), .stream = stream},
                   twice_kernel, x, y, mistake);
}

void staged(cudaStream_t stream, const float* x, float* y, Mistake mistake) {
    device::launch({.name = "staged", .grid = dim3(1), .block = dim3(threads), .shared = sizeof(Stage), .stream = stream}, staged_kernel, x, y, mistake);
}

void add(cudaStream_t stream, float* y, int n, float value) {
    device::launch({.name = "add", .grid = dim3(static_cast<unsigned>((n + 31) / 32)), .block = dim3(32), .stream = stream}, add_kernel, y, n, value);
}

}  // namespace rf::wrong
