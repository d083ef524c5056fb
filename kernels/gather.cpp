#include "kernels/gather.hpp"

#include "core/op_log.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/elementwise.hpp"

#include <algorithm>

namespace rf {

void gather(Stream& stream, const Gather& a) {
    const std::int64_t m = a.rows.shape[0], c = a.x.shape[1];
    RF_REQUIRE(a.x.shape.rank == 2 && (a.y.shape == Shape{m, c}), "y must be [M, C]");
    require_origin(a.dropout, a.origin, a.x.shape[0]);
    if constexpr (has_cuda)
        if (stream.device() == Device::cuda) return cuda::gather(stream, a);
    const OpScope scope(stream, {.name = "gather", .bytes = bytes_of(a.y, a.y)});
    const std::int32_t* rows = indices(a.rows);
    dispatch(a.x.dtype, [&](auto type) {
        using T = decltype(type);
#pragma omp parallel for schedule(static)
        for (std::int64_t i = 0; i < m; ++i) {
            if (rows[i] < 0) {
                std::fill_n(raw<T>(a.y) + i * c, c, T{});
                continue;
            }
            rows_of<T>().dropout(raw<T>(a.x) + rows[i] * c, raw<T>(a.y) + i * c, c, drop_row(a.dropout, a.origin, rows[i]));
        }
    });
}

void gather_backward(Stream& stream, const GatherBackward& a) {
    const std::int64_t m = a.rows.shape[0], c = a.dx.shape[1];
    RF_REQUIRE(a.dx.shape.rank == 2 && (a.dy.shape == Shape{m, c}), "dy must be [M, C]");
    require_origin(a.dropout, a.origin, a.dx.shape[0]);
    if constexpr (has_cuda)
        if (stream.device() == Device::cuda) return cuda::gather_backward(stream, a);
    const OpScope scope(stream, {.name = "gather_backward", .bytes = bytes_of(a.dx, a.dy, a.dy)});
    const std::int32_t* rows = indices(a.rows);
    fill_zero(stream, a.dx);
    dispatch(a.dx.dtype, [&](auto type) {
        using T = decltype(type);
#pragma omp parallel for schedule(static)
        for (std::int64_t i = 0; i < m; ++i)
            if (rows[i] >= 0)
                rows_of<T>().dropout(raw<T>(a.dy) + i * c, raw<T>(a.dx) + rows[i] * c, c, drop_row(a.dropout, a.origin, rows[i]));
    });
}

}  // namespace rf
