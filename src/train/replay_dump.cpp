#include "train/replay_dump.hpp"

#include <cstdio>

namespace rf {

ReplayDump::ReplayDump(const std::string& path, const ParallelGrid& grid, const Stream& stream, const ParamState& state) {
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
    H5Fflush(file_, H5F_SCOPE_LOCAL);
}

}  // namespace rf
