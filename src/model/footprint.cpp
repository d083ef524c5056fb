#include "model/footprint.hpp"

#include "kernels/embedding.hpp"
#include "kernels/gemm.hpp"
#include "model/mlm_head.hpp"
#include "params/layout.hpp"

#include <algorithm>
#include <numeric>

namespace rf {

namespace {

constexpr std::int64_t alignment = 128, arena_block = 16 << 20;  // of core/buffer.cpp

/// y, unless it goes elsewhere, and what is kept of the rows' sizes.
void count_norm(ArenaCount& arena, const Pass& p, std::int64_t rows, bool elsewhere = false) {
    if (p.model.style().norm_gain && !elsewhere) arena.take(rows * p.model.hidden_size, p.dtype);
    arena.take(rows, accumulator_of(p.dtype));
}

void count_forward(ArenaCount& arena, const Pass& p, bool keeps) {
    const ModelConfig& m = p.model;
    const Dtype wide = accumulator_of(p.dtype);
    const bool rezero = m.residual_mode == "rezero";
    const BlockStyle style = m.style();
    const std::int64_t t = p.tokens, c = m.hidden_size, width = p.heads() * m.head_size();
    const auto residual = [&](std::int64_t rows, bool elsewhere) {
        if (!rezero) count_norm(arena, p, rows, elsewhere);
        else if (!elsewhere) arena.take(rows * c, p.dtype);
    };
    arena.take(t * c, p.dtype);  // embedded
    count_norm(arena, p, t);
    if (!keeps) arena.take(t * c, p.dtype);  // a layer's result, beside what it is made of
    for (std::int64_t layer = 0; layer < m.num_hidden_layers; ++layer) {
        const ArenaCount::Mark begin = arena.mark();
        const bool last = layer + 1 == m.num_hidden_layers;
        const std::int64_t rows = last ? p.targets : t;
        arena.take(t * 3 * width, p.dtype);   // qkv
        arena.take(t * width, p.dtype);       // context
        arena.take(p.heads() * t, wide);      // log_sum
        if (last) arena.take(rows * width, p.dtype);  // of the context
        arena.take(rows * c, p.dtype);        // f
        if (last) arena.take(rows * c, p.dtype);      // of x
        residual(rows, false);
        arena.take(rows * p.inner(), p.dtype);   // activation
        style.fused_relu() ? arena.take(rows * relu_mask_bytes(p.inner()), Dtype::u8) : arena.take(rows * p.inner(), p.dtype);
        arena.take(rows * c, p.dtype);        // f
        residual(rows, !keeps);
        if (!keeps) arena.release(begin);
    }
}

void count_head(ArenaCount& arena, const Pass& p, bool gradients) {
    const Dtype wide = accumulator_of(p.dtype);
    const std::int64_t v = p.vocabulary();
    const ArenaCount::Mark begin = arena.mark();
    const bool transform = p.model.style().head_transform;
    const auto take_rows = [&] { arena.take(p.targets * p.model.hidden_size, p.dtype); };
    if (transform) {  // around its activation, and the gradient
        take_rows(), take_rows();
        count_norm(arena, p, p.targets);
        if (gradients) take_rows();
    } else if (gradients && p.model.hidden_dropout_prob > 0) {
        take_rows();
    }
    for (std::int64_t done = 0; done < p.targets; done += MlmHead::chunk_rows) {
        const ArenaCount::Mark chunk = arena.mark();
        const std::int64_t n = std::min(MlmHead::chunk_rows, p.targets - done);
        arena.take(n * v, wide);  // logits
        for (int i = 0; i < 2; ++i) arena.take(4 * n, wide);
        arena.take(p.tensor_size * 4 * n, wide);
        if (gradients && p.dtype != wide) arena.take(n * v, p.dtype);
        arena.release(chunk);
    }
    arena.release(begin);
}

void count_backward(ArenaCount& arena, const Pass& p) {
    const ModelConfig& m = p.model;
    const Dtype wide = accumulator_of(p.dtype);
    const bool rezero = m.residual_mode == "rezero";
    const std::int64_t t = p.tokens, c = m.hidden_size, width = p.heads() * m.head_size();
    arena.take(t * c, p.dtype);  // what goes down from the last layer
    for (std::int64_t layer = m.num_hidden_layers; layer-- > 0;) {
        const ArenaCount::Mark begin = arena.mark();
        const bool last = layer + 1 == m.num_hidden_layers;
        const std::int64_t rows = last ? p.targets : t;
        arena.take(rows * c, p.dtype);  // df
        if (rezero) arena.take(rows, Dtype::f32);
        arena.take(rows * c, p.dtype);  // dx of the feed-forward
        const ArenaCount::Mark inner = arena.mark();
        arena.take(rows * p.inner(), p.dtype);  // d_up
        arena.release(inner);
        if (rezero) arena.take(rows, Dtype::f32);
        arena.take(t * c, p.dtype);           // dx of attention
        arena.take(t * width, p.dtype);       // d_context
        if (last) arena.take(rows * width, p.dtype);  // of what was read
        arena.take(t * 3 * width, p.dtype);   // d_qkv
        arena.take(p.heads() * t, wide);
        arena.release(begin);
    }
    if (p.device == Device::cuda) arena.take(embedding_scratch_rows(t, m.type_vocab_size) * c, Dtype::f32);
}

}  // namespace

std::int64_t Pass::inner() const {
    const std::int64_t f = model.intermediate_size;
    return part_begin(f, tensor_rank + 1, tensor_size) - part_begin(f, tensor_rank, tensor_size);
}

std::int64_t Pass::vocabulary() const {
    const std::int64_t v = model.vocab_size;
    return part_begin(v, tensor_rank + 1, tensor_size) - part_begin(v, tensor_rank, tensor_size);
}

void ArenaCount::take(std::int64_t elements, Dtype dtype) {
    const std::int64_t bytes = (std::max<std::int64_t>(elements * size_of(dtype), 1) + alignment - 1) / alignment * alignment;
    while (at_.block < blocks_.size() && at_.used + bytes > blocks_[at_.block]) {
        at_.before += blocks_[at_.block++];
        at_.used = 0;
    }
    if (at_.block == blocks_.size()) blocks_.push_back(std::max(bytes, arena_block));
    at_.used += bytes;
    peak_ = std::max(peak_, at_.before + at_.used);
}

void ArenaCount::reset() {
    if (blocks_.size() > 1) blocks_ = {held_bytes()};
    at_ = {};
}

std::int64_t ArenaCount::held_bytes() const { return std::accumulate(blocks_.begin(), blocks_.end(), std::int64_t{0}); }

void count_training(ArenaCount& arena, const Pass& pass) {
    arena.reset();
    count_forward(arena, pass, true);
    arena.take(pass.targets * pass.model.hidden_size, pass.dtype);  // dx
    count_head(arena, pass, true);
    count_backward(arena, pass);
}

void count_evaluation(ArenaCount& arena, const Pass& pass) {
    arena.reset();
    count_forward(arena, pass, false);
    count_head(arena, pass, false);
}

}  // namespace rf
