#pragma once
/// The numbers of a training run on one rank: whole working weights of its tensor part, and its data shard of master
/// weights and moments (ZeRO stage 1, Rajbhandari et al. 2020).

#include "comm/parallel_grid.hpp"
#include "core/buffer.hpp"
#include "params/layout.hpp"
#include "params/shards.hpp"

namespace rf {

/// What a rank's buffers take.
struct StateBytes {
    std::int64_t weights = 0;
    std::int64_t master = 0;  ///< 0: the working weights serve as masters too
    std::int64_t moment = 0;  ///< m, and v as much
    std::int64_t total() const { return weights + master + 2 * moment; }
};
StateBytes state_bytes(const Shards& shards, Dtype dtype, bool moments);

class ParamState {
public:
    /// `moments`: also m and v (training). Masters are f32, or f64 when the working weights are. `bucket`: see Shards.
    ParamState(const ParamLayout& layout, const ParallelGrid& grid, Device device, Dtype dtype, bool moments, std::int64_t bucket = 0);

    const ParamLayout& layout() const { return layout_; }
    ParamView weights() const { return {layout_, weights_flat_}; }
    const Tensor& master() const { return master_flat_; }  ///< [shard]
    const Tensor& m() const { return m_flat_; }
    const Tensor& v() const { return v_flat_; }
    const Shards& shards() const { return shards_; }
    int data_rank() const { return data_rank_; }
    std::int64_t shard_size() const { return shards_.shard_size(); }
    std::int64_t padded_size() const { return shards_.padded_size(); }
    /// Working weights of all ranks from the masters: cast, then all-gather over the data group, bucket by bucket in place.
    void publish_weights(Stream& stream, Communicator& data) const;
    std::int64_t bytes() const { return weights_.size() + master_.size() + m_.size() + v_.size(); }

private:
    const ParamLayout& layout_;
    Shards shards_;
    int data_rank_;
    Buffer weights_, master_, m_, v_;
    Tensor weights_flat_, master_flat_, m_flat_, v_flat_;
};

}  // namespace rf
