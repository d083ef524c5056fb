#include "text/splitter.hpp"

#include <mutex>

namespace rf {

Splitter::Splitter() = default;

Splitter::~Splitter() {
    for (const auto& page : pages_) delete page.load();
}

Splitter::Kind Splitter::kind_of(char32_t c) {
    // This order matters: punctuation and Chinese characters are tested first.
    if (unicode::is_punctuation(c) || unicode::is_cjk(c)) return Kind::alone;
    if (unicode::is_space(c)) return Kind::space;
    if (unicode::is_control(c)) return Kind::drop;
    return Kind::letter;
}

const Splitter::Page* Splitter::make_page(char32_t number) const {
    static std::mutex mutex;
    const std::lock_guard hold(mutex);
    if (const Page* made = pages_[number].load()) return made;
    auto page = std::make_unique<Page>();
    for (char32_t low = 0; low < 256; ++low) {
        const char32_t c = number * 256 + low;
        Cell& cell = (*page)[low];
        const std::u32string lower = unicode::lower_and_decompose(c);
        std::u32string kept;
        bool moves = c == 0x3A3;
        for (const char32_t d : lower) {
            if (unicode::is_nonspacing_mark(d)) continue;
            moves = moves || unicode::combining_class(d) != 0;
            kept.push_back(d);
        }
        if (moves || kept.size() > 1) {
            cell.plain = false;
        } else if (kept.size() == 1) {
            cell.single = kept[0];
            cell.kind = kind_of(kept[0]);
        }
    }
    pages_[number].store(page.get(), std::memory_order_release);
    return page.release();
}

}  // namespace rf
