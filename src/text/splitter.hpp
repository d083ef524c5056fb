#pragma once
/// Text to words, as BERT does it: lower case, NFD, no nonspacing marks, then split at white space, punctuation and
/// Chinese characters (bert4keras snippets.lowercase_and_normalize and Tokenizer._tokenize). One pass: what happens to
/// a character is looked up in a table that is filled page by page from the Unicode properties.

#include "text/unicode.hpp"

#include <array>
#include <atomic>
#include <cstdint>
#include <string_view>
#include <vector>

namespace rf {

/// What becomes of one character.
enum class CharKind : std::uint8_t {
    letter,   ///< part of a word, after mapping
    single,   ///< a word of its own: punctuation or Chinese
    space,    ///< ends a word
    drop,     ///< vanishes: controls, formats, nonspacing marks
    several,  ///< decomposes to several
    sigma,    ///< U+03A3: its lower case depends on the neighbours
    reorder,  ///< holds a combining character that is kept, so canonical order matters
};

class CharTable {
public:
    struct Entry {
        CharKind kind = CharKind::drop;
        char32_t mapped = 0;  ///< `several`: index into the page's parts
    };
    struct Page;

    CharTable() = default;
    CharTable(const CharTable&) = delete;
    CharTable& operator=(const CharTable&) = delete;
    ~CharTable();

    /// The page that holds `c`. Any number of threads may ask.
    const Page& page(char32_t c) const {
        const Page* p = pages_[c >> 8].load(std::memory_order_acquire);
        return p ? *p : make_page(c >> 8);
    }

private:
    const Page& make_page(char32_t number) const;
    mutable std::array<std::atomic<const Page*>, 0x1100> pages_{};
};

struct CharTable::Page {
    std::array<std::uint32_t, 256> entries{};       ///< kind << 24 | mapped
    std::vector<std::vector<Entry>> parts;  ///< of `several`
    Entry entry(char32_t c) const {
        const std::uint32_t e = entries[c & 0xFFU];
        return {static_cast<CharKind>(e >> 24), e & 0xFFFFFFU};
    }
};

class Splitter {
public:
    /// Calls, in order: sink.letter(c, at) for a character of a word, sink.single(c, at) for a character that is a word,
    /// sink.space() between words (more often than needed). `at` is the character of `text` that c comes from.
    template <class Sink>
    void split(std::u32string_view text, Sink& sink) const {
        for (std::size_t at = 0; at < text.size(); ++at) {
            const CharTable::Page& page = table_.page(text[at]);
            const CharTable::Entry e = page.entry(text[at]);
            switch (e.kind) {
                case CharKind::single: sink.single(e.mapped, at); break;
                case CharKind::letter: sink.letter(e.mapped, at); break;
                case CharKind::space: sink.space(); break;
                case CharKind::drop: break;
                case CharKind::several:
                    for (const CharTable::Entry& part : page.parts[e.mapped]) put(part, at, sink);
                    break;
                case CharKind::sigma: sink.letter(unicode::is_final_sigma(text, at) ? 0x3C2 : 0x3C3, at); break;
                case CharKind::reorder: at = split_run(text, at, sink) - 1; break;
            }
        }
        sink.space();
    }

private:
    struct Mark {
        char32_t c = 0;
        int order = 0;  ///< canonical combining class
        std::size_t at = 0;
    };
    /// The decomposed characters of text[at] and of the combining characters after it, in canonical order, without the
    /// nonspacing marks. Returns where the text goes on.
    static std::size_t ordered_run(std::u32string_view text, std::size_t at, std::vector<Mark>& run);
    static CharTable::Entry classify(char32_t c);
    friend class CharTable;

    template <class Sink>
    static void put(const CharTable::Entry& e, std::size_t at, Sink& sink) {
        if (e.kind == CharKind::single) sink.single(e.mapped, at);
        if (e.kind == CharKind::letter) sink.letter(e.mapped, at);
        if (e.kind == CharKind::space) sink.space();
    }
    template <class Sink>
    std::size_t split_run(std::u32string_view text, std::size_t at, Sink& sink) const {
        std::vector<Mark> run;
        const std::size_t end = ordered_run(text, at, run);
        for (const Mark& mark : run) put(classify(mark.c), mark.at, sink);
        return end;
    }

    CharTable table_;
};

}  // namespace rf
