#pragma once
/// Kernels that go wrong when asked to, for the emulator's own tests.

#include <cuda_runtime_api.h>

#include <cstdint>

namespace rf::wrong {

enum class Mistake {
    none,
    // of twice
    read_past_end, write_past_end, write_far_past_end, read_before_begin, shared_past_end, too_much_shared, misaligned, deep_stack,
    divergent_barrier, barrier_after_exit, divergent_exchange, exchange_after_exit,
    no_block_barrier, no_warp_barrier, one_cell, cell_of_all_blocks,
    // of staged
    misaligned_copy, late_wait, wait_for_older_group, no_wait, no_barrier_after_wait,
};

/// y[i] = 2 x[i] for 64 * blocks floats: values go through shared memory, another lane and back.
void twice(cudaStream_t stream, const float* x, float* y, int blocks, Mistake mistake = Mistake::none);
/// y[i] = x[63 - i] for 64 floats, by asynchronous copies in two groups.
void staged(cudaStream_t stream, const float* x, float* y, Mistake mistake = Mistake::none);
/// D [16, 8] = A [16, 16] B [16, 8] of bf16 bits, A and D row-major, B column-major, by one warp and mma.
void product(cudaStream_t stream, const std::uint16_t* a, const std::uint16_t* b, float* d);
/// y[i] += value for i < n.
void add(cudaStream_t stream, float* y, int n, float value);

}  // namespace rf::wrong
