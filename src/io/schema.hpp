#pragma once
/// Names of every dataset and attribute that files of this program hold.

namespace rf::schema {

inline constexpr const char* version = "schema_version";  ///< attribute of every file, integer
inline constexpr const char* kind = "kind";               ///< attribute of every file: one of the kinds below
inline constexpr const char* kind_corpus = "roformer corpus shard";
inline constexpr const char* kind_checkpoint = "roformer checkpoint";
inline constexpr const char* kind_checkpoint_part = "roformer checkpoint part";
inline constexpr const char* kind_results = "roformer results";
inline constexpr const char* kind_bench = "roformer bench";
inline constexpr const char* kind_hidden = "roformer hidden states";

namespace corpus {
inline constexpr const char* tokens = "tokens";                      ///< [tokens] u16, contiguous, without [CLS] and [SEP]
inline constexpr const char* word_start = "word_start";              ///< [(tokens + 7) / 8] u8; bit t % 8 of byte t / 8
inline constexpr const char* document_offsets = "document_offsets";  ///< [documents + 1] u64, first token of each
// Attributes.
inline constexpr const char* vocab_digest = "vocab_digest";
inline constexpr const char* vocab_size = "vocab_size";
inline constexpr const char* segmenter = "segmenter";                ///< name, version, dictionary digest in one string
inline constexpr const char* tokenizer = "tokenizer";
inline constexpr const char* sources = "sources";                    ///< JSON text
inline constexpr const char* shard = "shard";                        ///< number of this shard
inline constexpr const char* shards = "shards";                      ///< how many the corpus has
inline constexpr const char* first_document = "first_document";      ///< global number of document 0 of this shard
inline constexpr const char* documents = "documents";                ///< in the whole corpus
inline constexpr const char* digest = "digest";                      ///< of the three datasets, on each dataset
}  // namespace corpus

}  // namespace rf::schema
