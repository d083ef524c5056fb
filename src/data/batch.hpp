#pragma once
/// From a corpus to packed batches: which sequences an update sees and how they are dealt to gradient lanes. A `Prefetcher` makes
/// the next update's while this one is worked on.

#include "data/masking.hpp"
#include "io/prefetcher.hpp"

#include <utility>

namespace rf {

/// Sequences one after another without padding.
struct PackedBatch {
    std::vector<std::int32_t> ids;          ///< [T]
    std::vector<std::int32_t> position;     ///< [T] 0 at [CLS]
    std::vector<std::int32_t> token_sample; ///< [T]
    std::vector<std::int32_t> sample;       ///< [S] sample number modulo 2^32
    std::vector<std::int32_t> cu_seqlens;   ///< [S+1]
    std::vector<std::int32_t> rows;         ///< [M] predicted positions in the batch
    std::vector<std::int32_t> targets;      ///< [M]

    std::int64_t tokens() const { return static_cast<std::int64_t>(ids.size()); }
    std::int64_t sequences() const { return static_cast<std::int64_t>(sample.size()); }
    double squared_lengths() const;
    void clear();
    void append(const Example& example, std::uint64_t sample_number);
};

/// Lane of each sequence so that lanes hold even token counts: longest first, each to the lane with the fewest tokens so
/// far (lowest number on ties). A pure function of the lengths.
std::vector<int> deal_to_lanes(const std::vector<std::int64_t>& lengths, int lanes);

/// What decides the stream of training samples; all of it is part of a run's identity.
struct SampleStream {
    const Corpus& corpus;
    std::uint64_t seed = 1;
    std::int64_t sequences = 512;   ///< of one update
    std::int64_t max_length = 512;
    int lanes = 1;
    Window window = Window::head;
    Masking masking;
    SpecialIds special;
    std::int64_t vocab_size = 12000;
    std::int64_t held_out = 0;      ///< documents kept for evaluation: a fixed draw, whatever the seed

    /// Document of sample i: epoch i / n of a fresh permutation of the n training documents.
    std::int64_t document_of(std::int64_t sample) const;
    std::int64_t training_documents() const { return corpus.documents() - held_out; }
    /// Packed batches of lanes [first, first + count) of an update.
    std::vector<PackedBatch> lanes_of(std::int64_t update, int first, int count) const;
    /// Held-out documents [begin, end) with masks that never change.
    PackedBatch held_out_batch(std::int64_t begin, std::int64_t end) const;
};

}  // namespace rf
