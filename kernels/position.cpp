#include "kernels/position.hpp"

#include "core/op_log.hpp"
#include "kernels/dispatch.hpp"

namespace rf {

void add_position(Stream& stream, const AddPosition& a) {
    RF_REQUIRE(a.y.shape.rank == 2 && a.table.shape.rank == 2 && a.table.shape[1] == a.y.shape[1] && a.table.dtype == a.y.dtype, "y must be [T, C] and table [P, C] of one dtype");
    RF_REQUIRE(a.position.shape == Shape{a.y.shape[0]}, "position must be [T]");
    if constexpr (has_cuda)
        if (stream.device() == Device::cuda) return cuda::add_position(stream, a);
    const OpScope scope(stream, {.name = "add_position", .bytes = bytes_of(a.y, a.y, a.y)});
    const std::int64_t tokens = a.y.shape[0], c = a.y.shape[1];
    dispatch(a.y.dtype, [&](auto type) {
        using T = decltype(type);
#pragma omp parallel for schedule(static)
        for (std::int64_t t = 0; t < tokens; ++t) rows_of<T>().add(raw<T>(a.table) + indices(a.position)[t] * c, raw<T>(a.y) + t * c, c);
    });
}

void add_position_backward(Stream& stream, const AddPositionBackward& a) {
    RF_REQUIRE(a.dy.shape.rank == 2 && a.d_table.shape.rank == 2 && a.d_table.shape[1] == a.dy.shape[1] && a.d_table.dtype == accumulator_of(a.dy.dtype),
               "dy must be [T, C] and d_table [P, C] of the accumulator dtype");
    RF_REQUIRE(a.cu_seqlens.shape.rank == 1 && a.cu_seqlens.shape[0] >= 1, "cu_seqlens must be [S+1]");
    if constexpr (has_cuda)
        if (stream.device() == Device::cuda) return cuda::add_position_backward(stream, a);
    const OpScope scope(stream, {.name = "add_position_backward", .bytes = bytes_of(a.dy)});
    const std::int64_t positions = a.d_table.shape[0], c = a.dy.shape[1], sequences = a.cu_seqlens.shape[0] - 1;
    const std::int32_t* bounds = indices(a.cu_seqlens);
    dispatch(a.dy.dtype, [&](auto type) {
        using T = decltype(type);
#pragma omp parallel for schedule(static)
        for (std::int64_t p = 0; p < positions; ++p)
            for (std::int64_t s = 0; s < sequences; ++s)
                if (p < bounds[s + 1] - bounds[s]) rows_of<T>().accumulate(raw<T>(a.dy) + (bounds[s] + p) * c, raw<simd::Real<T>>(a.d_table) + p * c, c);
    });
}

}  // namespace rf
