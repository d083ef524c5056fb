#pragma once
/// The two halves of a corpus build: blocks of lines become part files, part files become shards.
/// A part file ends with the digest of what is before it, so a torn one counts as absent. What decides which documents stay stands in
/// front, with a digest of its own, and can be read alone.

#include "data/corpus_build.hpp"
#include "data/seen_set.hpp"
#include "text/segmenter.hpp"

#include <filesystem>
#include <memory>
#include <span>
#include <vector>

namespace rf {

/// Blocks are counted within a file of the input.
std::filesystem::path part_path(const std::filesystem::path& folder, std::size_t file, std::int64_t block);
bool part_is_whole(const std::filesystem::path& path);

/// What a block of lines became.
struct CorpusPart {
    struct Counts {
        std::int64_t bytes = 0, bad_lines = 0, too_short = 0, too_long = 0, documents = 0;
    };
    struct Document {
        Hash128 hash;                            ///< digest of its text
        std::int64_t pieces = 0;                 ///< documents it became
        std::int64_t tokens = 0, words = 0, unknown = 0;
    };
    Counts counts;
    std::vector<Document> documents;
    std::vector<std::uint64_t> bands;        ///< [documents, bands] where near duplicates are dropped, else none
    std::vector<std::int64_t> lengths;       ///< tokens of each piece
    std::vector<std::uint16_t> tokens;
    std::vector<std::uint8_t> word_start;    ///< [tokens] 0 or 1

    std::string to_bytes() const;
    static CorpusPart from_file(const std::filesystem::path& path);
    /// Without lengths, tokens and word starts.
    static CorpusPart front_of_file(const std::filesystem::path& path);
    static Counts counts_of_file(const std::filesystem::path& path);
};

/// Tokenizes and segments lines into a part.
class PartMaker {
public:
    explicit PartMaker(const BuildCorpusInput& input);
    const Vocabulary& vocabulary() const { return vocabulary_; }
    std::string segmenter_identity() const { return segmenter_->identity(); }
    void clear();
    /// A malformed line is a UsageError naming file and line, unless max_bad_lines allows it.
    void add_line(const std::string& line, const std::string& file, std::int64_t number);
    void save(const std::filesystem::path& path);

private:
    void add_document(const std::string& text, const std::vector<std::string>& words);
    void add_piece(std::u32string_view text, std::span<const std::uint8_t> starts);

    const BuildCorpusInput& in_;
    Vocabulary vocabulary_;
    Tokenizer tokenizer_;
    std::unique_ptr<Segmenter> segmenter_;
    CorpusPart part_;
    std::string paragraph_;
    std::int64_t bad_ = 0;
    // Of the document at hand.
    std::u32string characters_;
    std::vector<std::uint8_t> starts_, token_starts_;
    std::vector<std::int32_t> ids_;
    std::vector<TokenSpan> spans_;
};

struct AssemblyReport {
    std::int64_t documents = 0, tokens = 0, words = 0, unknown = 0, shards = 0, duplicates = 0, near_duplicates = 0;
    std::int64_t too_short = 0, too_long = 0, bad_lines = 0, bytes = 0;
};
/// Collective. `parts` in the order of the input: rank 0 decides duplicates in the order of the input, shard s is written by rank s % size, and when all are written
/// they are moved to the output folder.
AssemblyReport assemble(const BuildCorpusInput& input, const json::Place& place, const PartMaker& maker, const std::filesystem::path& partial,
                        const std::filesystem::path& folder, const std::vector<std::filesystem::path>& parts, const std::string& sources, Communicator& world);

}  // namespace rf
