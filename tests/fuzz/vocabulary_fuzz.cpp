/// A vocabulary, and behind a zero byte a text that is tokenized with it: every id is one of the vocabulary's, every span lies in the text.

#include "tests/fuzz/fuzz.hpp"
#include "text/tokenizer.hpp"
#include "text/unicode.hpp"
#include "text/vocabulary.hpp"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace rf;
    const std::string_view all(reinterpret_cast<const char*>(data), size);
    const std::size_t zero = std::min(all.find('\0'), all.size());
    constexpr std::string_view specials = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n";
    for (const bool with_specials : {false, true})
        fuzz::may_refuse([&] {
            const Vocabulary vocabulary((with_specials ? std::string(specials) : "") + std::string(all.substr(0, zero)), "vocab.txt");
            const Tokenizer tokenizer(vocabulary);
            const std::u32string text = decode_utf8(std::string(all.substr(std::min(zero + 1, all.size()))));
            std::vector<std::int32_t> ids;
            std::vector<TokenSpan> spans;
            tokenizer.encode(text, ids, spans);
            fuzz::demand(ids.size() == spans.size());
            for (const std::int32_t id : ids) fuzz::demand(id >= 0 && id < vocabulary.size());
        });
    return 0;
}
