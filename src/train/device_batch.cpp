#include "train/device_batch.hpp"

#include "kernels/elementwise.hpp"

#include <algorithm>
#include <bit>
#include <limits>

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

/// Tokens that the batch's head reads, unless it is one that reads every token.
const std::vector<std::int32_t>& read_by(const tasks::LaneBatch& batch) { return batch.head == tasks::mlm_head ? batch.packed.rows : batch.labels.rows; }

}  // namespace

BatchSizes BatchSizes::of(const tasks::LaneBatch& batch, const IdGroups& groups) {
    const PackedBatch& packed = batch.packed;
    BatchSizes sizes{.tokens = packed.tokens(),
                     .sequences = packed.sequences(),
                     .targets = static_cast<std::int64_t>(packed.targets.size()),
                     .ids = static_cast<std::int64_t>(groups.begin.size()) - 1,
                     .head = batch.head,
                     .examples = std::max<std::int64_t>(static_cast<std::int64_t>(batch.labels.list_begin.size()) - 1, 0),
                     .cells = static_cast<std::int64_t>(batch.labels.cells.size() / 3)};
    for (std::size_t s = 0; s + 1 < packed.cu_seqlens.size(); ++s)
        sizes.longest = std::max<std::int64_t>(sizes.longest, packed.cu_seqlens[s + 1] - packed.cu_seqlens[s]);
    return sizes;
}

BatchSizes BatchSizes::bucket() const {
    BatchSizes out{.tokens = round_up(tokens), .sequences = round_up(sequences), .targets = round_up(targets), .ids = round_up(ids),
                   .longest = (longest + 63) / 64 * 64, .head = head, .examples = examples > 0 ? round_up(examples) : 0, .cells = cells > 0 ? round_up(cells) : 0};
    if (examples > 0 && sequences % examples == 0) out.sequences = out.examples * (sequences / examples);
    return out;
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

void DeviceBatch::view_host(const tasks::LaneBatch& batch, std::int64_t longest) {
    const PackedBatch& packed = batch.packed;
    const tasks::LabelLists& labels = batch.labels;
    view_ = {.ids = list(packed.ids),
             .segments = {},
             .cu_seqlens = list(packed.cu_seqlens),
             .sample = list(packed.sample),
             .origin = {.sample = list(packed.token_sample), .position = list(packed.position)},
             .id_tokens = list(groups_.tokens),
             .id_begin = list(groups_.begin),
             .longest = longest,
             .read = list(read_by(batch)),
             .read_origin = {.sample = list(read_sample_), .position = list(read_position_)}};
    targets_ = list(packed.targets);
    const auto rows_of = [](const std::vector<std::int32_t>& v, std::int64_t width) { return list(v).reshape({static_cast<std::int64_t>(v.size()) / width, width}); };
    labels_ = {.label = list(labels.label),
               .score = labels.score.empty() ? ConstTensor() : rf::view(labels.score.data(), {static_cast<std::int64_t>(labels.score.size())}),
               .list_begin = list(labels.list_begin),
               .cells = rows_of(labels.cells, 3),
               .cell_begin = list(labels.cell_begin),
               .visible = rows_of(labels.visible, 2),
               .rotary = {}};
}

void DeviceBatch::load(Stream& stream, Staging& staging, const tasks::LaneBatch& batch, const BatchSizes& sizes, IdGroups groups) {
    groups_ = std::move(groups);
    head_ = batch.head;
    read_sample_.clear(), read_position_.clear();
    for (const std::int32_t token : read_by(batch)) {
        read_sample_.push_back(batch.packed.token_sample[static_cast<std::size_t>(token)]);
        read_position_.push_back(batch.packed.position[static_cast<std::size_t>(token)]);
    }
    if (stream.device() == Device::cpu) return view_host(batch, sizes.longest);
    const PackedBatch& packed = batch.packed;
    const tasks::LabelLists& labels = batch.labels;
    // One copy for all lists, each padded to its size and begun on 128 bytes.
    struct Part {
        const std::vector<std::int32_t>* values;
        std::int64_t size;
        std::int32_t filler;
        std::int64_t begin = 0;
    };
    std::vector<std::int32_t> order = groups_.tokens, score;
    for (std::int64_t t = packed.tokens(); t < sizes.tokens; ++t) order.push_back(static_cast<std::int32_t>(t));
    for (const float s : labels.score) score.push_back(std::bit_cast<std::int32_t>(s));
    const auto last = [](const std::vector<std::int32_t>& v) { return v.empty() ? 0 : v.back(); };
    const bool task = head_ != tasks::mlm_head, scored = !score.empty(), labelled = !labels.label.empty(), celled = !labels.visible.empty();
    const auto when = [](bool there, std::int64_t n) { return there ? n : 0; };
    const std::int64_t reads = task ? sizes.sequences : sizes.targets;
    enum { ids, token_sample, position, id_tokens, cu_seqlens, sample, id_begin, read, read_sample, read_position, targets, label, scores, list_begin, cells, cell_begin, visible };
    Part parts[] = {{&packed.ids, sizes.tokens, 0},
                    {&packed.token_sample, sizes.tokens, 0},
                    {&packed.position, sizes.tokens, 0},
                    {&order, sizes.tokens, 0},
                    {&packed.cu_seqlens, sizes.sequences + 1, packed.cu_seqlens.back()},
                    {&packed.sample, sizes.sequences, 0},
                    {&groups_.begin, sizes.ids + 1, groups_.begin.back()},
                    {&read_by(batch), reads, -1},
                    {&read_sample_, reads, 0},
                    {&read_position_, reads, 0},
                    {&packed.targets, sizes.targets, -1},
                    {&labels.label, when(labelled, sizes.examples), -1},
                    {&score, when(scored, sizes.sequences), std::bit_cast<std::int32_t>(std::numeric_limits<float>::quiet_NaN())},
                    {&labels.list_begin, when(task, sizes.examples + 1), last(labels.list_begin)},
                    {&labels.cells, when(celled, sizes.cells * 3), 0},
                    {&labels.cell_begin, when(celled, sizes.sequences + 1), last(labels.cell_begin)},
                    {&labels.visible, when(celled, sizes.sequences * 2), 0}};
    std::int64_t total = 0;
    for (Part& part : parts) {
        part.begin = total;
        total += (part.size + 31) / 32 * 32;
    }
    if (memory_.size() < total * 4) memory_ = Buffer(total * 4, stream.device());
    staging.pass(stream, total * 4, [&](std::byte* piece) {
        auto* host = reinterpret_cast<std::int32_t*>(piece);
        for (const Part& part : parts) {
            if (part.size == 0) continue;
            auto* end = std::copy(part.values->begin(), part.values->end(), host + part.begin);
            std::fill(end, host + part.begin + part.size, part.filler);
        }
        copy(stream, rf::view(host, {total}), memory_.tensor({total}, Dtype::i32));
    });
    const auto at = [&](int i) { return memory_.tensor({parts[i].size}, Dtype::i32, parts[i].begin * 4); };
    view_ = {.ids = at(ids),
             .segments = {},
             .cu_seqlens = at(cu_seqlens),
             .sample = at(sample),
             .origin = {.sample = at(token_sample), .position = at(position)},
             .id_tokens = at(id_tokens),
             .id_begin = at(id_begin),
             .longest = sizes.longest,
             .read = at(read),
             .read_origin = {.sample = at(read_sample), .position = at(read_position)}};
    targets_ = at(targets);
    labels_ = {};
    if (!task) return;
    labels_ = {.label = at(label),
               .score = scored ? memory_.tensor({parts[scores].size}, Dtype::f32, parts[scores].begin * 4) : Tensor(),
               .list_begin = at(list_begin),
               .cells = celled ? at(cells).reshape({sizes.cells, 3}) : Tensor(),
               .cell_begin = celled ? at(cell_begin) : Tensor(),
               .visible = celled ? at(visible).reshape({sizes.sequences, 2}) : Tensor(),
               .rotary = {}};
}

}  // namespace rf
