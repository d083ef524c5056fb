#include "kernels/attention.hpp"
#include "kernels/rotary.hpp"

#include "tests/kernels/twin.hpp"

#include <numeric>

using namespace rf;
using namespace rf::test;

namespace {

struct Case {
    std::vector<std::int64_t> lengths;
    std::int64_t heads = 1, head_size = 64;
    Dtype dtype = Dtype::bf16;
    bool turned = true;
    double rate = 0.1;
    std::int64_t padding = 0;  ///< tokens after the last sequence
    std::int64_t longest = 0;
    double apart = 0;  ///< q lies so far above 0 and k below
};

/// Forward and backward on both devices. bf16 on tensor cores: turned q and k, probabilities and score gradients are rounded
/// to bf16 before they are multiplied, as results are on both sides: a last place of a number to 1 each. Scores of about 1
/// then move by some 2^-9 either way and their log-sums by a quarter of it, unless nothing is turned: products of bf16 numbers
/// are exact.
void check_case(const Case& c) {
    std::int64_t tokens = std::accumulate(c.lengths.begin(), c.lengths.end(), std::int64_t{0}) + c.padding;
    const auto sequences = static_cast<std::int64_t>(c.lengths.size());
    BOOST_TEST_CONTEXT(sequences << " sequences, T " << tokens << " h " << c.heads << " D " << c.head_size << ' ' << name_of(c.dtype) << " turned " << c.turned << " rate "
                                 << c.rate << " padding " << c.padding << " longest " << c.longest) {
        Streams s;
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

}  // namespace

BOOST_AUTO_TEST_CASE(every_remainder_on_tensor_cores) {
    check_case({.lengths = {1, 2, 7, 8, 9, 0, 16, 17, 31, 33, 64, 65, 96, 127, 129}});
}

BOOST_AUTO_TEST_CASE(several_blocks_of_rows_on_tensor_cores) {
    check_case({.lengths = {137, 3}, .heads = 2, .padding = 11, .longest = 137});
    check_case({.lengths = {193}, .turned = false, .rate = 0});
}

// Zeros that stand for keys past the end would have probability exp(200), and their gradients infinite parts in d_q.
BOOST_AUTO_TEST_CASE(scores_far_below_zero) {
    check_case({.lengths = {5, 34}, .turned = false, .apart = 5});
    check_case({.lengths = {5, 34}, .head_size = 32, .turned = false, .apart = 7});
}

BOOST_AUTO_TEST_CASE(every_remainder_in_f32) {
    check_case({.lengths = {1, 2, 0, 15, 16, 17, 31, 32, 33, 65}, .heads = 2, .dtype = Dtype::f32, .padding = 3});
    check_case({.lengths = {70, 5}, .heads = 1, .dtype = Dtype::f32, .turned = false, .rate = 0, .longest = 70});
}

BOOST_AUTO_TEST_CASE(other_head_sizes) {
    for (const std::int64_t head_size : {2, 6, 66, 128}) check_case({.lengths = {19, 1, 40}, .heads = 2, .head_size = head_size, .dtype = Dtype::f32});
    for (const std::int64_t head_size : {32, 128}) check_case({.lengths = {5, 35}, .heads = 2, .head_size = head_size, .padding = 300});
}

BOOST_AUTO_TEST_CASE(no_sequences_and_no_tokens) {
    for (const Dtype dtype : {Dtype::f32, Dtype::bf16}) {
        check_case({.lengths = {}, .dtype = dtype, .padding = 0});
        check_case({.lengths = {}, .dtype = dtype, .padding = 5});
        check_case({.lengths = {0, 0}, .dtype = dtype, .padding = 1});
    }
}

BOOST_AUTO_TEST_CASE(what_kernels_cannot_do_is_refused) {
    BOOST_CHECK_THROW(check_case({.lengths = {2}, .head_size = 130, .dtype = Dtype::f32}), Error);
    BOOST_CHECK_THROW(check_case({.lengths = {2}, .rate = 1}), Error);
}
