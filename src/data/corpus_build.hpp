#pragma once
/// From text to corpus shards, on any number of ranks, with bounded memory and the same bytes for any number of ranks.

#include "comm/communicator.hpp"
#include "data/near_duplicates.hpp"
#include "io/json.hpp"

#include <boost/describe.hpp>

#include <string>

namespace rf {

struct SegmenterInput {
    std::string name = "jieba";  ///< "jieba" or "none"; records with `words` bring their own boundaries
    std::string dictionary = "/usr/lib/python3/dist-packages/jieba/dict.txt";
};
BOOST_DESCRIBE_STRUCT(SegmenterInput, (), (name, dictionary))

struct DocumentInput {
    /// Characters of one document; train_mlm.py cuts at int(1.2 x 512).
    std::int64_t max_characters = 614;
    /// What is beyond becomes further documents ("split", cut after a sentence where one ends in the last quarter) or is
    /// dropped ("cut", as train_mlm.py does).
    std::string overflow = "split";
    std::int64_t min_characters = 1;  ///< shorter documents are dropped and counted
    std::int64_t drop_above = 0;      ///< longer documents (before they are split or cut) are dropped and counted; 0: none is too long
};
BOOST_DESCRIBE_STRUCT(DocumentInput, (), (max_characters, overflow, min_characters, drop_above))

struct BuildCorpusInput {
    json::value text = "";
    std::string vocab;
    std::string output;
    std::string format = "auto";      ///< "auto" (.jsonl by its name, else lines), "jsonl", "lines", "paragraphs" (blank lines part documents)
    SegmenterInput segmenter;
    DocumentInput document;
    bool drop_duplicates = true;      ///< documents whose whole text occurred before: 18 bytes of memory a document, on one rank
    NearDuplicateInput near_duplicates;  ///< documents nearly equal to an earlier one: another 8.5 bytes a document and band
    std::int64_t max_bad_lines = 0;   ///< malformed lines passed over, counted
    std::int64_t shard_tokens = 1 << 24;  ///< about the most in a shard (36 MB); shards are alike, so that ranks have as much to write
};
BOOST_DESCRIBE_STRUCT(BuildCorpusInput, (),
                      (text, vocab, output, format, segmenter, document, drop_duplicates, near_duplicates, max_bad_lines, shard_tokens))

/// Collective. Finished parts of a killed build of the same input are used again; a corpus of another input in the output
/// folder is refused unless `restart`.
void build_corpus(const BuildCorpusInput& input, const json::Place& place, Communicator& world, bool restart);

}  // namespace rf
