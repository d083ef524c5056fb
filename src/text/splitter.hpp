#pragma once
/// The first half of tokenization (bert4keras Tokenizer._tokenize with do_lower_case): the text is lowered as a whole (Python's
/// str.lower()), decomposed (NFD), freed of marks (Mn), and cut into words at white space and around every punctuation
/// mark and Chinese character; controls are dropped.

#include "text/unicode.hpp"

#include <array>
#include <atomic>
#include <memory>
#include <string_view>

namespace rf {

class Splitter {
public:
    Splitter();
    ~Splitter();
    Splitter(const Splitter&) = delete;
    Splitter& operator=(const Splitter&) = delete;

    enum class Kind : std::uint8_t { letter, space, drop, alone };
    /// Calls letter(c, i), alone(c, i) and end_word() in text order; c is a character of the result, i the index of the
    /// character of `text` it came from.
    template <class Sink>
    void split(std::u32string_view text, Sink& sink) const {
        for (std::size_t i = 0; i < text.size(); ++i) {
            const Cell& cell = cell_of(text[i]);
            if (cell.plain) [[likely]] {
                give(cell.kind, cell.single, i, sink);
            } else {
                i = split_slowly(text, i, [&](Kind kind, char32_t c, std::size_t at) { give(kind, c, at, sink); });
            }
        }
        sink.end_word();
    }

private:
    /// What becomes of one character: `single` of `kind`, unless it is not `plain` (several characters, a sigma, or one
    /// that canonical ordering may move).
    struct Cell {
        char32_t single = 0;
        Kind kind = Kind::drop;
        bool plain = true;
    };
    using Page = std::array<Cell, 256>;

    template <class Sink>
    static void give(Kind kind, char32_t c, std::size_t at, Sink& sink) {
        switch (kind) {
            case Kind::letter: sink.letter(c, at); break;
            case Kind::alone: sink.end_word(); sink.alone(c, at); break;
            case Kind::space: sink.end_word(); break;
            case Kind::drop: break;
        }
    }
    const Cell& cell_of(char32_t c) const {
        const Page* page = pages_[c >> 8].load(std::memory_order_acquire);
        if (!page) [[unlikely]] page = make_page(c >> 8);
        return (*page)[c & 255];
    }
    const Page* make_page(char32_t number) const;
    /// From a character that is not plain to the next starter: decomposes, orders, drops marks. Returns the last index used.
    template <class Give>
    std::size_t split_slowly(std::u32string_view text, std::size_t first, const Give& give) const;

    static Kind kind_of(char32_t c);
    mutable std::array<std::atomic<const Page*>, 0x1100> pages_{};
};

template <class Give>
std::size_t Splitter::split_slowly(std::u32string_view text, std::size_t first, const Give& give) const {
    struct Piece {
        char32_t c;
        int combining;
        std::size_t at;
    };
    std::vector<Piece> run;
    std::size_t i = first;
    for (; i < text.size(); ++i) {
        std::u32string lower = text[i] == 0x3A3 && unicode::is_final_sigma(text, i) ? std::u32string(1, 0x3C2) : unicode::lower_and_decompose(text[i]);
        const bool starter = lower.empty() || unicode::combining_class(lower.front()) == 0;
        if (i > first && starter) break;
        for (const char32_t c : lower) run.push_back({c, unicode::combining_class(c), i});
    }
    // Canonical ordering: characters of a class above 0 are sorted by it, stably, between starters.
    for (std::size_t at = 1; at < run.size(); ++at)
        for (std::size_t back = at; back > 0 && run[back].combining > 0 && run[back - 1].combining > run[back].combining; --back)
            std::swap(run[back], run[back - 1]);
    for (const Piece& p : run)
        if (!unicode::is_nonspacing_mark(p.c)) give(kind_of(p.c), p.c, p.at);
    return i - 1;
}

}  // namespace rf
