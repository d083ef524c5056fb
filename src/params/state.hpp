#pragma once
/// The numbers of a training run on one rank: whole working weights of its tensor part, and its data shard of master
/// weights and moments (ZeRO stage 1, Rajbhandari et al. 2020).

#include "comm/parallel_grid.hpp"
#include "core/buffer.hpp"
#include "params/layout.hpp"

namespace rf {

class ParamState {
public:
    /// `moments`: also m and v (training). Masters are f32, or f64 when the working weights are.
    ParamState(const ParamLayout& layout, const ParallelGrid& grid, Device device, Dtype dtype, bool moments);

    const ParamLayout& layout() const { return layout_; }
    ParamView weights() const { return {layout_, weights_flat_}; }
    const Tensor& master() const { return master_flat_; }  ///< [shard]
    const Tensor& m() const { return m_flat_; }
    const Tensor& v() const { return v_flat_; }
    std::int64_t shard_size() const { return shard_; }
    std::int64_t offset() const { return offset_; }        ///< first element of the shard
    std::int64_t padded_size() const { return shard_ * data_size_; }
    /// Working weights of all ranks from the masters: cast, then all-gather over the data group.
    void publish_weights(Stream& stream, Communicator& data) const;
    std::int64_t bytes() const { return weights_.size() + master_.size() + m_.size() + v_.size(); }

private:
    const ParamLayout& layout_;
    int data_size_;
    std::int64_t shard_, offset_;
    Buffer weights_, master_, m_, v_;
    Tensor weights_flat_, master_flat_, m_flat_, v_flat_;
};

}  // namespace rf
