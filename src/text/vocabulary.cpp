#include "text/vocabulary.hpp"

#include "core/check.hpp"
#include "io/files.hpp"
#include "text/unicode.hpp"

#include <filesystem>

namespace rf {

namespace {
std::string read_vocabulary(const std::string& path) {
    if (!std::filesystem::is_regular_file(path)) fail_usage("vocabulary ", path, " is not a file (build one with: roformer build-vocab)");
    return read_file(path);
}
}  // namespace

Vocabulary::Vocabulary(const std::string& path) : Vocabulary(read_vocabulary(path), path) {}

Vocabulary::Vocabulary(std::string_view content, const std::string& name) : content_(content) { parse(content_, name); }

void Vocabulary::parse(std::string_view content, const std::string& name) {
    digest_ = rf::digest(content.data(), static_cast<std::int64_t>(content.size()));
    std::u32string scratch;
    for (std::size_t begin = 0, line = 1; begin < content.size(); ++line) {
        std::size_t end = content.find('\n', begin);
        if (end == std::string_view::npos) end = content.size();
        std::string_view token = content.substr(begin, end - begin);
        begin = end + 1;
        if (token.ends_with('\r')) token.remove_suffix(1);
        if (token.empty()) fail_usage(name, ":", line, ": empty line (every line is one token; its number is the id)");
        if (size() == max_size) fail_usage(name, ":", line, ": more than ", max_size, " tokens (ids are stored in 16 bits)");
        try {
            decode_utf8(token, scratch);
        } catch (const Utf8Error& error) {
            fail_usage(name, ":", line, ": ", error.what());
        }
        const auto [at, fresh] = ids_.emplace(token, static_cast<std::int32_t>(size()));
        if (!fresh) fail_usage(name, ":", line, ": the token \"", token, "\" stands in line ", at->second + 1, " already");
        tokens_.emplace_back(token);
        continues_.push_back(token.size() > 2 && token.starts_with("##"));
    }
    if (tokens_.empty()) fail_usage(name, ": the vocabulary is empty");
    pad_ = special("[PAD]", name);
    unknown_ = special("[UNK]", name);
    cls_ = special("[CLS]", name);
    sep_ = special("[SEP]", name);
    mask_ = special("[MASK]", name);
}

std::int32_t Vocabulary::special(std::string_view token, const std::string& name) const {
    const std::int32_t id = find(token);
    if (id < 0) fail_usage(name, ": the special token ", token, " is missing (a BERT vocabulary has it on a line of its own)");
    return id;
}

std::int32_t Vocabulary::find(std::string_view token) const {
    const auto at = ids_.find(token);
    return at == ids_.end() ? -1 : at->second;
}

}  // namespace rf
