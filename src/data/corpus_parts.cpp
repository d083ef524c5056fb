#include "data/corpus_parts.hpp"

#include "io/files.hpp"
#include "io/text_input.hpp"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <fstream>

namespace rf {

namespace fs = std::filesystem;

fs::path part_path(const fs::path& folder, std::size_t file, std::int64_t block) {
    char name[60];
    std::snprintf(name, sizeof name, "part-%06zu-%08lld", file, static_cast<long long>(block));
    return folder / name;
}

namespace {

constexpr std::size_t digest_length = 32;

bool is_whole(const std::string& bytes) {
    return bytes.size() >= digest_length &&
           bytes.compare(bytes.size() - digest_length, digest_length, digest(bytes.data(), static_cast<std::int64_t>(bytes.size() - digest_length))) == 0;
}

template <class T>
void put(std::string& out, const std::vector<T>& list) {
    const auto count = static_cast<std::int64_t>(list.size());
    out.append(reinterpret_cast<const char*>(&count), sizeof count);
    out.append(reinterpret_cast<const char*>(list.data()), list.size() * sizeof(T));
}

/// Reads a list that ends before `end`.
template <class T>
const char* take(const char* from, const char* end, std::vector<T>& list) {
    std::int64_t count = 0;
    if (end - from < static_cast<std::ptrdiff_t>(sizeof count)) fail("a list that its file does not hold");
    std::memcpy(&count, from, sizeof count);
    if (count < 0 || count > (end - from - static_cast<std::ptrdiff_t>(sizeof count)) / static_cast<std::ptrdiff_t>(sizeof(T))) fail("a list longer than its file");
    list.resize(static_cast<std::size_t>(count));
    if (count) std::memcpy(list.data(), from + sizeof count, list.size() * sizeof(T));
    return from + sizeof count + list.size() * sizeof(T);
}

/// What stands before the first digest.
const char* take_front(const char* from, const char* end, CorpusPart& part) {
    if (end - from < static_cast<std::ptrdiff_t>(sizeof part.counts)) fail("counts that its file does not hold");
    std::memcpy(&part.counts, from, sizeof part.counts);
    return take(take(from + sizeof part.counts, end, part.documents), end, part.bands);
}

[[noreturn]] void fail_damaged(const fs::path& path) { fail(path.string(), ": a part of the build is damaged; run the build again"); }

}  // namespace

bool part_is_whole(const fs::path& path) { return fs::exists(path) && is_whole(read_file(path)); }

std::string CorpusPart::to_bytes() const {
    std::string out(reinterpret_cast<const char*>(&counts), sizeof counts);
    put(out, documents);
    put(out, bands);
    out += digest(out.data(), static_cast<std::int64_t>(out.size()));
    out.reserve(out.size() + lengths.size() * 8 + tokens.size() * 3 + 100);
    put(out, lengths);
    put(out, tokens);
    put(out, word_start);
    return out += digest(out.data(), static_cast<std::int64_t>(out.size()));
}

CorpusPart CorpusPart::from_file(const fs::path& path) {
    const std::string bytes = read_file(path);
    if (!is_whole(bytes)) fail_damaged(path);
    CorpusPart part;
    const char* end = bytes.data() + bytes.size();
    const char* at = take_front(bytes.data(), end, part);
    if (end - at < static_cast<std::ptrdiff_t>(digest_length)) fail_damaged(path);
    at = take(at + digest_length, end, part.lengths);
    at = take(at, end, part.tokens);
    take(at, end, part.word_start);
    return part;
}

CorpusPart CorpusPart::front_of_file(const fs::path& path) {
    std::ifstream in(path, std::ios::binary);
    std::string bytes(sizeof(Counts), '\0');
    const auto append = [&](std::size_t count) {
        bytes.resize(bytes.size() + count);
        in.read(bytes.data() + bytes.size() - count, static_cast<std::streamsize>(count));
    };
    const auto append_list = [&](std::size_t item) {
        std::int64_t count = 0;
        append(sizeof count);
        std::memcpy(&count, bytes.data() + bytes.size() - sizeof count, sizeof count);
        if (!in || count < 0 || static_cast<std::uintmax_t>(count) > fs::file_size(path) / item) fail_damaged(path);
        append(static_cast<std::size_t>(count) * item);
    };
    in.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    append_list(sizeof(Document));
    append_list(sizeof(std::uint64_t));
    append(digest_length);
    if (!in || !is_whole(bytes)) fail_damaged(path);
    CorpusPart part;
    take_front(bytes.data(), bytes.data() + bytes.size(), part);
    return part;
}

CorpusPart::Counts CorpusPart::counts_of_file(const fs::path& path) {
    Counts counts;
    std::ifstream in(path, std::ios::binary);
    if (!in.read(reinterpret_cast<char*>(&counts), sizeof counts)) fail(path.string(), ": a part of the build is missing or damaged; run the build again");
    return counts;
}

PartMaker::PartMaker(const BuildCorpusInput& input)
    : in_(input), vocabulary_(input.vocab), tokenizer_(vocabulary_), segmenter_(make_segmenter(input.segmenter.name, input.segmenter.dictionary)) {}

void PartMaker::clear() {
    part_ = {};
    paragraph_.clear();
}

void PartMaker::save(const fs::path& path) {
    if (!paragraph_.empty()) add_document(std::exchange(paragraph_, ""), {});
    // Not flushed to the disk: after a power failure a torn part is seen by its digest and made again.
    const std::string bytes = part_.to_bytes();
    write_file(path, bytes);
}

void PartMaker::add_line(const std::string& line, const std::string& file, std::int64_t number) {
    try {
        const bool records = in_.format == "jsonl" || (in_.format == "auto" && without_compression(file).ends_with(".jsonl"));
        if (in_.format == "paragraphs") {
            decode_utf8(line);
            if (is_blank(line)) {
                if (!paragraph_.empty()) add_document(std::exchange(paragraph_, ""), {});
            } else {
                paragraph_ += (paragraph_.empty() ? "" : "\n") + line;
                if (paragraph_.size() <= longest_line) return;
                paragraph_ = {};
                fail("a paragraph longer than 64 MiB (blank lines part documents)");
            }
        } else if (records) {
            if (is_blank(line)) return;
            const TextRecord record = text_of_record(line);
            add_document(record.text, record.words);
        } else {
            add_document(line, {});
        }
    } catch (const Error& e) {
        ++part_.counts.bad_lines;
        if (++bad_ > in_.max_bad_lines)
            fail_usage(file, ":", number, ": ", e.what(), in_.max_bad_lines ? message(" (more than max_bad_lines = ", in_.max_bad_lines, ")") : "");
    }
}

namespace {

/// The digest of files, as a number.
Hash128 hash_of(const std::string& text) {
    const std::string hex = digest(text.data(), static_cast<std::int64_t>(text.size()));
    Hash128 hash;
    std::from_chars(hex.data(), hex.data() + 16, hash.high, 16);
    std::from_chars(hex.data() + 16, hex.data() + 32, hash.low, 16);
    return hash;
}

/// End of the piece of text that begins at `begin`: after a sentence where one ends in its last quarter.
std::size_t piece_end(std::u32string_view text, std::size_t begin, std::size_t most) {
    if (text.size() - begin <= most) return text.size();
    const std::size_t end = begin + most;
    for (std::size_t i = end; i > end - most / 4; --i) {
        const char32_t c = text[i - 1];
        if (c == U'。' || c == U'！' || c == U'？' || c == U'；' || c == U'\n') return i;
    }
    return end;
}

}  // namespace

void PartMaker::add_document(const std::string& text, const std::vector<std::string>& words) {
    decode_utf8(text, characters_);
    if (characters_.empty()) return;
    const auto size = static_cast<std::int64_t>(characters_.size());
    if (size < in_.document.min_characters) {
        ++part_.counts.too_short;
        return;
    }
    if (in_.document.drop_above > 0 && size > in_.document.drop_above) {
        ++part_.counts.too_long;
        return;
    }
    if (words.empty()) {
        segmenter_->segment(characters_, starts_);
    } else {
        starts_.assign(characters_.size(), 0);
        std::size_t at = 0;
        for (const std::string& word : words) {
            if (at < starts_.size()) starts_[at] = 1;
            at += decode_utf8(word).size();
        }
    }
    part_.counts.bytes += static_cast<std::int64_t>(text.size());
    ++part_.counts.documents;
    part_.documents.push_back({.hash = hash_of(text)});
    if (in_.near_duplicates.drop) {
        const std::vector<std::uint64_t> keys = band_keys(characters_, in_.near_duplicates);
        part_.bands.insert(part_.bands.end(), keys.begin(), keys.end());
    }
    const auto most = static_cast<std::size_t>(in_.document.max_characters);
    for (std::size_t begin = 0; begin < characters_.size();) {
        const std::size_t end = in_.document.overflow == "cut" ? std::min(characters_.size(), most) : piece_end(characters_, begin, most);
        add_piece(std::u32string_view(characters_).substr(begin, end - begin), std::span(starts_).subspan(begin, end - begin));
        if (in_.document.overflow == "cut") break;
        begin = end;
    }
}

void PartMaker::add_piece(std::u32string_view text, std::span<const std::uint8_t> starts) {
    ids_.clear();
    spans_.clear();
    tokenizer_.encode(text, ids_, spans_);
    if (ids_.empty()) return;
    find_word_starts(vocabulary_, ids_, spans_, starts, token_starts_);
    const auto length = static_cast<std::int64_t>(ids_.size());
    part_.lengths.push_back(length);
    part_.tokens.insert(part_.tokens.end(), ids_.begin(), ids_.end());
    part_.word_start.insert(part_.word_start.end(), token_starts_.begin(), token_starts_.end());
    CorpusPart::Document& document = part_.documents.back();
    ++document.pieces;
    document.tokens += length;
    document.words += std::count(token_starts_.begin(), token_starts_.end(), 1);
    document.unknown += std::count(ids_.begin(), ids_.end(), vocabulary_.unknown());
}

}  // namespace rf
