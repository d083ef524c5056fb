#include "params/layout.hpp"

#include <algorithm>

namespace rf {

namespace {
constexpr std::int64_t entry_alignment = 64;  // 128 bytes of bf16, the narrowest dtype of a flat buffer
std::int64_t round_up(std::int64_t n, std::int64_t unit) { return (n + unit - 1) / unit * unit; }
}  // namespace

ParamId ParamLayout::add(ParamSpec spec) {
    ParamEntry entry{.spec = std::move(spec), .local = {}, .split_begin = 0, .offset = size_total_, .first_group = groups_};
    entry.local = entry.spec.shape;
    if (const int axis = entry.spec.split_axis; axis >= 0) {
        const std::int64_t n = entry.spec.shape[axis];
        if (n < size_) fail_usage(entry.spec.name, ": ", n, " rows do not divide over ", size_, " tensor ranks");
        entry.split_begin = part_begin(n, rank_, size_);
        entry.local[axis] = part_begin(n, rank_ + 1, size_) - entry.split_begin;
    }
    const std::int64_t count = entry.local.count(), group_length = count / entry.spec.tensors;
    RF_REQUIRE(group_length * entry.spec.tensors == count, entry.spec.name, " does not divide into its tensors");
    for (std::int64_t at = 0; at < count;) {
        const std::int64_t begin = entry.offset + at;
        const std::int64_t to_block = segment_length - begin % segment_length;
        const std::int64_t to_group = group_length - at % group_length;
        const std::int64_t n = std::min({to_block, to_group, count - at});
        segments_.push_back({begin, begin + n, groups_ + at / group_length, entry.spec.decays ? 1 : 0});
        at += n;
    }
    groups_ += static_cast<std::int32_t>(entry.spec.tensors);
    size_total_ += round_up(count, entry_alignment);
    entries_.push_back(std::move(entry));
    return {static_cast<int>(entries_.size()) - 1};
}

std::int64_t ParamLayout::parameter_count() const {
    std::int64_t n = 0;
    for (const ParamEntry& entry : entries_) n += entry.spec.shape.count();
    return n;
}

std::string ParamLayout::group_name(std::int32_t group) const {
    for (const ParamEntry& entry : entries_) {
        const std::int64_t slice = group - entry.first_group;
        if (slice < 0 || slice >= entry.spec.tensors) continue;
        return entry.spec.tensors == 1 ? entry.spec.name : message(entry.spec.name, "[", slice, "]");
    }
    return message("group ", group);
}

}  // namespace rf
