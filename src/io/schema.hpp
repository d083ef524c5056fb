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
inline constexpr const char* kind_prepared = "roformer prepared task";

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

/// A prepared task: a group for each of train, dev, test, in it the members of tasks::Prepared. Texts are two datasets, `<name>` and `<name>_begin`.
namespace prepared {
inline constexpr const char* tokens = "tokens";                    ///< [T] u16
inline constexpr const char* sequence_begin = "sequence_begin";    ///< [N + 1] i64
inline constexpr const char* example_begin = "example_begin";      ///< [E + 1] i64
inline constexpr const char* pieces = "pieces";                    ///< [2 P] i32
inline constexpr const char* piece_begin = "piece_begin";          ///< [N + 1] i64
inline constexpr const char* label = "label";                      ///< [E] i32
inline constexpr const char* score = "score";                      ///< [E] or [N] f32
inline constexpr const char* group = "group";                      ///< [E] i32
inline constexpr const char* source = "source";                    ///< [E] i32
inline constexpr const char* cells = "cells";                      ///< [3 Q] i32: type, start, end
inline constexpr const char* cell_begin = "cell_begin";            ///< [N + 1] i64
inline constexpr const char* visible = "visible";                  ///< [2 N] i32
inline constexpr const char* token_chars = "token_chars";          ///< [2 T] u16
inline constexpr const char* text_at = "text_at";                  ///< [N] i32
inline constexpr const char* text = "text";                        ///< UTF-8
inline constexpr const char* id = "id";                            ///< UTF-8
inline constexpr const char* gold = "gold";                        ///< UTF-8, JSON
// Attributes.
inline constexpr const char* task = "task";                        ///< the task file, JSON text
inline constexpr const char* key = "key";                          ///< digest of all that the file was made of
inline constexpr const char* counts = "counts";                    ///< of a split, JSON text
}  // namespace prepared

}  // namespace rf::schema
