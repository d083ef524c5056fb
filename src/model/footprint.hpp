#pragma once
/// What the model takes from the arena for one packed batch, counted without any memory: for plans of runs that are not here. Follows
/// Encoder and MlmHead tensor by tensor; tests/train/plan_test.cpp holds it to the real arena.

#include "core/dtype.hpp"
#include "core/tensor.hpp"
#include "model/config.hpp"

#include <vector>

namespace rf {

/// core/buffer.hpp's Arena with sizes in place of memory: the same blocks, the same peak.
class ArenaCount {
public:
    struct Mark {
        std::size_t block = 0;
        std::int64_t used = 0, before = 0;
    };
    void take(std::int64_t elements, Dtype dtype);
    Mark mark() const { return at_; }
    void release(const Mark& mark) { at_ = mark; }
    void reset();
    std::int64_t peak_bytes() const { return peak_; }
    /// Bytes in all blocks: what stays allocated.
    std::int64_t held_bytes() const;

private:
    std::vector<std::int64_t> blocks_;
    Mark at_;
    std::int64_t peak_ = 0;
};

/// One rank's part of the model, and a batch.
struct Pass {
    const ModelConfig& model;
    int tensor_rank = 0, tensor_size = 1;
    Device device = Device::cpu;
    Dtype dtype = Dtype::f32;
    std::int64_t tokens = 0;   ///< T
    std::int64_t targets = 0;  ///< M, which the last layer is read at

    std::int64_t heads() const { return model.num_attention_heads / tensor_size; }  ///< h
    std::int64_t inner() const;                                                     ///< f
    std::int64_t vocabulary() const;                                                ///< v
};
/// Empties the arena and works on the batch, as EncoderModel::forward_backward and ::evaluate do.
void count_training(ArenaCount& arena, const Pass& pass);
void count_evaluation(ArenaCount& arena, const Pass& pass);

}  // namespace rf
