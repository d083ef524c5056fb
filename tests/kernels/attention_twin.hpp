#pragma once
/// Attention, forward and backward, of a packed batch on the CPU and on the CUDA device.

#include "kernels/attention.hpp"
#include "kernels/rotary.hpp"
#include "tests/kernels/twin.hpp"

#include <numeric>

namespace rf::test {

struct AttentionCase {
    std::vector<std::int64_t> lengths;
    std::int64_t heads = 1, head_size = 64;
    Dtype dtype = Dtype::bf16;
    bool turned = true;
    double rate = 0.1;
    std::int64_t padding = 0;  ///< tokens after the last sequence
    std::int64_t longest = 0;
    double apart = 0;  ///< q lies so far above 0 and k below
    bool repeats = true;
};

/// Forward and backward on both devices. bf16 on tensor cores: turned q and k, probabilities and score gradients are rounded
/// to bf16 before they are multiplied, as results are on both sides: a last place of a number to 1 each. Scores of about 1
/// then move by some 2^-9 either way and their log-sums by a quarter of it, unless nothing is turned: products of bf16 numbers
/// are exact.
inline void check_attention(const AttentionCase& c) {
    std::int64_t tokens = std::accumulate(c.lengths.begin(), c.lengths.end(), std::int64_t{0}) + c.padding;
    const auto sequences = static_cast<std::int64_t>(c.lengths.size());
    BOOST_TEST_CONTEXT(sequences << " sequences, T " << tokens << " h " << c.heads << " D " << c.head_size << ' ' << name_of(c.dtype) << " turned " << c.turned << " rate "
                                 << c.rate << " padding " << c.padding << " longest " << c.longest) {
        Streams s;
        s.repeats = c.repeats;
        std::vector<std::int64_t> bounds{0};
        for (const std::int64_t n : c.lengths) bounds.push_back(bounds.back() + n);
        const Twin cu_seqlens(s, {sequences + 1}, Dtype::i32, [&](std::int64_t i) { return static_cast<double>(bounds[static_cast<std::size_t>(i)]); });
        const Twin sample(s, {sequences}, Dtype::i32, [](std::int64_t i) { return static_cast<double>(i * 1000003 % 4096 - 2048); });
        const Shape qkv_shape{tokens, 3, c.heads, c.head_size}, shape{tokens, c.heads, c.head_size}, rows{c.heads, tokens};
        const std::int64_t positions = c.lengths.empty() ? 1 : std::max<std::int64_t>(*std::max_element(c.lengths.begin(), c.lengths.end()), 1);
        std::vector<float> angles(static_cast<std::size_t>(positions * c.head_size));
        rotary_table(view(angles.data(), {positions, c.head_size / 2, 2}));
        const Twin table(s, {positions, c.head_size / 2, 2}, Dtype::f32, [&](std::int64_t i) { return static_cast<double>(angles[static_cast<std::size_t>(i)]); });
        const auto numbers = [&, random = std::mt19937(1)](std::int64_t i) mutable {
            const std::int64_t part = i / (c.heads * c.head_size) % 3;
            return static_cast<double>(random()) * 0x1p-31 - 1 + (part == 0 ? c.apart : part == 1 ? -c.apart : 0);
        };
        const Twin qkv(s, qkv_shape, c.dtype, numbers), context(s, shape, c.dtype, 2), log_sum(s, rows, Dtype::f32, 3);
        const Twin d_context(s, shape, c.dtype, 4), d_qkv(s, qkv_shape, c.dtype, 5), scratch(s, rows, Dtype::f32, 6);
        const Dropout dropout{.rate = c.rate, .seed = 77, .detail = 3};
        const double scale = 1 / std::sqrt(static_cast<double>(c.head_size));
        s.run([&](Stream& on) {
            const ConstTensor rotary = c.turned ? ConstTensor(table.on(on)) : ConstTensor();
            attention(on, {.qkv = qkv.on(on), .rotary = rotary, .cu_seqlens = cu_seqlens.on(on), .sample = sample.on(on), .context = context.on(on),
                           .log_sum = log_sum.on(on), .scale = scale, .first_head = 2, .longest = c.longest, .dropout = dropout});
            attention_backward(on, {.qkv = qkv.on(on), .rotary = rotary, .cu_seqlens = cu_seqlens.on(on), .sample = sample.on(on), .context = context.on(on),
                                    .log_sum = log_sum.on(on), .d_context = d_context.on(on), .d_qkv = d_qkv.on(on), .scratch = scratch.on(on),
                                    .scale = scale, .first_head = 2, .longest = c.longest, .dropout = dropout});
        });
        context.check("context");
        log_sum.check(c.dtype == Dtype::bf16 && c.turned ? 0x1p-11 : 1e-5, "log_sum");
        d_qkv.check(device_bound(c.dtype) * (1 + c.apart), "d_qkv");  // rounded score gradients sum to zero only before they meet q and k
    }
}

}  // namespace rf::test
