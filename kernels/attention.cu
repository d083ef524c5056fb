#include "kernels/attention.hpp"

#include "kernels/nvidia/attention_plain.cuh"
#include "kernels/nvidia/attention_tensor_gradient.cuh"

namespace rf {

namespace {

using namespace device;

/// Heads of this dtype and size are for tensor cores.
template <class T>
bool on_tensor_cores(std::int64_t head_size) {
    return sizeof(T) == 2 && head_size == tensor_head;
}

template <class T, class Args>
AttentionProblem<T> problem_of(const Args& a) {
    const std::int64_t d = a.qkv.shape[3];
    RF_REQUIRE(d % 2 == 0 && d <= plain_largest_head, "attention on a GPU takes even head sizes to ", plain_largest_head, ", not ", d);
    RF_REQUIRE(a.dropout.threshold() < 65536, "attention cannot drop every element (a rate of ", a.dropout.rate, ")");
    Dropout dropout = a.dropout;
    dropout.detail = dropout.detail * 256 + static_cast<std::uint32_t>(a.first_head);
    return {.qkv = a.qkv.template as<T>(),
            .rotary = a.rotary ? a.rotary.template as<float>() : nullptr,
            .bounds = a.cu_seqlens.template as<std::int32_t>(),
            .sample = a.sample ? a.sample.template as<std::int32_t>() : nullptr,
            .context = nullptr,
            .d_context = nullptr,
            .out = nullptr,
            .log_sum = nullptr,
            .row_sum = nullptr,
            .drop = argument(dropout),
            .scale = static_cast<float>(a.scale),
            .tokens = narrow(a.qkv.shape[0], "the number of tokens"),
            .sequences = narrow(a.cu_seqlens.shape[0] - 1, "the number of sequences"),
            .heads = narrow(a.qkv.shape[2], "the number of heads"),
            .channels = static_cast<int>(d)};
}

/// Sequences of one launch: the grid's z axis ends at 65535, and clearing needs some of it.
constexpr int launch_sequences = 32768;

/// Starts a kernel with a block for every `rows` rows of the longest sequence, each head and sequence; `clearing`: and
/// blocks for the tokens that belong to no sequence.
template <class T>
void launch_over(Stream& stream, const char* name, void (*kernel)(AttentionProblem<T>), AttentionProblem<T> p, std::int64_t longest, int rows, int threads,
                 std::size_t shared, bool clearing) {
    const std::int64_t reach = longest > 0 ? std::min<std::int64_t>(longest, p.tokens) : p.tokens;
    dim3 grid(blocks_for(reach, rows), static_cast<unsigned>(p.heads));
    if (grid.x == 0 || grid.y == 0) return;
    const int all = p.sequences;
    for (int from = 0; from == 0 || from < all; from += launch_sequences) {
        p.sequences = std::min(all - from, int{launch_sequences});
        const bool last = from + p.sequences == all;
        grid.z = static_cast<unsigned>(p.sequences);
        if (clearing && last) grid.z += blocks_for(blocks_for(p.tokens, clearing_tokens), std::int64_t{grid.x} * grid.y);
        launch({.name = name, .grid = grid, .block = dim3(static_cast<unsigned>(threads)), .shared = shared, .stream = stream.handle()}, kernel, p);
        p.bounds += p.sequences;
        if (p.sample) p.sample += p.sequences;
    }
}

void forward_on_tensor_cores(Stream& stream, const AttentionProblem<bfloat16>& p, std::int64_t longest) {
    RF_REQUIRE(whole_packs(tensor_head, {p.qkv, p.out, p.rotary}), "attention needs operands on 16 bytes");
    launch_over(stream, "attention_tensor", p.drop.threshold ? attention_tensor_kernel<true> : attention_tensor_kernel<false>, p, longest, tensor_rows,
                tensor_threads, sizeof(ForwardTiles), true);
}

void backward_on_tensor_cores(Stream& stream, const AttentionProblem<bfloat16>& p, std::int64_t longest) {
    RF_REQUIRE(whole_packs(tensor_head, {p.qkv, p.context, p.d_context, p.out, p.rotary}), "attention_backward needs operands on 16 bytes");
    launch_over(stream, "attention_query_gradient", p.drop.threshold ? attention_query_gradient_kernel<true> : attention_query_gradient_kernel<false>, p, longest,
                tensor_rows, tensor_threads, sizeof(QueryTiles), true);
    launch_over(stream, "attention_key_gradient", p.drop.threshold ? attention_key_gradient_kernel<true> : attention_key_gradient_kernel<false>, p, longest,
                tensor_rows, tensor_threads, sizeof(KeyTiles), false);
}

template <class T, int Width>
void forward_plain(Stream& stream, const AttentionProblem<T>& p, std::int64_t longest) {
    launch_over(stream, "attention_plain", attention_plain_kernel<T, Width>, p, longest, plain_rows, plain_threads, sizeof(PlainTiles<Width>), true);
}

template <class T, int Width>
void backward_plain(Stream& stream, const AttentionProblem<T>& p, std::int64_t longest) {
    launch_over(stream, "attention_plain_query_gradient", attention_plain_gradient_kernel<T, Width, false>, p, longest, plain_rows, plain_threads,
                sizeof(PlainTiles<Width>), true);
    launch_over(stream, "attention_plain_key_gradient", attention_plain_gradient_kernel<T, Width, true>, p, longest, plain_rows, plain_threads,
                sizeof(PlainTiles<Width>), false);
}

}  // namespace

namespace cuda {

void attention(Stream& stream, const Attention& a) {
    device::dispatch(a.qkv.dtype, [&](auto type) {
        using T = decltype(type);
        AttentionProblem<T> p = problem_of<T>(a);
        p.out = a.context.as<T>();
        p.log_sum = a.log_sum.as<float>();
        if constexpr (sizeof(T) == 2)
            if (on_tensor_cores<T>(p.channels)) return forward_on_tensor_cores(stream, p, a.longest);
        if (p.channels <= 64) return forward_plain<T, 64>(stream, p, a.longest);
        forward_plain<T, 128>(stream, p, a.longest);
    });
}

void attention_backward(Stream& stream, const AttentionBackward& a) {
    RF_REQUIRE(a.scratch && a.scratch.dtype == Dtype::f32 && (a.scratch.shape == Shape{a.qkv.shape[2], a.qkv.shape[0]}),
               "attention_backward needs scratch [h, T] f32 on a GPU");
    device::dispatch(a.qkv.dtype, [&](auto type) {
        using T = decltype(type);
        AttentionProblem<T> p = problem_of<T>(a);
        p.context = a.context.as<T>();
        p.d_context = a.d_context.as<T>();
        p.out = a.d_qkv.as<T>();
        p.log_sum = const_cast<float*>(a.log_sum.as<float>());  // only read
        p.row_sum = a.scratch.as<float>();
        if constexpr (sizeof(T) == 2)
            if (on_tensor_cores<T>(p.channels)) return backward_on_tensor_cores(stream, p, a.longest);
        if (p.channels <= 64) return backward_plain<T, 64>(stream, p, a.longest);
        backward_plain<T, 128>(stream, p, a.longest);
    });
}

}  // namespace cuda

}  // namespace rf
