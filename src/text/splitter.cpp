#include "text/splitter.hpp"

#include <algorithm>
#include <memory>

namespace rf {

CharTable::~CharTable() {
    for (auto& page : pages_) delete page.load();
}

CharTable::Entry Splitter::classify(char32_t c) {
    if (unicode::is_nonspacing_mark(c)) return {CharKind::drop, 0};
    if (unicode::is_punctuation(c) || unicode::is_cjk(c)) return {CharKind::single, c};
    if (unicode::is_space(c)) return {CharKind::space, 0};
    if (unicode::is_control(c)) return {CharKind::drop, 0};
    return {CharKind::letter, c};
}

const CharTable::Page& CharTable::make_page(char32_t number) const {
    auto page = std::make_unique<Page>();
    for (char32_t low = 0; low < 256; ++low) {
        const char32_t c = (number << 8) | low;
        Entry entry{CharKind::drop, 0};
        std::vector<Entry> parts;
        bool reorder = false;
        for (const char32_t part : unicode::lower_and_decompose(c)) {
            const Entry e = Splitter::classify(part);
            if (e.kind == CharKind::drop) continue;
            reorder = reorder || unicode::combining_class(part) != 0;
            parts.push_back(e);
        }
        if (c == 0x3A3) {
            entry.kind = CharKind::sigma;
        } else if (reorder) {
            entry.kind = CharKind::reorder;
        } else if (parts.size() == 1) {
            entry = parts.front();
        } else if (parts.size() > 1) {
            entry = {CharKind::several, static_cast<char32_t>(page->parts.size())};
            page->parts.push_back(std::move(parts));
        }
        page->entries[low] = (static_cast<std::uint32_t>(entry.kind) << 24) | entry.mapped;
    }
    const Page* expected = nullptr;
    if (pages_[number].compare_exchange_strong(expected, page.get(), std::memory_order_acq_rel)) return *page.release();
    return *expected;  // another thread was faster
}

std::size_t Splitter::ordered_run(std::u32string_view text, std::size_t at, std::vector<Mark>& run) {
    std::size_t end = at;
    for (; end < text.size(); ++end) {
        const std::u32string parts = unicode::lower_and_decompose(text[end]);
        if (end > at && unicode::combining_class(parts.front()) == 0) break;
        for (const char32_t c : parts) run.push_back({c, unicode::combining_class(c), end});
    }
    // Canonical ordering (Unicode 3.11, D109): stable by class between characters of class 0.
    for (auto from = run.begin(); from != run.end();) {
        const auto to = std::find_if(from + 1, run.end(), [](const Mark& m) { return m.order == 0; });
        std::stable_sort(from->order == 0 ? from + 1 : from, to, [](const Mark& a, const Mark& b) { return a.order < b.order; });
        from = to;
    }
    return end;
}

}  // namespace rf
