#pragma once
/// How a product of our own is divided among threads and caches, whatever multiplies. One operand, the own one, is cut into blocks: a thread lays its block out and multiplies it while it stays
/// in its second-level cache; the other one, shared, is laid out by all threads beforehand. Blocks meet in pieces of C.

#include "core/buffer.hpp"
#include "core/cpu.hpp"
#include "kernels/streaming.hpp"

#include <algorithm>

namespace rf {

constexpr std::int64_t parts(std::int64_t n, std::int64_t length) { return (n + length - 1) / length; }

/// Units one after another, or steps along the sum.
struct Stretch {
    std::int64_t first, count;
};
constexpr Stretch part_of(std::int64_t n, std::int64_t length, std::int64_t i) { return {i * length, std::min(length, n - i * length)}; }

/// An operand. A unit is so many of its lines (rows of A, columns of B) as are laid out together.
struct GemmSide {
    std::int64_t units;
    std::int64_t unit_lines;
    std::int64_t unit_bytes;  ///< of a unit for one step along the sum
    std::int64_t piece;       ///< units of a piece of C
    bool in_place = false;    ///< read where it lies: never laid out
};

/// `Work` has
///   GemmSide a, b;  std::int64_t depth, pass (steps along the sum, and of it while a block stays in cache);  bool owns_rows (A is the own operand);
///   void lay_a(Stretch units, Stretch depth, std::byte* to) const, lay_b: unit after unit, each `depth` long;
///   void multiply(Stretch rows, const std::byte* a, Stretch columns, const std::byte* b, Stretch depth) const: a piece of C; passes come in order.
template <class Work>
class GemmBlocks {
public:
    GemmBlocks(const Work& work, Buffer& room) : work_(work), own_(work.owns_rows ? work.a : work.b), shared_(work.owns_rows ? work.b : work.a) {
        if (const std::int64_t bytes = shared_.in_place ? 0 : shared_.units * shared_.unit_bytes * work.depth; room.size() < bytes) room = Buffer(bytes);
        room_ = room.data();
        constexpr std::int64_t shortest_lines = 64, longest_lines = 512, blocks_of_thread = 2;
        const std::int64_t bytes = second_level_cache_bytes() / 2;
        const std::int64_t wanted = blocks_of_thread * thread_count(), shortest = parts(shortest_lines, own_.unit_lines), longest = longest_lines / own_.unit_lines;
        block_ = block_of(shortest, std::clamp(std::min(bytes / (own_.unit_bytes * work.pass), parts(own_.units, wanted)), shortest, longest));
        blocks_ = parts(own_.units, block_);
        part_ = parts(parts(shared_.units, shared_.piece), parts(wanted, blocks_)) * shared_.piece;
        parts_ = parts(shared_.units, part_);
    }

    void run() const {
#pragma omp parallel
        {
            if (!shared_.in_place) {
#pragma omp for schedule(static)
                for (std::int64_t i = 0; i < shared_.units; ++i)
                    for (std::int64_t l = 0; l < work_.depth; l += work_.pass) lay(!work_.owns_rows, {i, 1}, pass_at(l), shared_part(i, pass_at(l)));
            }
#pragma omp for schedule(dynamic) nowait
            for (std::int64_t i = 0; i < blocks_ * parts_; ++i) multiply(part_of(own_.units, block_, i / parts_), part_of(shared_.units, part_, i % parts_));
            stores_done();
        }
    }

private:
    Stretch pass_at(std::int64_t l) const { return {l, std::min(work_.pass, work_.depth - l)}; }
    /// The laid shared operand, pass by pass.
    std::byte* shared_part(std::int64_t unit, Stretch pass) const { return room_ + (shared_.units * pass.first + unit * pass.count) * shared_.unit_bytes; }

    /// The length between two that spreads the units best over the threads.
    std::int64_t block_of(std::int64_t shortest, std::int64_t longest) const {
        const auto busiest = [&](std::int64_t length) { return parts(parts(own_.units, length), thread_count()) * length; };
        std::int64_t best = longest;
        for (std::int64_t length = longest - 1; length >= shortest; --length)
            if (busiest(length) < busiest(best)) best = length;
        return best;
    }

    void lay(bool is_a, Stretch units, Stretch depth, std::byte* to) const { is_a ? work_.lay_a(units, depth, to) : work_.lay_b(units, depth, to); }

    void multiply(Stretch own, Stretch shared) const {
        thread_local Buffer room;
        if (const std::int64_t bytes = own.count * work_.pass * own_.unit_bytes; !own_.in_place && room.size() < bytes) room = Buffer(bytes);
        for (std::int64_t l = 0; l < work_.depth; l += work_.pass) {
            const Stretch pass = pass_at(l);
            if (!own_.in_place) lay(work_.owns_rows, own, pass, room.data());
            for (std::int64_t j = 0; j < shared.count; j += shared_.piece) {
                const Stretch others{shared.first + j, std::min(shared_.piece, shared.count - j)};
                for (std::int64_t i = 0; i < own.count; i += own_.piece) {
                    const Stretch mine{own.first + i, std::min(own_.piece, own.count - i)};
                    const std::byte *const own_laid = room.data() + i * pass.count * own_.unit_bytes, *const shared_laid = shared_part(others.first, pass);
                    if (work_.owns_rows) work_.multiply(mine, own_laid, others, shared_laid, pass);
                    else work_.multiply(others, shared_laid, mine, own_laid, pass);
                }
            }
        }
    }

    const Work& work_;
    GemmSide own_, shared_;
    std::byte* room_;
    std::int64_t block_, blocks_, part_, parts_;  ///< units of a block of the own operand and of a part of the shared one, and how many
};

template <class Work>
void run_blocks(const Work& work) {
    thread_local Buffer room;
    GemmBlocks<Work>(work, room).run();
}

}  // namespace rf
