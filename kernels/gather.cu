#include "kernels/gather.hpp"

#include "kernels/nvidia/row.cuh"

#include <type_traits>

namespace rf {

namespace {

using namespace device;

constexpr int warps = 8;   // of a block
constexpr int pieces = 4;  // that a lane moves at once

template <class T>
struct Rows {
    const T* from;
    const std::int32_t* rows;  ///< [M]
    T* to;
    int tokens, m, c;
};

/// One warp moves a row of c elements, 2 KiB a round where rows are whole packs of 16 bytes; zeros where `from` is null.
template <bool Whole, class T>
__device__ inline void move_row(const T* from, T* to, int c) {
    using Piece = std::conditional_t<Whole, Pack<std::uint32_t, 4>, T>;
    const int n = c / static_cast<int>(sizeof(Piece) / sizeof(T));
    for (int first = lane(); first < n; first += 32 * pieces) {
        Piece x[pieces]{};
#pragma unroll
        for (int p = 0; p < pieces; ++p)
            if (from && first + 32 * p < n) x[p] = load(reinterpret_cast<const Piece*>(from) + first + 32 * p);
#pragma unroll
        for (int p = 0; p < pieces; ++p)
            if (first + 32 * p < n) store(reinterpret_cast<Piece*>(to) + first + 32 * p, x[p]);
    }
}

/// One warp a row of y, 8 a block; any c.
template <class T, bool Whole>
__global__ void __launch_bounds__(32 * warps) gather_kernel(Rows<T> a) {
    const int m = static_cast<int>(blockIdx.x) * warps + warp();
    if (m >= a.m) return;
    const int token = load(a.rows + m);
    move_row<Whole>(token < 0 ? nullptr : a.from + std::int64_t{token} * a.c, a.to + std::int64_t{m} * a.c, a.c);
}

/// One warp writes 8 neighbouring rows of dx, each from dy or as zeros, so nothing need be cleared before. It searches its
/// first row among `rows`, which rise; the next 8 of them are then all it can need. Any c.
template <class T, bool Whole>
__global__ void __launch_bounds__(32 * warps) gather_backward_kernel(Rows<T> a) {
    constexpr int rows_per_warp = 8;
    const int begin = (static_cast<int>(blockIdx.x) * warps + warp()) * rows_per_warp, end = std::min(begin + rows_per_warp, a.tokens);
    if (begin >= end) return;
    const int first = count_below(a.rows, a.m, static_cast<std::uint32_t>(begin));
    const int mine = lane() < rows_per_warp && first + lane() < a.m ? load(a.rows + first + lane()) : -1;
    int next = 0;
    for (int token = begin; token < end; ++token) {
        const bool taken = shuffle(mine, next) == token;
        move_row<Whole>(taken ? a.from + std::int64_t{first + next} * a.c : nullptr, a.to + std::int64_t{token} * a.c, a.c);
        next += taken;
    }
}

}  // namespace

namespace cuda {

void gather(Stream& stream, const Gather& a) {
    device::dispatch(a.x.dtype, [&](auto type) {
        using T = decltype(type);
        const Rows<T> arguments{.from = a.x.as<T>(), .rows = a.rows.as<std::int32_t>(), .to = a.y.as<T>(), .tokens = narrow(a.x.shape[0], "T"),
                                .m = narrow(a.rows.shape[0], "M"), .c = narrow(a.x.shape[1], "C")};
        const bool whole = whole_packs(arguments.c, {a.x.data, a.y.data});
        launch({.name = "gather", .grid = dim3(blocks_for(arguments.m, warps)), .block = dim3(32 * warps), .stream = stream.handle()},
               whole ? gather_kernel<T, true> : gather_kernel<T, false>, arguments);
    });
}

void gather_backward(Stream& stream, const GatherBackward& a) {
    device::dispatch(a.dx.dtype, [&](auto type) {
        using T = decltype(type);
        const Rows<T> arguments{.from = a.dy.as<T>(), .rows = a.rows.as<std::int32_t>(), .to = a.dx.as<T>(), .tokens = narrow(a.dx.shape[0], "T"),
                                .m = narrow(a.rows.shape[0], "M"), .c = narrow(a.dx.shape[1], "C")};
        const bool whole = whole_packs(arguments.c, {a.dy.data, a.dx.data});
        launch({.name = "gather_backward", .grid = dim3(blocks_for(arguments.tokens, 8 * warps)), .block = dim3(32 * warps), .stream = stream.handle()},
               whole ? gather_backward_kernel<T, true> : gather_backward_kernel<T, false>, arguments);
    });
}

}  // namespace cuda

}  // namespace rf
