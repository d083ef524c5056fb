#pragma once
/// Reading a corpus: shards of HDF5 whose contiguous token ranges are mapped into memory, seen as one list of documents.

#include "io/json.hpp"

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace rf {

/// The first damage in a share of the shards' blocks (number `part`, `part` + `parts`, … of each), or empty: ranks share the work and must
/// agree on the outcome before any of them opens a shard, for a damaged file can keep the HDF5 library busy for ever.
std::string find_corpus_damage(const json::value& where, const json::Place& place, int part = 0, int parts = 1);

class Corpus {
public:
    enum class Check { digests, none };
    /// `where`: a shard, a folder of shards, or a list of these. Errors name the file and what was expected. Check::none is for
    /// callers that have asked find_corpus_damage.
    Corpus(const json::value& where, const json::Place& place, Check check = Check::digests);
    ~Corpus();
    Corpus(Corpus&&) noexcept;

    std::int64_t documents() const { return first_.back(); }
    std::int64_t tokens() const { return tokens_; }
    std::int64_t vocab_size() const { return vocab_size_; }
    const std::string& vocab_digest() const { return vocab_digest_; }
    const std::string& segmenter() const { return segmenter_; }
    /// One string for all shards: equal corpora have equal digests.
    const std::string& digest() const { return digest_; }

    struct Document {
        std::span<const std::uint16_t> tokens;  ///< without [CLS] and [SEP]
        const std::uint8_t* word_start;         ///< bits of the shard
        std::int64_t first_bit;                 ///< bit of tokens[0]
        bool starts_word(std::int64_t t) const { return (word_start[(first_bit + t) / 8] >> ((first_bit + t) % 8)) & 1; }
    };
    /// Now and then the mapped pages of what was read before leave this process again (the system's cache keeps them), so that its memory does not grow
    /// towards the corpus' size. Views stay valid.
    Document document(std::int64_t index) const;

private:
    struct Shard;
    void open_shard(const std::string& path);
    void check_folders(const json::value& where, const json::Place& place) const;
    void release_pages() const;
    std::vector<std::unique_ptr<Shard>> shards_;
    std::unique_ptr<std::atomic<std::int64_t>> mapped_ = std::make_unique<std::atomic<std::int64_t>>(0);  ///< bytes at most, since pages were released
    std::vector<std::int64_t> first_{0};  ///< [shards + 1] first document of each
    std::int64_t tokens_ = 0;
    std::int64_t vocab_size_ = 0;
    std::string vocab_digest_, segmenter_, digest_;
};

/// A bijection of [0, n) keyed by (seed, round): a Feistel network over the smallest even number of bits that holds n,
/// walked until it lands inside (Black & Rogaway 2002, cycle walking). O(1) memory, O(1) seek.
std::int64_t permute(std::int64_t index, std::int64_t n, std::uint64_t seed, std::uint32_t round);

}  // namespace rf
