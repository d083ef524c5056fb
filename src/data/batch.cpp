#include "data/batch.hpp"

#include <algorithm>
#include <numeric>

namespace rf {

namespace {
/// Keys of the held-out split and its masks: constants, so that every run on a corpus is judged on the same text.
constexpr std::uint64_t held_out_seed = 0x726f666f726d6572;  // "roformer"
constexpr std::uint32_t split_round = 0xffffffffU;
}  // namespace

double PackedBatch::squared_lengths() const {
    double sum = 0;
    for (std::size_t s = 0; s + 1 < cu_seqlens.size(); ++s) {
        const double n = cu_seqlens[s + 1] - cu_seqlens[s];
        sum += n * n;
    }
    return sum;
}

void PackedBatch::clear() {
    for (auto* list : {&ids, &position, &token_sample, &sample, &rows, &targets}) list->clear();
    cu_seqlens.assign(1, 0);
}

void PackedBatch::append(const Example& example, std::uint64_t sample_number) {
    if (cu_seqlens.empty()) cu_seqlens.push_back(0);
    const auto begin = static_cast<std::int32_t>(ids.size()), length = static_cast<std::int32_t>(example.ids.size());
    const auto number = static_cast<std::int32_t>(static_cast<std::uint32_t>(sample_number));
    ids.insert(ids.end(), example.ids.begin(), example.ids.end());
    for (std::int32_t p = 0; p < length; ++p) position.push_back(p);
    token_sample.insert(token_sample.end(), static_cast<std::size_t>(length), number);
    sample.push_back(number);
    cu_seqlens.push_back(begin + length);
    for (const std::int32_t row : example.rows) rows.push_back(begin + row);
    targets.insert(targets.end(), example.targets.begin(), example.targets.end());
}

std::vector<int> deal_to_lanes(const std::vector<std::int64_t>& lengths, int lanes) {
    std::vector<std::size_t> order(lengths.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return lengths[a] > lengths[b]; });
    std::vector<std::int64_t> load(static_cast<std::size_t>(lanes), 0);
    std::vector<int> lane_of(lengths.size(), 0);
    for (const std::size_t i : order) {
        const auto lane = std::min_element(load.begin(), load.end()) - load.begin();
        load[static_cast<std::size_t>(lane)] += lengths[i];
        lane_of[i] = static_cast<int>(lane);
    }
    return lane_of;
}

std::int64_t SampleStream::document_of(std::int64_t sample) const {
    const std::int64_t n = training_documents();
    const std::int64_t place = permute(sample % n, n, seed, static_cast<std::uint32_t>(sample / n));
    return permute(held_out + place, corpus.documents(), held_out_seed, split_round);
}

std::vector<PackedBatch> SampleStream::lanes_of(std::int64_t update, int first, int count) const {
    std::vector<std::int64_t> documents, lengths;
    for (std::int64_t i = update * sequences; i < (update + 1) * sequences; ++i) {
        documents.push_back(document_of(i));
        lengths.push_back(example_length(corpus.document(documents.back()), max_length));
    }
    const std::vector<int> lane_of = deal_to_lanes(lengths, lanes);
    std::vector<PackedBatch> batches(static_cast<std::size_t>(count));
    for (PackedBatch& batch : batches) batch.clear();
    Example example;
    for (std::size_t i = 0; i < documents.size(); ++i) {
        if (lane_of[i] < first || lane_of[i] >= first + count) continue;
        const auto number = static_cast<std::uint64_t>(update * sequences) + i;
        make_example(corpus.document(documents[i]), max_length, window, masking, special, vocab_size, seed, number, example);
        batches[static_cast<std::size_t>(lane_of[i] - first)].append(example, number);
    }
    return batches;
}

PackedBatch SampleStream::held_out_batch(std::int64_t begin, std::int64_t end) const {
    PackedBatch batch;
    batch.clear();
    Example example;
    for (std::int64_t i = begin; i < end; ++i) {
        const std::int64_t document = permute(i, corpus.documents(), held_out_seed, split_round);
        make_example(corpus.document(document), max_length, Window::head, masking, special, vocab_size, held_out_seed,
                     static_cast<std::uint64_t>(document), example);
        batch.append(example, static_cast<std::uint64_t>(document));
    }
    return batch;
}

}  // namespace rf
