#include "kernels/optimizer.hpp"

#include "kernels/nvidia/row.cuh"

#include <cmath>

namespace rf {

namespace {

using namespace device;

constexpr int threads = 256, warps = threads / 32;
constexpr int segment_limit = 4096;  // elements of a segment (kernels/optimizer.hpp)
constexpr int rounds = segment_limit / (4 * threads);

struct Shard {
    float *weight, *m, *v;
    const float* gradient;
    const Segment* segments;
    std::int64_t offset;
    bool aligned;  ///< all four buffers lie on 16 bytes
};

/// A moment rule in the precision of the state, as the CPU rounds it.
struct Rule {
    float beta1, rest1, beta2, rest2, epsilon, decay;
};

using Four = Pack<float, 4>;

/// Where a thread works in its block's segment: four neighbours, 1024 apart. The split depends on the segment alone, so
/// sums do not depend on where in a buffer it lies.
struct Place {
    Segment segment;
    std::int64_t at;  ///< the segment's first element in this shard's buffers
    int n;
    bool packs;

    __device__ explicit Place(const Shard& shard) {
        const Segment* s = shard.segments + blockIdx.x;
        segment = {load(&s->begin), load(&s->end), load(&s->group), load(&s->decays)};
        at = segment.begin - shard.offset;
        n = static_cast<int>(segment.end - segment.begin);
        packs = shard.aligned && at % 4 == 0;
    }
    __device__ int element(int round) const { return 4 * (static_cast<int>(threadIdx.x) + round * threads); }
    /// Past the end: zeros.
    __device__ Four read(const float* p, int round) const {
        const int i = element(round);
        if (packs && i + 4 <= n) return load(reinterpret_cast<const Four*>(p + at + i));
        Four x{};
        for (int k = 0; k < 4; ++k)
            if (i + k < n) x.v[k] = load(p + at + i + k);
        return x;
    }
    __device__ void write(float* p, int round, const Four& x) const {
        const int i = element(round);
        if (packs && i + 4 <= n) return store(reinterpret_cast<Four*>(p + at + i), x);
        for (int k = 0; k < 4; ++k)
            if (i + k < n) store(p + at + i + k, x.v[k]);
    }
};

/// One partial sum a warp, for each of up to three columns.
struct WarpSums {
    double of[warps][sum_columns];
};

/// A thread's sums, then those of the block in a fixed tree; thread `column` has column's.
__device__ inline double block_sums(const double (&sums)[sum_columns]) {
    WarpSums& shared = shared_memory<WarpSums>();
    for (int column = 0; column < sum_columns; ++column) {
        const double x = warp_sum(sums[column]);
        if (lane() == 0) store_shared(&shared.of[warp()][column], x);
    }
    block_barrier();
    double total = 0;
    if (threadIdx.x < sum_columns)
        for (int w = 0; w < warps; ++w) total += load_shared(&shared.of[w][threadIdx.x]);
    return total;
}

/// One block a segment: sums of products in f64, of squares where there is no other gradient.
template <bool Other>
__global__ void __launch_bounds__(threads) gradient_sums_kernel(Shard shard, const float* other, double* sums) {
    const Place at(shard);
    Four g[rounds], h[rounds];
#pragma unroll
    for (int r = 0; r < rounds; ++r) g[r] = at.read(shard.gradient, r);
#pragma unroll
    for (int r = 0; r < rounds; ++r) h[r] = Other ? at.read(other, r) : g[r];
    double mine[sum_columns] = {};
#pragma unroll
    for (int r = 0; r < rounds; ++r)
        for (int k = 0; k < 4; ++k) mine[gradient_sum] += static_cast<double>(g[r].v[k]) * static_cast<double>(h[r].v[k]);
    const double total = block_sums(mine);
    if (threadIdx.x < sum_columns) store(sums + std::int64_t{blockIdx.x} * sum_columns + threadIdx.x, total);
}

__device__ inline float update_of(float weight, float m, float v, const Rule& rule, float decay, float correction1, float correction2) {
    return m / correction1 / (sqrtf(v / correction2) + rule.epsilon) + weight * decay;
}

/// One block a segment. Reads the four buffers and writes two, once; a thread's loads of two rounds are under way at once.
__global__ void __launch_bounds__(threads) update_moments_kernel(Shard shard, Rule rule, const double* control, double* sums) {
    if (load(control + control_apply) == 0) return;
    const float correction1 = static_cast<float>(load(control + control_correction1)), correction2 = static_cast<float>(load(control + control_correction2));
    const float factor = static_cast<float>(load(control + control_gradient_factor));
    const Place at(shard);
    const float decay = at.segment.decays != 0 ? rule.decay : 0.0F;
    constexpr int together = 2;
    double mine[sum_columns] = {};
    for (int first = 0; first < rounds && first * 4 * threads < at.n; first += together) {
        Four w[together], m[together], v[together], g[together];
#pragma unroll
        for (int r = 0; r < together; ++r) {
            g[r] = at.read(shard.gradient, first + r);
            m[r] = at.read(shard.m, first + r);
            v[r] = at.read(shard.v, first + r);
            w[r] = at.read(shard.weight, first + r);
        }
#pragma unroll
        for (int r = 0; r < together; ++r) {
#pragma unroll
            for (int k = 0; k < 4; ++k) {
                const float gradient = g[r].v[k] * factor, weight = w[r].v[k];
                m[r].v[k] = m[r].v[k] * rule.beta1 + gradient * rule.rest1;
                v[r].v[k] = v[r].v[k] * rule.beta2 + gradient * gradient * rule.rest2;
                const float u = update_of(weight, m[r].v[k], v[r].v[k], rule, decay, correction1, correction2);
                mine[weight_sum] += static_cast<double>(weight) * static_cast<double>(weight);
                mine[update_sum] += static_cast<double>(u) * static_cast<double>(u);
                mine[gradient_sum] += static_cast<double>(gradient) * static_cast<double>(gradient);
            }
            at.write(shard.m, first + r, m[r]);
            at.write(shard.v, first + r, v[r]);
        }
    }
    const double total = block_sums(mine);
    if (threadIdx.x < sum_columns) store(sums + std::int64_t{blockIdx.x} * sum_columns + threadIdx.x, total);
}

/// One block a segment; nothing is read of a segment whose rate is 0.
__global__ void __launch_bounds__(threads) apply_update_kernel(Shard shard, Rule rule, const double* control, const double* rates) {
    const Place at(shard);
    const double wide_rate = load(rates + at.segment.group);
    if (wide_rate == 0) return;
    const float rate = static_cast<float>(wide_rate), decay = at.segment.decays != 0 ? rule.decay : 0.0F;
    const float correction1 = static_cast<float>(load(control + control_correction1)), correction2 = static_cast<float>(load(control + control_correction2));
    constexpr int together = 2;
    for (int first = 0; first < rounds && first * 4 * threads < at.n; first += together) {
        Four w[together], m[together], v[together];
#pragma unroll
        for (int r = 0; r < together; ++r) {
            m[r] = at.read(shard.m, first + r);
            v[r] = at.read(shard.v, first + r);
            w[r] = at.read(shard.weight, first + r);
        }
#pragma unroll
        for (int r = 0; r < together; ++r) {
#pragma unroll
            for (int k = 0; k < 4; ++k) w[r].v[k] -= update_of(w[r].v[k], m[r].v[k], v[r].v[k], rule, decay, correction1, correction2) * rate;
            at.write(shard.weight, first + r, w[r]);
        }
    }
}

/// One block a segment, as update_moments_kernel.
__global__ void __launch_bounds__(threads) adafactor_moments_kernel(Shard shard, const double* control, double* sums) {
    if (load(control + control_apply) == 0) return;
    const double fresh = load(control + control_correction2);
    const float beta2 = static_cast<float>(1 - fresh), rest2 = static_cast<float>(fresh), factor = static_cast<float>(load(control + control_gradient_factor));
    constexpr float tiny = static_cast<float>(adafactor_tiny);
    const Place at(shard);
    double mine[sum_columns] = {};
    for (int r = 0; r < rounds && r * 4 * threads < at.n; ++r) {
        const Four g = at.read(shard.gradient, r), w = at.read(shard.weight, r);
        Four v = at.read(shard.v, r);
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            const float gradient = g.v[k] * factor;
            v.v[k] = v.v[k] * beta2 + (gradient * gradient + tiny) * rest2;
            const float u = gradient / sqrtf(v.v[k] + tiny);
            mine[weight_sum] += static_cast<double>(w.v[k]) * static_cast<double>(w.v[k]);
            mine[update_sum] += static_cast<double>(u) * static_cast<double>(u);
            mine[gradient_sum] += static_cast<double>(gradient) * static_cast<double>(gradient);
        }
        at.write(shard.v, r, v);
    }
    const double total = block_sums(mine);
    if (threadIdx.x < sum_columns) store(sums + std::int64_t{blockIdx.x} * sum_columns + threadIdx.x, total);
}

/// One block a segment; nothing is read of a segment whose rate is 0.
__global__ void __launch_bounds__(threads) apply_adafactor_kernel(Shard shard, float beta1, float rest1, const double* control, const double* rates) {
    const Place at(shard);
    const double wide_rate = load(rates + at.segment.group * 2);
    if (wide_rate == 0) return;
    const float rate = static_cast<float>(wide_rate), clip = static_cast<float>(load(rates + at.segment.group * 2 + 1));
    const float factor = static_cast<float>(load(control + control_gradient_factor));
    for (int r = 0; r < rounds && r * 4 * threads < at.n; ++r) {
        const Four g = at.read(shard.gradient, r), v = at.read(shard.v, r);
        Four m = at.read(shard.m, r), w = at.read(shard.weight, r);
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            const float u = g.v[k] * factor / sqrtf(v.v[k] + static_cast<float>(adafactor_tiny)) * clip;
            m.v[k] = m.v[k] * beta1 + u * rest1;
            w.v[k] -= m.v[k] * rate;
        }
        at.write(shard.m, r, m);
        at.write(shard.weight, r, w);
    }
}

constexpr int join_rows = 64, join_threads = join_rows * sum_columns;

struct JoinTree {
    double of[join_threads];
};

/// One block a group: 64 rows of sums at a time, a thread one column of every 64th row in order, threads in a fixed tree.
__global__ void __launch_bounds__(join_threads) join_sums_kernel(const double* sums, const std::int32_t* group_begin, const std::uint8_t* counted, double* groups) {
    JoinTree& tree = shared_memory<JoinTree>();
    const int group = static_cast<int>(blockIdx.x), thread = static_cast<int>(threadIdx.x);
    const std::int64_t end = std::int64_t{load(group_begin + group + 1)} * sum_columns;
    double sum = 0;
    if (load(counted + group))
        for (std::int64_t i = std::int64_t{load(group_begin + group)} * sum_columns + thread; i < end; i += join_threads) sum += load(sums + i);
    store_shared(&tree.of[thread], sum);
    for (int half = join_rows / 2; half > 0; half /= 2) {
        block_barrier();
        if (thread < half * sum_columns) store_shared(&tree.of[thread], load_shared(&tree.of[thread]) + load_shared(&tree.of[thread + half * sum_columns]));
    }
    if (thread < sum_columns) store(groups + std::int64_t{group} * sum_columns + thread, load_shared(&tree.of[thread]));
}

struct Judgement {
    double square[warps];
    int not_finite[warps];  ///< group, -1 for none
    int loss_lost[warps];
};

/// One block over all groups and losses.
__global__ void __launch_bounds__(threads) judge_gradient_kernel(const double* groups, int count, const double* losses, int loss_count, double max_norm, double skips_allowed,
                                                                 double* control) {
    Judgement& parts = shared_memory<Judgement>();
    double square = 0;
    int not_finite = -1, loss_lost = 0;
    for (int g = static_cast<int>(threadIdx.x); g < count; g += threads) {
        const double one = load(groups + std::int64_t{g} * sum_columns + gradient_sum);
        square += one;
        if (!std::isfinite(one)) not_finite = g;
    }
    for (int i = static_cast<int>(threadIdx.x); i < loss_count; i += threads)
        if (!std::isfinite(load(losses + i))) loss_lost = 1;
    square = warp_sum(square);
    for (int mask = 16; mask > 0; mask >>= 1) {
        not_finite = std::max(not_finite, shuffle_xor(not_finite, mask));
        loss_lost |= shuffle_xor(loss_lost, mask);
    }
    if (lane() == 0) {
        store_shared(&parts.square[warp()], square);
        store_shared(&parts.not_finite[warp()], not_finite);
        store_shared(&parts.loss_lost[warp()], loss_lost);
    }
    block_barrier();
    if (threadIdx.x != 0) return;
    for (int w = 1; w < warps; ++w) {
        square += load_shared(&parts.square[w]);
        not_finite = std::max(not_finite, load_shared(&parts.not_finite[w]));
        loss_lost |= load_shared(&parts.loss_lost[w]);
    }
    const double norm = sqrt(square), skipped = load(control + control_skipped);
    const bool skip = not_finite >= 0 || loss_lost != 0 || skipped > skips_allowed;
    store(control + control_gradient_norm, norm);
    store(control + control_gradient_factor, max_norm > 0 && norm > max_norm ? max_norm / norm : 1.0);
    store(control + control_skipped, skip ? skipped + 1 : 0.0);
    store(control + control_apply, skip ? 0.0 : 1.0);
    store(control + control_not_finite, static_cast<double>(not_finite));
}

/// One thread a group.
__global__ void __launch_bounds__(threads) update_rates_kernel(const double* groups, const double* control, double* rates, int count, bool lamb, bool skip_zero) {
    const int g = static_cast<int>(blockIdx.x) * threads + static_cast<int>(threadIdx.x);
    if (g >= count) return;
    const auto sum = [&](int column) { return load(groups + std::int64_t{g} * sum_columns + column); };
    const double lr = load(control + control_lr);
    double rate = lr;
    if (load(control + control_apply) == 0 || (skip_zero && sum(gradient_sum) == 0)) {
        rate = 0;
    } else if (lamb) {
        const double weight = sqrt(sum(weight_sum)), delta = sqrt(sum(update_sum)) * (lr / (lr > 1e-7 ? lr : 1e-7));
        if (weight > 0 && delta > 0) rate = lr * weight / delta;
    }
    store(rates + g, rate);
}

/// One thread a group.
__global__ void __launch_bounds__(threads) adafactor_rates_kernel(const double* groups, const double* sizes, const double* control, double* rates, int count,
                                                                  bool skip_zero) {
    const int g = static_cast<int>(blockIdx.x) * threads + static_cast<int>(threadIdx.x);
    if (g >= count) return;
    const auto sum = [&](int column) { return load(groups + std::int64_t{g} * sum_columns + column); };
    const bool untouched = load(control + control_apply) == 0 || (skip_zero && sum(gradient_sum) == 0);
    const double size = load(sizes + g);
    store(rates + 2 * g, untouched ? 0.0 : load(control + control_lr) * fmax(sqrt(sum(weight_sum) / size), adafactor_least_scale));
    store(rates + 2 * g + 1, 1 / fmax(1.0, sqrt(sum(update_sum) / size)));
}

Shard shard_of(const OptimizerShard& s) {
    const auto pointer = [](const Tensor& t) { return t ? t.as<float>() : nullptr; };
    return {.weight = pointer(s.weight),
            .m = pointer(s.m),
            .v = pointer(s.v),
            .gradient = s.gradient ? s.gradient.as<float>() : nullptr,
            .segments = static_cast<const Segment*>(s.segments.data),
            .offset = s.offset,
            .aligned = whole_packs(0, {s.weight.data, s.m.data, s.v.data, s.gradient.data})};
}
Rule rule_of(const MomentRule& r) {
    return {.beta1 = static_cast<float>(r.beta1), .rest1 = static_cast<float>(1 - r.beta1), .beta2 = static_cast<float>(r.beta2),
            .rest2 = static_cast<float>(1 - r.beta2), .epsilon = static_cast<float>(r.epsilon), .decay = static_cast<float>(r.decay)};
}
Launch over_segments(Stream& stream, const char* name, const OptimizerShard& s) {
    return {.name = name, .grid = dim3(static_cast<unsigned>(s.segments.count() / static_cast<std::int64_t>(sizeof(Segment)))), .block = dim3(threads),
            .shared = sizeof(WarpSums), .stream = stream.handle()};
}

}  // namespace

namespace cuda {

void gradient_sums(Stream& stream, const OptimizerShard& shard, const Tensor& sums, const ConstTensor& other) {
    Shard argument = shard_of(shard);
    argument.aligned = argument.aligned && whole_packs(0, {other.data});
    launch(over_segments(stream, "gradient_sums", shard), other ? gradient_sums_kernel<true> : gradient_sums_kernel<false>, argument,
           other ? other.as<float>() : nullptr, sums.as<double>());
}

void join_sums(Stream& stream, const JoinSums& a) {
    launch({.name = "join_sums", .grid = dim3(static_cast<unsigned>(a.groups.shape[0])), .block = dim3(join_threads), .shared = sizeof(JoinTree),
            .stream = stream.handle()},
           join_sums_kernel, a.sums.as<double>(), a.group_begin.as<std::int32_t>(), static_cast<const std::uint8_t*>(a.counted.data), a.groups.as<double>());
}

void judge_gradient(Stream& stream, const JudgeGradient& a) {
    launch({.name = "judge_gradient", .grid = dim3(1), .block = dim3(threads), .shared = sizeof(Judgement), .stream = stream.handle()},
           judge_gradient_kernel, a.groups.as<double>(), narrow(a.groups.shape[0], "the count of groups"), a.losses ? a.losses.as<double>() : nullptr,
           narrow(a.losses ? a.losses.count() : 0, "the count of losses"), a.max_norm, static_cast<double>(a.skips_allowed), a.control.as<double>());
}

void update_moments(Stream& stream, const OptimizerShard& shard, const MomentRule& rule, const ConstTensor& control, const Tensor& sums) {
    launch(over_segments(stream, "update_moments", shard), update_moments_kernel, shard_of(shard), rule_of(rule), control.as<double>(), sums.as<double>());
}

void update_rates(Stream& stream, const UpdateRates& a) {
    const int groups = narrow(a.groups.shape[0], "the count of groups");
    launch({.name = "update_rates", .grid = dim3(blocks_for(groups, threads)), .block = dim3(threads), .stream = stream.handle()}, update_rates_kernel,
           a.groups.as<double>(), a.control.as<double>(), a.rates.as<double>(), groups, a.lamb, a.skip_zero_gradient);
}

void apply_update(Stream& stream, const OptimizerShard& shard, const MomentRule& rule, const ConstTensor& control, const ConstTensor& rates) {
    launch(over_segments(stream, "apply_update", shard), apply_update_kernel, shard_of(shard), rule_of(rule), control.as<double>(), rates.as<double>());
}

void adafactor_moments(Stream& stream, const OptimizerShard& shard, const ConstTensor& control, const Tensor& sums) {
    launch(over_segments(stream, "adafactor_moments", shard), adafactor_moments_kernel, shard_of(shard), control.as<double>(), sums.as<double>());
}

void adafactor_rates(Stream& stream, const AdaFactorRates& a) {
    const int groups = narrow(a.groups.shape[0], "the count of groups");
    launch({.name = "adafactor_rates", .grid = dim3(blocks_for(groups, threads)), .block = dim3(threads), .stream = stream.handle()}, adafactor_rates_kernel,
           a.groups.as<double>(), a.sizes.as<double>(), a.control.as<double>(), a.rates.as<double>(), groups, a.skip_zero_gradient);
}

void apply_adafactor(Stream& stream, const OptimizerShard& shard, double beta1, const ConstTensor& control, const ConstTensor& rates) {
    launch(over_segments(stream, "apply_adafactor", shard), apply_adafactor_kernel, shard_of(shard), static_cast<float>(beta1), static_cast<float>(1 - beta1),
           control.as<double>(), rates.as<double>());
}

}  // namespace cuda

}  // namespace rf
