#pragma once
/// Files of a checkpoint folder, for those who write one: a part of every writing rank, and the index over all.

#include "params/checkpoint.hpp"

namespace rf {

struct WritingRanks {
    int tensor = 1;
    int data = 1;
};

inline constexpr char checkpoint_part_prefix[] = "part-";
std::string checkpoint_part_name(int tensor_rank, int data_rank);

/// Writes checkpoint.h5 and its digest. `arrays`: 1 for the weights, 3 with both moments. `layout`: of any tensor rank.
void write_checkpoint_index(const std::filesystem::path& folder, const CheckpointMeta& meta, const ParamLayout& layout, WritingRanks ranks,
                            std::size_t arrays, Dtype dtype);

}  // namespace rf
