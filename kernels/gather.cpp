#include "kernels/gather.hpp"

#include "core/op_log.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/elementwise.hpp"

#include <cstring>

namespace rf {

void gather(Stream& stream, const Gather& a) {
    const std::int64_t m = a.rows.shape[0], c = a.x.shape[1];
    RF_REQUIRE(a.x.shape.rank == 2 && (a.y.shape == Shape{m, c}), "y must be [M, C]");
    if constexpr (has_cuda)
        if (stream.device() == Device::cuda) return cuda::gather(stream, a);
    const OpScope scope(stream, {.name = "gather", .bytes = bytes_of(a.y, a.y)});
    const std::int32_t* rows = indices(a.rows);
    const auto bytes = static_cast<std::size_t>(c * size_of(a.x.dtype));
#pragma omp parallel for schedule(static)
    for (std::int64_t i = 0; i < m; ++i) {
        std::byte* to = raw<std::byte>(a.y) + static_cast<std::size_t>(i) * bytes;
        if (rows[i] < 0) std::memset(to, 0, bytes);
        else std::memcpy(to, raw<std::byte>(a.x) + static_cast<std::size_t>(rows[i]) * bytes, bytes);
    }
}

void gather_backward(Stream& stream, const GatherBackward& a) {
    const std::int64_t m = a.rows.shape[0], c = a.dx.shape[1];
    RF_REQUIRE(a.dx.shape.rank == 2 && (a.dy.shape == Shape{m, c}), "dy must be [M, C]");
    if constexpr (has_cuda)
        if (stream.device() == Device::cuda) return cuda::gather_backward(stream, a);
    const OpScope scope(stream, {.name = "gather_backward", .bytes = bytes_of(a.dx, a.dy, a.dy)});
    const std::int32_t* rows = indices(a.rows);
    fill_zero(stream, a.dx);
    const auto bytes = static_cast<std::size_t>(c * size_of(a.dx.dtype));
#pragma omp parallel for schedule(static)
    for (std::int64_t i = 0; i < m; ++i)
        if (rows[i] >= 0) std::memcpy(raw<std::byte>(a.dx) + static_cast<std::size_t>(rows[i]) * bytes, raw<std::byte>(a.dy) + static_cast<std::size_t>(i) * bytes, bytes);
}

}  // namespace rf
