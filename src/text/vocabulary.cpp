#include "text/vocabulary.hpp"

#include "core/check.hpp"
#include "io/files.hpp"
#include "text/unicode.hpp"

#include <unordered_map>

namespace rf {

Vocabulary Vocabulary::read(const std::string& path) {
    std::string text;
    try {
        text = read_file(path);
    } catch (const Error& e) {
        throw UsageError(message("vocabulary: ", e.what()));
    }
    return parse(text, path);
}

Vocabulary Vocabulary::parse(std::string_view text, const std::string& name) {
    Vocabulary v;
    v.digest_ = rf::digest(text.data(), static_cast<std::int64_t>(text.size()));
    std::unordered_map<std::string_view, std::int32_t> ids;
    for (std::size_t at = 0; at < text.size();) {
        const std::size_t end = std::min(text.find('\n', at), text.size());
        std::string_view line = text.substr(at, end - at);
        if (line.ends_with('\r')) line.remove_suffix(1);
        const auto number = v.size() + 1;
        if (line.empty()) fail_usage(name, ":", number, ": empty line in a vocabulary");
        if (number > 65536) fail_usage(name, ": more than 65536 entries (corpora hold 16-bit ids)");
        const auto [first, fresh] = ids.emplace(line, static_cast<std::int32_t>(v.size()));
        if (!fresh) fail_usage(name, ":", number, ": \"", line, "\" stands on line ", first->second + 1, " too");
        try {
            decode_utf8(line);
        } catch (const Utf8Error& e) {
            fail_usage(name, ":", number, ": ", e.what());
        }
        v.tokens_.emplace_back(line);
        at = end + 1;
    }
    const auto special = [&](const char* token) {
        const auto found = ids.find(token);
        if (found == ids.end()) fail_usage(name, ": the vocabulary has no ", token);
        return found->second;
    };
    if (special("[PAD]") != 0) fail_usage(name, ": [PAD] must be the first line");
    v.unk_ = special("[UNK]");
    v.cls_ = special("[CLS]");
    v.sep_ = special("[SEP]");
    v.mask_ = special("[MASK]");
    return v;
}

}  // namespace rf
