#include "train/replay_dump.hpp"

#include <cstdio>

namespace rf {

ReplayDump::ReplayDump(const std::string& path, const ParallelGrid& grid, const Stream& stream, const ParamState& state) : path_(path) {
    if (path.empty()) return;
    if (grid.world.size() != 1) fail_usage("dump_batches works with one rank");
    const auto hold = h5::lock();
    file_ = h5::create_file(path);
    const Buffer host(state.master().bytes());
    const Tensor weights = host.tensor(state.master().shape, state.master().dtype);
    download(stream, state.master(), weights.data);
    for (const ParamEntry& entry : state.layout().entries())
        h5::write(file_, "weights/" + entry.spec.name, weights.part(entry.offset, entry.local), {"1", "initial weights"});
}

void ReplayDump::add(const std::vector<PackedBatch>& lanes, double lr, double alpha, double loss) {
    if (file_ < 0) return;
    const auto hold = h5::lock();
    PackedBatch all;
    all.clear();
    for (const PackedBatch& lane : lanes) {
        const auto base = static_cast<std::int32_t>(all.ids.size());
        all.ids.insert(all.ids.end(), lane.ids.begin(), lane.ids.end());
        for (std::size_t s = 1; s < lane.cu_seqlens.size(); ++s) all.cu_seqlens.push_back(base + lane.cu_seqlens[s]);
        for (const std::int32_t row : lane.rows) all.rows.push_back(base + row);
        all.targets.insert(all.targets.end(), lane.targets.begin(), lane.targets.end());
    }
    char name[40];
    std::snprintf(name, sizeof name, "batches/%06lld", static_cast<long long>(next_++));
    const std::string group = name;
    h5::write_vector(file_, group + "/tokens", all.ids, {"ids", "packed"});
    h5::write_vector(file_, group + "/cu_seqlens", all.cu_seqlens, {"tokens", "first token of each sequence"});
    h5::write_vector(file_, group + "/rows", all.rows, {"tokens", "predicted positions"});
    h5::write_vector(file_, group + "/targets", all.targets, {"ids", "original ids there"});
    const h5::Group g(h5::check(H5Gopen2(file_, name, H5P_DEFAULT), name));
    h5::set_attribute(g, "lr", lr);
    h5::set_attribute(g, "alpha", alpha);
    h5::set_attribute(g, "loss", loss);
    h5::flush_file(file_, path_);
}

void ReplayDump::name_task(const tasks::Task& task) {
    if (file_ < 0) return;
    const auto hold = h5::lock();
    h5::set_attribute(file_, "kind", "finetune");
    h5::set_attribute(file_, "task", task.file.name);
    h5::set_attribute(file_, "head", task.file.kind);
    h5::set_attribute(file_, "head_size", task.file.head.size);
}

std::string ReplayDump::add_sequences(const char* what, std::int64_t number, const tasks::LaneBatch& batch) {
    char name[40];
    std::snprintf(name, sizeof name, "%s-%08lld", what, static_cast<long long>(number));
    const std::string group = name;
    const tasks::LabelLists& labels = batch.labels;
    h5::write_vector(file_, group + "/ids", batch.packed.ids, {"ids", "packed"});
    h5::write_vector(file_, group + "/cu_seqlens", batch.packed.cu_seqlens, {"tokens", "first token of each sequence"});
    h5::write_vector(file_, group + "/rows", labels.rows, {"tokens", "first token of each sequence"});
    if (!labels.label.empty()) h5::write_vector(file_, group + "/label", labels.label, {"1", "right classes"});
    if (labels.visible.empty()) return group;
    const auto write = [&](const char* list, const std::vector<std::int32_t>& values, std::int64_t width, const char* about) {
        h5::write(file_, group + list, view(values.data(), {static_cast<std::int64_t>(values.size()) / width, width}), {"tokens", about});
    };
    write("/cells", labels.cells, 3, "right cells: type, start, end");
    h5::write_vector(file_, group + "/cell_begin", labels.cell_begin, {"cells", "first cell of each sequence"});
    write("/visible", labels.visible, 2, "tokens that may be ends of a cell");
    return group;
}

void ReplayDump::add_task(const std::vector<tasks::LaneBatch>& lanes, double lr, double alpha, double loss) {
    if (file_ < 0) return;
    const auto hold = h5::lock();
    tasks::LaneBatch all = lanes.front();
    for (std::size_t i = 1; i < lanes.size(); ++i) {
        const tasks::LaneBatch& lane = lanes[i];
        const auto base = static_cast<std::int32_t>(all.packed.ids.size()), cells = static_cast<std::int32_t>(all.labels.cells.size() / 3);
        const auto append = [](std::vector<std::int32_t>& to, const std::vector<std::int32_t>& from, std::int32_t more, std::size_t skip = 0) {
            for (std::size_t k = skip; k < from.size(); ++k) to.push_back(from[k] + more);
        };
        append(all.packed.ids, lane.packed.ids, 0);
        append(all.packed.cu_seqlens, lane.packed.cu_seqlens, base, 1);
        append(all.labels.rows, lane.labels.rows, base);
        append(all.labels.label, lane.labels.label, 0);
        append(all.labels.cells, lane.labels.cells, 0);
        append(all.labels.cell_begin, lane.labels.cell_begin, cells, 1);
        append(all.labels.visible, lane.labels.visible, 0);
    }
    const std::string group = add_sequences("update", ++next_, all);
    const h5::Group g(h5::check(H5Gopen2(file_, group.c_str(), H5P_DEFAULT), group));
    h5::set_attribute(g, "lr", lr);
    h5::set_attribute(g, "alpha", alpha);
    h5::set_attribute(g, "loss", loss);
    h5::flush_file(file_, path_);
}

void ReplayDump::add_dev(const tasks::LaneBatch& batch, const std::vector<std::uint16_t>& characters) {
    if (file_ < 0) return;
    const auto hold = h5::lock();
    const std::string group = add_sequences("dev", ++next_dev_, batch);
    if (!characters.empty()) {
        const std::vector<std::int32_t> wide(characters.begin(), characters.end());
        h5::write(file_, group + "/characters", view(wide.data(), {static_cast<std::int64_t>(wide.size()) / 2, 2}), {"characters", "of each token"});
    }
}

}  // namespace rf
