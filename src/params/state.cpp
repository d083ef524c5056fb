#include "params/state.hpp"

#include "kernels/elementwise.hpp"

namespace rf {

ParamState::ParamState(const ParamLayout& layout, const ParallelGrid& grid, Device device, Dtype dtype, bool moments)
    : layout_(layout),
      data_size_(grid.data->size()),
      shard_(layout.shard_size(data_size_)),
      offset_(shard_ * grid.data->rank()) {
    const Dtype wide = accumulator_of(dtype);
    weights_ = Buffer(padded_size() * size_of(dtype), device);
    weights_flat_ = weights_.tensor({padded_size()}, dtype);
    if (dtype == wide) {
        master_flat_ = weights_flat_.part(offset_, {shard_});  // one copy serves as both
    } else {
        master_ = Buffer(shard_ * size_of(wide), device);
        master_flat_ = master_.tensor({shard_}, wide);
    }
    if (!moments) return;
    m_ = Buffer(shard_ * size_of(wide), device);
    v_ = Buffer(shard_ * size_of(wide), device);
    m_flat_ = m_.tensor({shard_}, wide);
    v_flat_ = v_.tensor({shard_}, wide);
}

void ParamState::publish_weights(Stream& stream, Communicator& data) const {
    const Tensor own = weights_flat_.part(offset_, {shard_});
    if (master_flat_.data != own.data) cast(stream, {.x = master_flat_, .y = own});
    data.all_gather(stream, own, weights_flat_);
}

}  // namespace rf
