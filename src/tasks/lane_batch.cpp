#include "tasks/lane_batch.hpp"

#include <limits>

namespace rf::tasks {

std::int64_t choices_of(const Task& task, const PreparedTask& prepared) {
    if (task.kind != Kind::multiple_choice) return 0;
    std::int64_t choices = 0;
    const Prepared& p = prepared[Split::train];
    for (std::size_t e = 0; e + 1 < p.example_begin.size(); ++e) {
        const std::int64_t n = p.example_begin[e + 1] - p.example_begin[e];
        if (choices == 0) choices = n;
        if (n != choices)
            fail_usage(task.place.at("pad_choices"), ": example \"", p.id[static_cast<std::int64_t>(e)], "\" of train has ", n, " choices, others have ", choices,
                       "; fill them up with pad_choices");
    }
    return choices;
}

LaneBatch LaneBatchMaker::empty() const {
    LaneBatch batch;
    batch.packed.clear();
    batch.head = head_;
    batch.labels.list_begin.push_back(0);
    batch.labels.cell_begin.push_back(0);
    return batch;
}

void LaneBatchMaker::pack(LaneBatch& batch, std::int64_t sequence, std::uint32_t row, std::uint64_t sample, const Change& change) const {
    const auto tokens = prepared_.sequence(sequence);
    rf::Example one;
    one.ids.assign(tokens.begin(), tokens.end());
    if (change) change(one.ids, prepared_.pieces_of(sequence), row);
    batch.labels.rows.push_back(static_cast<std::int32_t>(batch.packed.ids.size()));
    batch.packed.append(one, sample);
}

void LaneBatchMaker::add_example(LaneBatch& batch, std::int64_t example, std::uint64_t sample, const Change& change) const {
    const auto e = static_cast<std::size_t>(example);
    const std::int64_t begin = prepared_.example_begin[e], end = prepared_.example_begin[e + 1];
    if (info(task_.kind).has_cells) {
        for (std::int64_t s = begin; s < end; ++s) add_sequence(batch, s, sample + static_cast<std::uint64_t>(s - begin), change);
        return;
    }
    for (std::int64_t s = begin; s < end; ++s) {
        pack(batch, s, static_cast<std::uint32_t>(s - begin), sample + static_cast<std::uint64_t>(s - begin), change);
        if (task_.kind == Kind::regress) batch.labels.score.push_back(prepared_.score[e]);
        if (task_.kind == Kind::rank) batch.labels.score.push_back(prepared_.score[static_cast<std::size_t>(s)]);
    }
    if (task_.kind == Kind::classify || task_.kind == Kind::multiple_choice) batch.labels.label.push_back(prepared_.label[e]);
    batch.labels.list_begin.push_back(static_cast<std::int32_t>(batch.labels.rows.size()));
    ++batch.labels.counted;
}

void LaneBatchMaker::add_sequence(LaneBatch& batch, std::int64_t sequence, std::uint64_t sample, const Change& change) const {
    pack(batch, sequence, 0, sample, change);
    const auto s = static_cast<std::size_t>(sequence);
    for (const Cell& cell : prepared_.cells_of(sequence)) batch.labels.cells.insert(batch.labels.cells.end(), {cell.type, cell.start, cell.end});
    batch.labels.cell_begin.push_back(static_cast<std::int32_t>(batch.labels.cells.size() / 3));
    batch.labels.visible.insert(batch.labels.visible.end(), {prepared_.visible[s].begin, prepared_.visible[s].end});
    ++batch.labels.counted;
}

}  // namespace rf::tasks
