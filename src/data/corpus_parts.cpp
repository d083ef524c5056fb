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

fs::path part_path(const fs::path& folder, std::int64_t block) {
    char name[40];
    std::snprintf(name, sizeof name, "part-%08lld", static_cast<long long>(block));
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

template <class T>
const char* take(const char* from, std::vector<T>& list) {
    std::int64_t count = 0;
    std::memcpy(&count, from, sizeof count);
    list.resize(static_cast<std::size_t>(count));
    if (count) std::memcpy(list.data(), from + sizeof count, list.size() * sizeof(T));
    return from + sizeof count + list.size() * sizeof(T);
}

}  // namespace

bool part_is_whole(const fs::path& path) { return fs::exists(path) && is_whole(read_file(path)); }

std::string CorpusPart::to_bytes() const {
    std::string out(reinterpret_cast<const char*>(&counts), sizeof counts);
    put(out, hashes);
    put(out, bands);
    put(out, pieces);
    put(out, lengths);
    put(out, tokens);
    put(out, word_start);
    return out + digest(out.data(), static_cast<std::int64_t>(out.size()));
}

CorpusPart CorpusPart::from_file(const fs::path& path) {
    const std::string bytes = read_file(path);
    if (!is_whole(bytes)) fail(path.string(), ": a part of the build is damaged; run the build again");
    CorpusPart part;
    std::memcpy(&part.counts, bytes.data(), sizeof part.counts);
    const char* at = take(bytes.data() + sizeof part.counts, part.hashes);
    at = take(at, part.bands);
    at = take(at, part.pieces);
    at = take(at, part.lengths);
    at = take(at, part.tokens);
    take(at, part.word_start);
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
    std::ofstream out(path, std::ios::binary);
    if (!out.write(bytes.data(), static_cast<std::streamsize>(bytes.size())).flush()) fail("cannot write ", path.string(), ": ", std::strerror(errno));
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
    const std::u32string characters = decode_utf8(text);
    if (characters.empty()) return;
    if (static_cast<std::int64_t>(characters.size()) < in_.document.min_characters) {
        ++part_.counts.too_short;
        return;
    }
    if (in_.document.drop_above > 0 && static_cast<std::int64_t>(characters.size()) > in_.document.drop_above) {
        ++part_.counts.too_long;
        return;
    }
    std::vector<std::uint8_t> starts;
    if (words.empty()) {
        segmenter_->segment(characters, starts);
    } else {
        starts.assign(characters.size(), 0);
        std::size_t at = 0;
        for (const std::string& word : words) {
            if (at < starts.size()) starts[at] = 1;
            at += decode_utf8(word).size();
        }
    }
    part_.counts.bytes += static_cast<std::int64_t>(text.size());
    ++part_.counts.documents;
    part_.hashes.push_back(hash_of(text));
    if (in_.near_duplicates.drop) {
        const std::vector<std::uint64_t> keys = band_keys(characters, in_.near_duplicates);
        part_.bands.insert(part_.bands.end(), keys.begin(), keys.end());
    }
    const std::size_t before = part_.lengths.size(), most = static_cast<std::size_t>(in_.document.max_characters);
    for (std::size_t begin = 0; begin < characters.size();) {
        const std::size_t end = in_.document.overflow == "cut" ? std::min(characters.size(), most) : piece_end(characters, begin, most);
        add_piece(std::u32string_view(characters).substr(begin, end - begin), starts, begin);
        if (in_.document.overflow == "cut") break;
        begin = end;
    }
    part_.pieces.push_back(static_cast<std::int64_t>(part_.lengths.size() - before));
}

void PartMaker::add_piece(std::u32string_view text, const std::vector<std::uint8_t>& starts, std::size_t begin) {
    thread_local std::vector<std::int32_t> ids;
    thread_local std::vector<TokenSpan> spans;
    thread_local std::vector<std::uint8_t> own, token_starts;
    ids.clear();
    spans.clear();
    tokenizer_.encode(text, ids, spans);
    if (ids.empty()) return;
    own.assign(starts.begin() + static_cast<std::ptrdiff_t>(begin), starts.begin() + static_cast<std::ptrdiff_t>(begin + text.size()));
    find_word_starts(vocabulary_, ids, spans, own, token_starts);
    part_.lengths.push_back(static_cast<std::int64_t>(ids.size()));
    part_.tokens.insert(part_.tokens.end(), ids.begin(), ids.end());
    part_.word_start.insert(part_.word_start.end(), token_starts.begin(), token_starts.end());
}

}  // namespace rf
