#include "tasks/prepared.hpp"

namespace rf::tasks {

namespace {

template <class T>
void take(const std::vector<T>& from, std::int64_t begin, std::int64_t end, std::vector<T>& out) {
    if (!from.empty()) out.insert(out.end(), from.begin() + begin, from.begin() + end);
}

}  // namespace

Prepared subset(const Prepared& all, std::span<const std::int64_t> examples) {
    Prepared out;
    for (const std::int64_t e : examples) {
        const auto at = [](const std::vector<std::int64_t>& begin, std::int64_t i) { return begin[static_cast<std::size_t>(i)]; };
        const std::int64_t first = at(all.example_begin, e), last = at(all.example_begin, e + 1);
        for (std::int64_t s = first; s < last; ++s) {
            const std::int64_t token = at(all.sequence_begin, s), token_end = at(all.sequence_begin, s + 1);
            take(all.tokens, token, token_end, out.tokens);
            take(all.token_chars, 2 * token, 2 * token_end, out.token_chars);
            out.sequence_begin.push_back(static_cast<std::int64_t>(out.tokens.size()));
            take(all.pieces, at(all.piece_begin, s), at(all.piece_begin, s + 1), out.pieces);
            out.piece_begin.push_back(static_cast<std::int64_t>(out.pieces.size()));
            take(all.cells, at(all.cell_begin, s), at(all.cell_begin, s + 1), out.cells);
            out.cell_begin.push_back(static_cast<std::int64_t>(out.cells.size()));
            take(all.visible, s, s + 1, out.visible);
            take(all.text_at, s, s + 1, out.text_at);
        }
        out.example_begin.push_back(out.sequences());
        take(all.label, e, e + 1, out.label);
        const bool by_example = static_cast<std::int64_t>(all.score.size()) == all.examples();
        take(all.score, by_example ? e : first, by_example ? e + 1 : last, out.score);
        take(all.group, e, e + 1, out.group);
        take(all.source, e, e + 1, out.source);
        const auto copy = [&](const Texts& from, Texts& to) {
            if (from.size() > 0) to.add(from[e]);
        };
        copy(all.text, out.text), copy(all.id, out.id), copy(all.gold, out.gold);
    }
    return out;
}

}  // namespace rf::tasks
