#pragma once
/// Kernels that keep a token's whole row in registers: one warp a token, or one block where rows are wide.

#include "kernels/nvidia/row.cuh"

namespace rf::device {

/// Rows to 1024 elements are one warp's, eight of them a block; wider ones a whole block's.
inline constexpr int rows_per_block = 8, narrow_row = 1024, wide_pieces = 2, wide_threads = 512, wide_limit = 8 * wide_pieces * wide_threads;

/// Sums of the warps of a row, one slot for each of the two sums of a kernel.
struct WarpSums {
    float of[2][wide_threads / 32];
};

/// Where in the rows a lane works: pieces of eight elements, `stride` apart.
template <bool Wide>
struct Place {
    int token = Wide ? static_cast<int>(blockIdx.x) : static_cast<int>(blockIdx.x) * rows_per_block + warp();
    int first = Wide ? static_cast<int>(threadIdx.x) : lane();
    int stride = Wide ? static_cast<int>(blockDim.x) : 32;

    /// Sum over all lanes of the row, in a fixed tree.
    __device__ float sum(float x, int slot) const {
        x = warp_sum(x);
        if constexpr (Wide) {
            WarpSums& sums = shared_memory<WarpSums>();
            if (lane() == 0) store_shared(&sums.of[slot][warp()], x);
            block_barrier();
            x = warp_sum(lane() < stride / 32 ? load_shared(&sums.of[slot][lane()]) : 0.0F);
        }
        return x;
    }
};

/// Launches Kernel<pieces, whole, wide> as rows of c elements want it.
template <class Choose>
void launch_rows(Stream& stream, const char* name, int tokens, int c, bool whole, const Choose& choose) {
    RF_REQUIRE(c <= wide_limit, "rows of ", c, " elements are too wide for ", name, " (at most ", wide_limit, ")");
    Launch at{.name = name, .grid = dim3(blocks_for(tokens, rows_per_block)), .block = dim3(256), .stream = stream.handle()};
    if (c > narrow_row) {
        at.grid = dim3(static_cast<unsigned>(tokens));
        at.block = dim3(32 * blocks_for(c, 256 * wide_pieces));
        at.shared = sizeof(WarpSums);
    }
    const auto with = [&](auto pieces, auto is_whole, auto wide) { choose(at, pieces, is_whole, wide); };
    using std::integral_constant, std::true_type, std::false_type;
    const integral_constant<int, wide_pieces> in_block;
    if (c > narrow_row) return whole ? with(in_block, true_type{}, true_type{}) : with(in_block, false_type{}, true_type{});
    if (!whole) return with(integral_constant<int, 4>{}, false_type{}, false_type{});
    if (c <= 256) return with(integral_constant<int, 1>{}, true_type{}, false_type{});
    if (c <= 512) return with(integral_constant<int, 2>{}, true_type{}, false_type{});
    if (c <= 768) return with(integral_constant<int, 3>{}, true_type{}, false_type{});
    with(integral_constant<int, 4>{}, true_type{}, false_type{});
}

}  // namespace rf::device
