#include "kernels/cross_entropy.hpp"

#include "kernels/nvidia/row.cuh"

#include <cmath>
#include <limits>

namespace rf {

namespace {

using namespace device;

constexpr int threads = 256, warps = threads / 32;
constexpr int batch = 4;       // packs of a row under way in a thread
constexpr int sum_warps = 32;  // of the one block that sums all rows

__device__ inline float exp_fast(float x) { return exp2_fast(x * 1.44269504088896341F); }

/// What is known of some logits: the largest, its id (the lowest on ties), and the sum of exp(logit - largest).
struct Share {
    float maximum = -std::numeric_limits<float>::infinity();
    float sum = 0;
    int id = std::numeric_limits<int>::max();

    /// What exponents are taken against: nothing counts before the first finite logit, and -inf - -inf must not be asked.
    __device__ float base() const { return maximum == -std::numeric_limits<float>::infinity() ? 0.0F : maximum; }
    __device__ void join(const Share& other) {
        const float own = maximum;
        if (other.maximum > maximum || (other.maximum == maximum && other.id < id)) {
            maximum = other.maximum;
            id = other.id;
        }
        sum = sum * exp_fast(own - base()) + other.sum * exp_fast(other.maximum - base());
    }
    __device__ void join_lane(int mask) { join({shuffle_xor(maximum, mask), shuffle_xor(sum, mask), shuffle_xor(id, mask)}); }
};

struct Shares {
    Share of[warps];
};

/// One block a row of v logits, read once: each thread keeps the maximum and the sum of exponentials so far, rescaled when the
/// maximum rises; threads join in a fixed tree. Whole: v % 4 == 0 and 16-byte aligned rows.
template <bool Whole>
__global__ void __launch_bounds__(threads) softmax_stats_kernel(const float* logits, const std::int32_t* targets, float* stats, std::int64_t first_id, int m, int v) {
    constexpr int width = Whole ? 4 : 1;
    Shares& shares = shared_memory<Shares>();
    const int i = static_cast<int>(blockIdx.x);
    const float* row = logits + std::int64_t{i} * v;
    Share share;
    for (int first = static_cast<int>(threadIdx.x) * width; first < v; first += threads * width * batch) {
        Pack<float, width> packs[batch];
        Share part;
#pragma unroll
        for (int b = 0; b < batch; ++b) {
            const int column = first + b * threads * width;
#pragma unroll
            for (int k = 0; k < width; ++k) packs[b].v[k] = -std::numeric_limits<float>::infinity();
            if (column < v) packs[b] = load(reinterpret_cast<const Pack<float, width>*>(row + column));
        }
#pragma unroll
        for (int b = 0; b < batch; ++b)
#pragma unroll
            for (int k = 0; k < width; ++k)
                if (packs[b].v[k] > part.maximum) {
                    part.maximum = packs[b].v[k];
                    part.id = first + b * threads * width + k;
                }
#pragma unroll
        for (int b = 0; b < batch; ++b)
#pragma unroll
            for (int k = 0; k < width; ++k) part.sum += exp_fast(packs[b].v[k] - part.base());
        share.join(part);
    }
    for (int mask = 16; mask > 0; mask >>= 1) share.join_lane(mask);
    if (lane() == 0) shares.of[warp()] = share;
    block_barrier();
    if (threadIdx.x != 0) return;
    for (int w = 1; w < warps; ++w) share.join(shares.of[w]);
    const std::int64_t target = load(targets + i) - first_id;
    store(stats + i, share.maximum);
    store(stats + std::int64_t{m} + i, share.sum);
    store(stats + std::int64_t{m} * 2 + i, target >= 0 && target < v ? load(row + target) : 0.0F);
    store(stats + std::int64_t{m} * 3 + i, static_cast<float>((share.id < v ? share.id : 0) + first_id));  // 0: nothing but NaN
}

/// One thread a row; parts in rank order, each read once.
__global__ void __launch_bounds__(threads) join_softmax_stats_kernel(const float* parts, float* whole, int ranks, int m) {
    const int i = static_cast<int>(blockIdx.x) * threads + static_cast<int>(threadIdx.x);
    if (i >= m) return;
    Share share;
    float target = 0;
    for (int r = 0; r < ranks; ++r) {
        const auto part = [&](int what) { return load(parts + (std::int64_t{r} * 4 + what) * m + i); };
        share.join({part(0), part(1), static_cast<int>(part(3))});
        target += part(2);
    }
    const float joined[4] = {share.maximum, share.sum, target, static_cast<float>(share.id)};
    for (int what = 0; what < 4; ++what) store(whole + std::int64_t{what} * m + i, joined[what]);
}

struct LossSums {
    double loss[sum_warps], correct[sum_warps];
};

/// One block: every 1024th row to one thread in order, threads in a fixed tree. Rows without a target change no bit.
__global__ void __launch_bounds__(32 * sum_warps) cross_entropy_sums_kernel(const float* stats, const std::int32_t* targets, double* sums, int m) {
    LossSums& parts = shared_memory<LossSums>();
    double loss = 0, correct = 0;
    for (int i = static_cast<int>(threadIdx.x); i < m; i += 32 * sum_warps) {
        const int target = load(targets + i);
        if (target < 0) continue;
        const auto stat = [&](int what) { return load(stats + std::int64_t{what} * m + i); };
        loss += log(static_cast<double>(stat(1))) + static_cast<double>(stat(0)) - static_cast<double>(stat(2));
        correct += stat(3) == static_cast<float>(target);
    }
    loss = warp_sum(loss);
    correct = warp_sum(correct);
    if (lane() == 0) {
        store_shared(&parts.loss[warp()], loss);
        store_shared(&parts.correct[warp()], correct);
    }
    block_barrier();
    if (warp() != 0) return;
    loss = warp_sum(load_shared(&parts.loss[lane()]));
    correct = warp_sum(load_shared(&parts.correct[lane()]));
    if (lane() != 0) return;
    sums[0] += loss;
    sums[1] += correct;
}

template <class T>
struct Backward {
    const float *logits, *stats;
    const std::int32_t* targets;
    T* d;
    ScalarArgument factor;
    std::int64_t first_id;
    int m, v;
};

/// One block a row, a thread twice eight columns a round: read once, written once; rows without a target are only written. A warp
/// reads its columns of a round before it writes them, so d may be the logits. Whole: v % 8 == 0 and 16-byte aligned rows.
template <class T, bool Whole>
__global__ void __launch_bounds__(threads) cross_entropy_backward_kernel(Backward<T> a) {
    constexpr int pieces = 2;
    const int i = static_cast<int>(blockIdx.x), target_id = load(a.targets + i);
    const bool counts = target_id >= 0;
    const float maximum = load(a.stats + i), inverse = 1 / load(a.stats + std::int64_t{a.m} + i), factor = a.factor.read();
    const std::int64_t target = target_id - a.first_id;
    const float* logits = a.logits + std::int64_t{i} * a.v;
    T* d = a.d + std::int64_t{i} * a.v;
    // Whole warps make each round: the first of the warp's pieces decides.
    for (int first = 32 * warp(); 8 * first < a.v; first += threads * pieces) {
        Eight<float> x[pieces]{};
#pragma unroll
        for (int p = 0; p < pieces; ++p)
            if (counts) x[p] = load_eight<Whole>(logits, first + p * threads + lane(), a.v);
#pragma unroll
        for (int p = 0; p < pieces; ++p) {
            const int e = first + p * threads + lane();
            float y[8];
#pragma unroll
            for (int k = 0; k < 8; ++k) {
                const float probability = exp_fast(x[p][k] - maximum) * inverse;
                y[k] = counts ? (probability - (8 * e + k == target ? 1.0F : 0.0F)) * factor : 0.0F;
            }
            store_eight<Whole>(d, e, a.v, y);
        }
    }
}

}  // namespace

namespace cuda {

void softmax_stats(Stream& stream, const SoftmaxStats& a) {
    const int m = narrow(a.logits.shape[0], "M"), v = narrow(a.logits.shape[1], "V");
    const bool whole = v % 4 == 0 && whole_packs(0, {a.logits.data});
    launch({.name = "softmax_stats", .grid = dim3(static_cast<unsigned>(m)), .block = dim3(threads), .shared = sizeof(Shares), .stream = stream.handle()},
           whole ? softmax_stats_kernel<true> : softmax_stats_kernel<false>, a.logits.as<float>(), a.targets.as<std::int32_t>(), a.stats.as<float>(),
           a.first_id, m, v);
}

void join_softmax_stats(Stream& stream, const JoinSoftmaxStats& a) {
    const int ranks = narrow(a.parts.shape[0], "the count of ranks"), m = narrow(a.parts.shape[2], "M");
    launch({.name = "join_softmax_stats", .grid = dim3(blocks_for(m, threads)), .block = dim3(threads), .stream = stream.handle()},
           join_softmax_stats_kernel, a.parts.as<float>(), a.whole.as<float>(), ranks, m);
}

void cross_entropy_sums(Stream& stream, const CrossEntropySums& a) {
    const int m = narrow(a.targets.shape[0], "M");
    if (m == 0) return;
    launch({.name = "cross_entropy_sums", .grid = dim3(1), .block = dim3(32 * sum_warps), .shared = sizeof(LossSums), .stream = stream.handle()},
           cross_entropy_sums_kernel, a.whole_stats.as<float>(), a.targets.as<std::int32_t>(), a.sums.as<double>(), m);
}

void cross_entropy_backward(Stream& stream, const CrossEntropyBackward& a) {
    device::dispatch(a.d_logits.dtype, [&](auto type) {
        using T = decltype(type);
        const Backward<T> arguments{.logits = a.logits.as<float>(), .stats = a.whole_stats.as<float>(), .targets = a.targets.as<std::int32_t>(),
                                    .d = a.d_logits.as<T>(), .factor = argument(a.factor), .first_id = a.first_id, .m = narrow(a.logits.shape[0], "M"),
                                    .v = narrow(a.logits.shape[1], "V")};
        const bool whole = whole_packs(arguments.v, {a.logits.data, a.d_logits.data});
        launch({.name = "cross_entropy_backward", .grid = dim3(static_cast<unsigned>(arguments.m)), .block = dim3(threads), .stream = stream.handle()},
               whole ? cross_entropy_backward_kernel<T, true> : cross_entropy_backward_kernel<T, false>, arguments);
    });
}

}  // namespace cuda

}  // namespace rf
