#include "train/device_batch.hpp"

#include "kernels/elementwise.hpp"

#include <algorithm>
#include <bit>

namespace rf {

namespace {

std::int64_t round_up(std::int64_t n) {
    constexpr std::int64_t least = 16;
    const std::int64_t unit = std::max<std::int64_t>(least, static_cast<std::int64_t>(std::bit_floor(static_cast<std::uint64_t>(std::max<std::int64_t>(n, 1)))) / 8);
    return (n + unit - 1) / unit * unit;
}

ConstTensor list(const std::vector<std::int32_t>& v) {
    static const std::int32_t none = 0;
    return view(v.empty() ? &none : v.data(), {static_cast<std::int64_t>(v.size())});
}

}  // namespace

BatchSizes BatchSizes::of(const PackedBatch& batch, const IdGroups& groups) {
    BatchSizes sizes{.tokens = batch.tokens(), .sequences = batch.sequences(), .targets = static_cast<std::int64_t>(batch.targets.size()),
                     .ids = static_cast<std::int64_t>(groups.begin.size()) - 1};
    for (std::size_t s = 0; s + 1 < batch.cu_seqlens.size(); ++s)
        sizes.longest = std::max<std::int64_t>(sizes.longest, batch.cu_seqlens[s + 1] - batch.cu_seqlens[s]);
    return sizes;
}

BatchSizes BatchSizes::bucket() const {
    return {.tokens = round_up(tokens), .sequences = round_up(sequences), .targets = round_up(targets), .ids = round_up(ids), .longest = (longest + 63) / 64 * 64};
}

Staging::Staging(Device device, std::size_t pieces) : device_(device) {
    for (std::size_t i = 0; i < pieces; ++i) pieces_.push_back({Buffer(), Event(device)});
}

Staging::Piece& Staging::next(std::int64_t bytes) {
    at_ = (at_ + 1) % pieces_.size();
    Piece& piece = pieces_[at_];
    piece.copied.wait();
    if (piece.memory.size() < bytes) piece.memory = Buffer::staging(bytes + bytes / 2, device_);
    return piece;
}

void DeviceBatch::load(Stream& stream, Staging& staging, const PackedBatch& batch, const BatchSizes& sizes, IdGroups groups) {
    groups_ = std::move(groups);
    if (stream.device() == Device::cpu) {
        view_ = {.ids = list(batch.ids),
                 .segments = {},
                 .cu_seqlens = list(batch.cu_seqlens),
                 .sample = list(batch.sample),
                 .origin = {.sample = list(batch.token_sample), .position = list(batch.position)},
                 .id_tokens = list(groups_.tokens),
                 .id_begin = list(groups_.begin),
                 .longest = sizes.longest};
        targets_ = {.rows = list(batch.rows), .targets = list(batch.targets)};
        return;
    }
    // One copy for all lists, each padded to its size and begun on 128 bytes.
    struct Part {
        const std::vector<std::int32_t>* values;
        std::int64_t size;
        std::int32_t filler;
        std::int64_t begin = 0;
    };
    std::vector<std::int32_t> order = groups_.tokens;
    for (std::int64_t t = batch.tokens(); t < sizes.tokens; ++t) order.push_back(static_cast<std::int32_t>(t));
    Part parts[] = {{&batch.ids, sizes.tokens, 0},
                    {&batch.token_sample, sizes.tokens, 0},
                    {&batch.position, sizes.tokens, 0},
                    {&order, sizes.tokens, 0},
                    {&batch.cu_seqlens, sizes.sequences + 1, batch.cu_seqlens.back()},
                    {&batch.sample, sizes.sequences, 0},
                    {&groups_.begin, sizes.ids + 1, groups_.begin.back()},
                    {&batch.rows, sizes.targets, -1},
                    {&batch.targets, sizes.targets, -1}};
    std::int64_t total = 0;
    for (Part& part : parts) {
        part.begin = total;
        total += (part.size + 31) / 32 * 32;
    }
    if (memory_.size() < total * 4) memory_ = Buffer(total * 4, stream.device());
    staging.pass(stream, total * 4, [&](std::byte* piece) {
        auto* host = reinterpret_cast<std::int32_t*>(piece);
        for (const Part& part : parts) {
            auto* end = std::copy(part.values->begin(), part.values->end(), host + part.begin);
            std::fill(end, host + part.begin + part.size, part.filler);
        }
        copy(stream, rf::view(host, {total}), memory_.tensor({total}, Dtype::i32));
    });
    const auto at = [&](int i) { return memory_.tensor({parts[i].size}, Dtype::i32, parts[i].begin * 4); };
    view_ = {.ids = at(0),
             .segments = {},
             .cu_seqlens = at(4),
             .sample = at(5),
             .origin = {.sample = at(1), .position = at(2)},
             .id_tokens = at(3),
             .id_begin = at(6),
             .longest = sizes.longest};
    targets_ = {.rows = at(7), .targets = at(8)};
}

}  // namespace rf
