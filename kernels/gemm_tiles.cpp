#include "kernels/gemm_tiles.hpp"

#include "core/buffer.hpp"
#include "core/cpu.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/simd/tiles.hpp"

#include <algorithm>

namespace rf {

namespace {

constexpr std::int64_t parts(std::int64_t n, std::int64_t length) { return (n + length - 1) / length; }

/// In tiles: a strip stays in the first-level cache while a sum runs over `longest_depth` of it, a group with its sums in the second.
constexpr std::int64_t strip = 2, group = 8, longest_depth = 16;
/// Of an operand's lines that one thread has for itself: 512 KiB of its second-level cache, and enough blocks for all threads.
constexpr std::int64_t block_bytes = std::int64_t{1} << 19, longest_block = 32, shortest_block = 4, blocks_of_thread = 2;

/// A run of lines of tiles.
struct Lines {
    std::int64_t first, count;
};
Lines part_of(std::int64_t lines, std::int64_t length, std::int64_t i) { return {i * length, std::min(length, lines - i * length)}; }

/// An operand on its way into tiles.
struct Operand {
    simd::Layout<std::uint16_t> from;
    void (*lay)(const simd::Layout<std::uint16_t>&);
    std::int64_t lines() const { return parts(from.lines, simd::tile_lines); }
    std::int64_t step() const { return parts(from.depth, simd::tile_depth) * simd::tile_size; }
    void lay_lines(Lines which, std::uint16_t* tiles) const {
        const std::int64_t first = which.first * simd::tile_lines;
        lay({.x = from.x + (from.turned ? first : first * from.ld), .ld = from.ld, .turned = from.turned,
             .lines = std::min(which.count * simd::tile_lines, from.lines - first), .depth = from.depth, .tiles = tiles});
    }
};

std::uint16_t* room_for(Buffer& room, std::int64_t elements) {
    if (const std::int64_t bytes = elements * size_of(Dtype::bf16); room.size() < bytes) room = Buffer(bytes);
    return reinterpret_cast<std::uint16_t*>(room.data());
}

class TiledGemm {
public:
    TiledGemm(const Gemm& g, const simd::TileTable& table, Buffer& shared_room)
        : g_(g), table_(table), m_(g.c.shape[0]), n_(g.c.shape[1]), depth_(parts(g.trans_a ? g.a.shape[0] : g.a.shape[1], simd::tile_depth)), owns_rows_(g.c.dtype == Dtype::bf16 ? 4 * m_ >= n_ : m_ >= n_) {
        const std::int64_t k = g.trans_a ? g.a.shape[0] : g.a.shape[1];
        const Operand a{{.x = raw<std::uint16_t>(g.a), .ld = g.trans_a ? m_ : k, .turned = g.trans_a, .lines = m_, .depth = k, .tiles = nullptr}, table.lay_a};
        const Operand b{{.x = raw<std::uint16_t>(g.b), .ld = g.trans_b ? k : n_, .turned = !g.trans_b, .lines = n_, .depth = k, .tiles = nullptr}, table.lay_b};
        own_ = owns_rows_ ? a : b, shared_ = owns_rows_ ? b : a;
        shared_tiles_ = room_for(shared_room, shared_.lines() * shared_.step());
        const std::int64_t wanted = blocks_of_thread * thread_count(), fitting = block_bytes / (own_.step() * size_of(Dtype::bf16));
        block_ = std::clamp(std::min(fitting, parts(own_.lines(), wanted)), shortest_block, longest_block);
        blocks_ = parts(own_.lines(), block_);
        part_ = parts(parts(shared_.lines(), group), parts(wanted, blocks_)) * group;
        parts_ = parts(shared_.lines(), part_);
    }

    /// By every thread of a parallel region.
    void run() const {
#pragma omp for schedule(static)
        for (std::int64_t i = 0; i < shared_.lines(); ++i) shared_.lay_lines({i, 1}, shared_tiles_ + i * shared_.step());
#pragma omp for schedule(dynamic)
        for (std::int64_t i = 0; i < blocks_ * parts_; ++i) multiply(part_of(own_.lines(), block_, i / parts_), part_of(shared_.lines(), part_, i % parts_));
    }

private:
    /// Lays out lines of the own operand and multiplies them with laid lines of the other.
    void multiply(Lines own, Lines shared) const {
        thread_local Buffer room;
        std::uint16_t* const tiles = room_for(room, own.count * own_.step());
        own_.lay_lines(own, tiles);
        for (std::int64_t j = 0; j < shared.count; j += group) {
            const Lines others{shared.first + j, std::min(group, shared.count - j)};
            const std::uint16_t* const other_tiles = shared_tiles_ + others.first * shared_.step();
            for (std::int64_t i = 0; i < own.count; i += strip) {
                const Lines mine{own.first + i, std::min(strip, own.count - i)};
                if (owns_rows_) multiply(mine, tiles + i * own_.step(), others, other_tiles);
                else multiply(others, other_tiles, mine, tiles + i * own_.step());
            }
        }
    }

    /// One piece of C: summed in cache, then finished.
    void multiply(Lines rows, const std::uint16_t* a, Lines columns, const std::uint16_t* b) const {
        alignas(64) float sums[strip * group * simd::tile_lines * simd::tile_lines];
        const std::int64_t ld = columns.count * simd::tile_lines, row = rows.first * simd::tile_lines, column = columns.first * simd::tile_lines;
        const std::int64_t row_count = std::min(rows.count * simd::tile_lines, m_ - row), column_count = std::min(ld, n_ - column);
        expect(row, row_count, column, column_count);
        const std::int64_t length = parts(depth_, parts(depth_, longest_depth)), step = depth_ * simd::tile_size;
        for (std::int64_t l = 0; l < depth_; l += length)
            table_.product({.a = a + l * simd::tile_size, .step_a = step, .b = b + l * simd::tile_size, .step_b = step, .c = sums, .ldc = ld, .rows = rows.count,
                            .columns = columns.count, .depth = std::min(length, depth_ - l), .accumulate = l > 0});
        for (std::int64_t i = 0; i < row_count; ++i) finish(sums + i * ld, row + i, column, column_count);
    }

    /// Asks for rows of C, which lie further apart than a processor looks ahead by itself.
    void expect(std::int64_t row, std::int64_t rows, std::int64_t column, std::int64_t columns) const {
        constexpr std::int64_t line = 64;
        const std::int64_t size = size_of(g_.c.dtype);
        for (std::int64_t i = row; i < row + rows; ++i)
            for (std::int64_t j = 0; j < columns * size; j += line) __builtin_prefetch(static_cast<const std::byte*>(g_.c.data) + (i * n_ + column) * size + j, 1, 2);
    }

    /// A row of sums on its way into C.
    void finish(float* x, std::int64_t row, std::int64_t column, std::int64_t columns) const {
        std::uint8_t* mask = g_.mask ? static_cast<std::uint8_t*>(g_.mask.data) + row * relu_mask_bytes(n_) + column / 8 : nullptr;
        if (g_.c.dtype == Dtype::f32) {
            float* const y = raw<float>(g_.c) + row * n_ + column;
            if (g_.beta != 0) return rows_of<float>().add(x, y, columns);
            if (g_.epilogue == Epilogue::relu) rows_of<float>().relu(x, mask, columns);
            if (g_.epilogue == Epilogue::relu_backward) rows_of<float>().relu_backward(x, mask, columns);
            std::copy_n(x, columns, y);
            return;
        }
        std::uint16_t* const y = raw<std::uint16_t>(g_.c) + row * n_ + column;
        switch (g_.epilogue) {
            case Epilogue::none: return table_.narrow(x, y, columns);
            case Epilogue::relu: return table_.narrow_relu(x, y, mask, columns);
            case Epilogue::relu_backward: return table_.narrow_relu_backward(x, y, mask, columns);
        }
    }

    const Gemm& g_;
    const simd::TileTable& table_;
    std::int64_t m_, n_, depth_;  ///< depth in tiles
    /// One operand is laid out block by block, each by the thread that multiplies it, the other by all threads beforehand: the one with more lines, unless C is bf16, whose
    /// rows are then finished in pieces of 32 elements, which is slow.
    bool owns_rows_;
    Operand own_, shared_;
    std::uint16_t* shared_tiles_;
    std::int64_t block_, blocks_, part_, parts_;  ///< lines of tiles of a block of the own operand and of a part of the other, and how many
};

}  // namespace

void gemm_in_tiles(const Gemm& g, const simd::TileTable& table) {
    thread_local Buffer room;
    const TiledGemm product(g, table, room);
#pragma omp parallel
    product.run();
}

}  // namespace rf
