#include "params/state.hpp"

#include "kernels/elementwise.hpp"

namespace rf {

StateBytes state_bytes(const Shards& shards, Dtype dtype, bool moments) {
    const Dtype wide = accumulator_of(dtype);
    const std::int64_t shard = shards.shard_size() * size_of(wide);
    return {.weights = shards.padded_size() * size_of(dtype), .master = dtype == wide && shards.ranks() == 1 ? 0 : shard, .moment = moments ? shard : 0};
}

ParamState::ParamState(const ParamLayout& layout, const ParallelGrid& grid, Device device, Dtype dtype, bool moments, std::int64_t bucket)
    : layout_(layout),
      shards_(layout.size(), grid.data->size(), bucket),
      data_rank_(grid.data->rank()) {
    const std::int64_t shard = shard_size();
    const Dtype wide = accumulator_of(dtype);
    const StateBytes sizes = state_bytes(shards_, dtype, moments);
    weights_ = Buffer(sizes.weights, device);
    weights_flat_ = weights_.tensor({padded_size()}, dtype);
    if (sizes.master == 0) {
        master_flat_ = weights_flat_;  // one copy serves as both
    } else {
        master_ = Buffer(sizes.master, device);
        master_flat_ = master_.tensor({shard}, wide);
    }
    if (!moments) return;
    m_ = Buffer(sizes.moment, device);
    v_ = Buffer(sizes.moment, device);
    m_flat_ = m_.tensor({shard}, wide);
    v_flat_ = v_.tensor({shard}, wide);
}

void ParamState::publish_weights(Stream& stream, Communicator& data) const {
    if (master_flat_.data == weights_flat_.data) return;
    for (int b = 0; b < shards_.buckets(); ++b) {
        const Range whole = shards_.bucket(b), piece = shards_.piece(b, data_rank_), at = shards_.in_shard(b);
        const Tensor own = weights_flat_.part(piece.begin, {piece.size()});
        cast(stream, {.x = master_flat_.part(at.begin, {at.size()}), .y = own});
        data.all_gather(stream, own, weights_flat_.part(whole.begin, {whole.size()}));
    }
}

}  // namespace rf
