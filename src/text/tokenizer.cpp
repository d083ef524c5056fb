#include "text/tokenizer.hpp"

#include "core/check.hpp"

namespace rf {

namespace {
constexpr std::size_t longest_word = 200;  // bert4keras Tokenizer._word_maxlen
}

/// Collects the characters of a word and pieces them together at its end.
class Tokenizer::WordSink {
public:
    WordSink(const Tokenizer& tokenizer, std::vector<std::int32_t>& ids, std::vector<TokenOriginSpan>* origins)
        : t_(tokenizer), ids_(ids), origins_(origins) {}

    void letter(char32_t c, std::size_t at) {
        word_.push_back(c);
        at_.push_back(static_cast<std::int32_t>(at));
    }
    void alone(char32_t c, std::size_t at) {
        const std::int32_t node = t_.first_.step(Trie::root, c);
        const std::int32_t id = node == Trie::none ? Trie::none : t_.first_.value(node);
        emit(id == Trie::none ? t_.unk_ : id, static_cast<std::int32_t>(at), false);
    }
    void end_word() {
        if (word_.empty()) return;
        const std::size_t before = ids_.size();
        if (word_.size() > longest_word || !match()) {
            ids_.resize(before);
            if (origins_) origins_->resize(before_origins_);
            emit(t_.unk_, at_.front(), false);
        }
        word_.clear();
        at_.clear();
    }

private:
    void emit(std::int32_t id, std::int32_t begin, bool continues) {
        ids_.push_back(id);
        if (origins_) origins_->push_back({begin, continues});
    }

    bool match() {
        before_origins_ = origins_ ? origins_->size() : 0;
        for (std::size_t start = 0; start < word_.size();) {
            const Trie& trie = start == 0 ? t_.first_ : t_.further_;
            std::int32_t node = Trie::root, id = Trie::none;
            std::size_t end = start;
            for (std::size_t i = start; i < word_.size(); ++i) {
                node = trie.step(node, word_[i]);
                if (node == Trie::none) break;
                if (trie.value(node) != Trie::none) id = trie.value(node), end = i + 1;
            }
            if (id == Trie::none) return false;
            emit(id, at_[start], start > 0);
            start = end;
        }
        return true;
    }

    const Tokenizer& t_;
    std::vector<std::int32_t>& ids_;
    std::vector<TokenOriginSpan>* origins_;
    std::size_t before_origins_ = 0;
    std::u32string word_;
    std::vector<std::int32_t> at_;
};

Tokenizer::Tokenizer(const Vocabulary& vocab) : unk_(vocab.unk()) {
    std::vector<std::u32string> texts;
    for (const std::string& token : vocab.tokens()) texts.push_back(decode_utf8(token));
    std::vector<Trie::Entry> first, further;
    for (std::size_t id = 0; id < texts.size(); ++id) {
        const std::u32string_view text = texts[id];
        const auto value = static_cast<std::int32_t>(id);
        first.push_back({text, value});
        if (text.size() > 2 && text.starts_with(U"##")) further.push_back({text.substr(2), value});
    }
    first_ = Trie(first);
    further_ = Trie(further);
}

void Tokenizer::tokenize(std::string_view text, std::vector<std::int32_t>& ids) const {
    thread_local std::u32string decoded;
    decode_utf8(text, decoded);
    tokenize(decoded, ids, nullptr);
}

void Tokenizer::tokenize(std::u32string_view text, std::vector<std::int32_t>& ids, std::vector<TokenOriginSpan>* origins) const {
    WordSink sink(*this, ids, origins);
    splitter_.split(text, sink);
}

std::string Tokenizer::description() { return message("bert wordpiece, lower case, NFD without Mn; Unicode ", unicode::version()); }

}  // namespace rf
