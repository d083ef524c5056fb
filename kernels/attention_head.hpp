#pragma once
/// What attention on a CPU does with one head of one sequence, whatever multiplies its matrices.

#include "core/buffer.hpp"
#include "kernels/attention.hpp"
#include "kernels/dispatch.hpp"

#include <algorithm>

namespace rf {
namespace simd {
struct TileTable;
}

/// Query rows worked on at once: their scores against a whole sequence stay in cache.
constexpr std::int64_t query_block = 128;

/// Elements between rows of a matrix in scratch: room for whole vectors, and an odd number of cache lines, so that the rows of a column of
/// vectors do not compete for the same places in cache.
constexpr std::int64_t row_room(std::int64_t n) { return (((n + simd::product_columns - 1) / simd::product_columns) | 1) * simd::product_columns; }

/// A matrix in scratch, its rows at 64 bytes. What lies behind its columns means nothing: it reaches only what lies behind the columns of a product.
template <class R>
class Matrix {
public:
    void reshape(std::int64_t rows, std::int64_t columns) {
        columns_ = columns;
        ld_ = row_room(columns);
        const std::int64_t whole_rows = (rows + simd::product_columns - 1) / simd::product_columns * simd::product_columns, bytes = whole_rows * ld_ * static_cast<std::int64_t>(sizeof(R));
        if (room_.size() < bytes) room_ = Buffer(bytes);
    }
    R* row(std::int64_t i) { return reinterpret_cast<R*>(room_.data()) + i * ld_; }
    const R* row(std::int64_t i) const { return reinterpret_cast<const R*>(room_.data()) + i * ld_; }
    std::int64_t columns() const { return columns_; }
    std::int64_t ld() const { return ld_; }

private:
    Buffer room_;
    std::int64_t columns_ = 0, ld_ = 0;
};

/// Asks for rows of D elements before they are needed: they lie a token apart, further than a processor looks ahead by itself.
template <class T>
void expect(const T* x, std::int64_t stride, std::int64_t rows, std::int64_t d) {
    constexpr std::int64_t line = 64 / sizeof(T);
    for (std::int64_t i = 0; i < rows; ++i)
        for (std::int64_t j = 0; j < d; j += line) __builtin_prefetch(x + i * stride + j, 0, 2);
}

/// One head of one sequence: `rows` rows of D elements, `stride` elements apart, as accumulators.
template <class T, class R>
void fetch(const T* x, std::int64_t stride, std::int64_t rows, std::int64_t d, Matrix<R>& out) {
    out.reshape(rows, d);
    for (std::int64_t i = 0; i < rows; ++i) rows_of<T>().widen(x + i * stride, out.row(i), d);
}
template <class T, class R>
void put(const Matrix<R>& x, std::int64_t rows, std::int64_t d, T* out, std::int64_t stride) {
    for (std::int64_t i = 0; i < rows; ++i) rows_of<T>().narrow(x.row(i), out + i * stride, d);
}

/// Turns rows by the angles of positions first, first + 1, … in direction 1 or -1.
template <class R>
void turn(const ConstTensor& table, Matrix<R>& x, std::int64_t first, std::int64_t rows, std::int64_t d, R direction) {
    if (!table) return;
    for (std::int64_t i = 0; i < rows; ++i) rows_of<R>().rotate(x.row(i), raw<R>(table) + (first + i) * d, d, direction);
}

/// Where (sequence s, head) lies, and the dropout of its query rows.
struct Place {
    std::int64_t begin, length, head;
    std::uint32_t sample;
};

template <class Args>
Place place_of(const Args& a, std::int64_t index, std::int64_t heads) {
    const std::int32_t* bounds = indices(a.cu_seqlens);
    const std::int64_t s = index / heads;
    return {bounds[s], bounds[s + 1] - bounds[s], index % heads, a.sample ? static_cast<std::uint32_t>(indices(a.sample)[s]) : 0};
}

template <class Args>
simd::DropRow query_dropout(const Args& a, const Place& p, std::int64_t row) {
    if (!a.dropout.active()) return {};
    return drop_row(a.dropout, p.sample, static_cast<std::uint32_t>(row), a.dropout.detail * 256 + static_cast<std::uint32_t>(a.first_head + p.head));
}

/// bf16 by tiles (simd/tiles.hpp): probabilities and their gradients are rounded to bf16 before they are multiplied, as on a GPU; scores are f32.
void attention_in_tiles(const Attention& a, const Place& place, const simd::TileTable& table);
void attention_backward_in_tiles(const AttentionBackward& a, const Place& place, const simd::TileTable& table);

}  // namespace rf
