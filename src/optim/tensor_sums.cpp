#include "optim/tensor_sums.hpp"

#include "kernels/elementwise.hpp"

#include <algorithm>

namespace rf {

TensorSums::TensorSums(const ParamState& state, ParallelGrid& grid, const Stream& stream) : grid_(grid) {
    const ParamLayout& layout = state.layout();
    const Shards& shards = state.shards();
    const std::int64_t groups = layout.group_count();
    std::vector<Segment> own;
    std::vector<std::int32_t> group_begin;
    std::int64_t number = 0;
    for (const Segment& segment : layout.segments()) {
        if (segment.group == static_cast<std::int64_t>(group_begin.size())) group_begin.push_back(static_cast<std::int32_t>(number));
        const std::int64_t at = shards.owned_before(segment.begin, state.data_rank()), end = shards.owned_before(segment.end, state.data_rank());
        if (at < end) {
            const auto before = static_cast<std::int64_t>(own.size());
            if (runs_.empty() || runs_.back().all + runs_.back().count != number) runs_.push_back({.own = before, .all = number});
            ++runs_.back().count;
            own.push_back({at, end, segment.group, segment.decays});
        }
        ++number;
    }
    group_begin.push_back(static_cast<std::int32_t>(number));
    // A tensor held whole by every tensor rank counts on the first one only.
    std::vector<std::uint8_t> counted(static_cast<std::size_t>(groups), 1);
    if (grid_.tensor->rank() != 0)
        for (const ParamEntry& entry : layout.entries())
            if (entry.spec.split_axis < 0)
                for (std::int64_t g = 0; g < entry.spec.tensors; ++g) counted[static_cast<std::size_t>(entry.first_group + g)] = 0;
    const Device device = stream.device();
    segments_ = on_device(stream, own);
    group_begin_ = on_device(stream, group_begin);
    counted_ = on_device(stream, counted);
    sums_ = Buffer(number * sum_columns * 8, device);
    groups_ = Buffer(groups * sum_columns * 8, device);
    const Shape own_shape{static_cast<std::int64_t>(own.size()), sum_columns};
    if (shards.ranks() > 1) own_memory_ = Buffer(std::max<std::int64_t>(own_shape.count(), 1) * 8, device);
    own_ = (shards.ranks() > 1 ? own_memory_ : sums_).tensor(own_shape, Dtype::f64);
}

OptimizerShard TensorSums::shard(const ParamState& state) const {
    return {.weight = state.master(), .m = state.m(), .v = state.v(), .gradient = {},
            .segments = segments_.tensor({segments_.size()}, Dtype::u8)};
}

void TensorSums::join(Stream& stream) {
    const std::int64_t groups = group_count();
    const Tensor all = sums_.tensor({sums_.size() / (sum_columns * 8), sum_columns}, Dtype::f64);
    if (grid_.data->size() > 1) {
        // Every other rank's rows are zero here, so the sum over the data group only puts the pieces together.
        fill_zero(stream, all);
        for (const Run& run : runs_) copy(stream, own_.rows(run.own, run.own + run.count), all.rows(run.all, run.all + run.count));
        grid_.data->all_reduce(stream, all, ReduceOp::sum);
    }
    join_sums(stream, {.sums = all,
                       .group_begin = group_begin_.tensor({groups + 1}, Dtype::i32),
                       .counted = counted_.tensor({groups}, Dtype::u8),
                       .groups = totals()});
    grid_.tensor->all_reduce(stream, totals(), ReduceOp::sum);
}

}  // namespace rf
