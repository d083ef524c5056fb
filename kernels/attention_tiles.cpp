#include "kernels/attention_head.hpp"
#include "kernels/simd/tiles.hpp"

#include <cmath>

namespace rf {

namespace {

constexpr std::int64_t tiles_of(std::int64_t n, std::int64_t length) { return (n + length - 1) / length; }

/// One operand of a product in scratch.
class Tiles {
public:
    /// Lines of `depth` elements each: rows of x, or columns where `turned`. `lay` is one of the table's.
    template <class T>
    void lay(void (*lay)(const simd::Layout<T>&), const T* x, std::int64_t ld, bool turned, std::int64_t lines, std::int64_t depth) {
        lines_ = tiles_of(lines, simd::tile_lines), depth_ = tiles_of(depth, simd::tile_depth);
        if (const std::int64_t bytes = lines_ * step() * size_of(Dtype::bf16); room_.size() < bytes) room_ = Buffer(bytes);
        lay({.x = x, .ld = ld, .turned = turned, .lines = lines, .depth = depth, .tiles = reinterpret_cast<std::uint16_t*>(room_.data())});
    }
    const std::uint16_t* data() const { return reinterpret_cast<const std::uint16_t*>(room_.data()); }
    std::int64_t lines() const { return lines_; }
    std::int64_t depth() const { return depth_; }
    std::int64_t step() const { return depth_ * simd::tile_size; }

private:
    Buffer room_;
    std::int64_t lines_ = 0, depth_ = 0;
};

/// C = A B or C += A B. C has the shape of the product already.
void multiply(const simd::TileTable& table, const Tiles& a, const Tiles& b, Matrix<float>& c, bool accumulate = false) {
    table.product({.a = a.data(), .step_a = a.step(), .b = b.data(), .step_b = b.step(), .c = c.row(0), .ldc = c.ld(), .rows = a.lines(), .columns = b.lines(),
                   .depth = a.depth(), .accumulate = accumulate});
}

/// Of a thread, kept from call to call.
struct Scratch {
    Matrix<float> q, k, scores, d_scores, out, dq, dk, dv;
    Tiles q_rows, q_columns, k_rows, k_columns, v_rows, v_columns, d_out_rows, d_out_columns, left;
};
Scratch& scratch() {
    thread_local Scratch w;
    return w;
}

}  // namespace

void attention_in_tiles(const Attention& a, const Place& p, const simd::TileTable& table) {
    Scratch& w = scratch();
    const std::int64_t tokens = a.qkv.shape[0], heads = a.qkv.shape[2], d = a.qkv.shape[3], n = p.length, width = heads * d;
    const std::uint16_t *const q = raw<std::uint16_t>(a.qkv) + p.begin * 3 * width + p.head * d, *const v = q + 2 * width;
    for (const int part : {1, 0, 2}) expect(q + part * width, 3 * width, n, d);
    fetch(q + width, 3 * width, n, d, w.k);
    turn(a.rotary, w.k, 0, n, d, 1.0F);
    w.k_rows.lay(table.lay_b_f32, w.k.row(0), w.k.ld(), false, n, d);
    w.v_columns.lay(table.lay_b, v, 3 * width, true, d, n);
    for (std::int64_t from = 0; from < n; from += query_block) {
        const std::int64_t rows = std::min(query_block, n - from);
        std::uint16_t* const context = raw<std::uint16_t>(a.context) + (p.begin + from) * width + p.head * d;
        expect(context, width, rows, d);
        fetch(q + from * 3 * width, 3 * width, rows, d, w.q);
        turn(a.rotary, w.q, from, rows, d, 1.0F);
        w.q_rows.lay(table.lay_a_f32, w.q.row(0), w.q.ld(), false, rows, d);
        w.scores.reshape(rows, n);
        multiply(table, w.q_rows, w.k_rows, w.scores);
        float shares[query_block];  // 1 / the sum of a row
        for (std::int64_t i = 0; i < rows; ++i) {
            const auto row = reals_of<float>().softmax(w.scores.row(i), n, static_cast<float>(a.scale), query_dropout(a, p, from + i));
            raw<float>(a.log_sum)[p.head * tokens + p.begin + from + i] = row.maximum + std::log(row.sum);
            shares[i] = 1 / row.sum;
        }
        w.left.lay(table.lay_a_f32, w.scores.row(0), w.scores.ld(), false, rows, n);
        w.out.reshape(rows, d);
        multiply(table, w.left, w.v_columns, w.out);
        for (std::int64_t i = 0; i < rows; ++i) reals_of<float>().scale(w.out.row(i), d, shares[i]);
        put(w.out, rows, d, context, width);
    }
}

void attention_backward_in_tiles(const AttentionBackward& a, const Place& p, const simd::TileTable& table) {
    Scratch& w = scratch();
    const std::int64_t tokens = a.qkv.shape[0], heads = a.qkv.shape[2], d = a.qkv.shape[3], n = p.length, width = heads * d;
    const std::uint16_t *const q = raw<std::uint16_t>(a.qkv) + p.begin * 3 * width + p.head * d, *const v = q + 2 * width;
    std::uint16_t* const dq = raw<std::uint16_t>(a.d_qkv) + p.begin * 3 * width + p.head * d;
    for (const int part : {1, 2, 0}) expect(q + part * width, 3 * width, n, d);
    fetch(q + width, 3 * width, n, d, w.k);
    turn(a.rotary, w.k, 0, n, d, 1.0F);
    w.k_rows.lay(table.lay_b_f32, w.k.row(0), w.k.ld(), false, n, d);
    w.k_columns.lay(table.lay_b_f32, w.k.row(0), w.k.ld(), true, d, n);
    w.v_rows.lay(table.lay_b, v, 3 * width, false, n, d);
    w.dk.reshape(n, d);
    w.dv.reshape(n, d);
    for (std::int64_t from = 0; from < n; from += query_block) {
        const std::int64_t rows = std::min(query_block, n - from), at = (p.begin + from) * width + p.head * d;
        const bool further = from > 0;
        const std::uint16_t *const context = raw<std::uint16_t>(a.context) + at, *const d_context = raw<std::uint16_t>(a.d_context) + at;
        expect(context, width, rows, d);
        expect(d_context, width, rows, d);
        expect(dq + from * 3 * width, 3 * width, rows, d);
        fetch(q + from * 3 * width, 3 * width, rows, d, w.q);
        turn(a.rotary, w.q, from, rows, d, 1.0F);
        w.q_rows.lay(table.lay_a_f32, w.q.row(0), w.q.ld(), false, rows, d);
        w.q_columns.lay(table.lay_b_f32, w.q.row(0), w.q.ld(), true, d, rows);
        w.d_out_rows.lay(table.lay_a, d_context, width, false, rows, d);
        w.d_out_columns.lay(table.lay_b, d_context, width, true, d, rows);
        w.scores.reshape(rows, n);
        w.d_scores.reshape(rows, n);
        w.dq.reshape(rows, d);
        multiply(table, w.q_rows, w.k_rows, w.scores);
        multiply(table, w.d_out_rows, w.v_rows, w.d_scores);
        for (std::int64_t i = 0; i < rows; ++i) {
            const float mean = rows_of<std::uint16_t>().dot(d_context + i * width, context + i * width, d);
            reals_of<float>().softmax_backward(w.scores.row(i), w.d_scores.row(i), n, static_cast<float>(a.scale),
                                               raw<float>(a.log_sum)[p.head * tokens + p.begin + from + i], mean, query_dropout(a, p, from + i));
        }
        if (from + rows == n)
            for (const int part : {1, 2}) expect(dq + part * width, 3 * width, n, d);
        w.left.lay(table.lay_a_f32, w.scores.row(0), w.scores.ld(), true, n, rows);
        multiply(table, w.left, w.d_out_columns, w.dv, further);
        w.left.lay(table.lay_a_f32, w.d_scores.row(0), w.d_scores.ld(), true, n, rows);
        multiply(table, w.left, w.q_columns, w.dk, further);
        w.left.lay(table.lay_a_f32, w.d_scores.row(0), w.d_scores.ld(), false, rows, n);
        multiply(table, w.left, w.k_columns, w.dq);
        turn(a.rotary, w.dq, from, rows, d, -1.0F);
        put(w.dq, rows, d, dq + from * 3 * width, 3 * width);
    }
    turn(a.rotary, w.dk, 0, n, d, -1.0F);
    put(w.dk, n, d, dq + width, 3 * width);
    put(w.dv, n, d, dq + 2 * width, 3 * width);
}

}  // namespace rf
