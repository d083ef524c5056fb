#include "kernels/attention.hpp"

#include "core/cpu.hpp"
#include "kernels/simd/table.hpp"
#include "kernels/simd/tiles.hpp"
#include "tests/kernels/device_case.hpp"
#include "tests/kernels/gradient_check.hpp"
#include "tests/kernels/rotary_table.hpp"

using namespace rf;
using namespace rf::test;

namespace {

constexpr std::int64_t table_positions = 600;  ///< of rotary tables

/// A packed batch of sequences; sample numbers count from 5.
struct Problem {
    std::vector<std::int64_t> lengths;
    std::int64_t heads, channels, padding;  ///< padding: tokens after the last sequence
    std::vector<double> qkv, d_context;
    double scale = 0.5, rate = 0;
    std::int64_t first_head = 0;
    std::int64_t longest = 0;
    bool rotary = false;

    Problem(std::vector<std::int64_t> lengths, std::int64_t heads, std::int64_t channels, std::int64_t padding = 0)
        : lengths(std::move(lengths)), heads(heads), channels(channels), padding(padding), qkv(numbers(tokens() * 3 * heads * channels, 1)),
          d_context(numbers(tokens() * heads * channels, 2)) {}
    std::int64_t tokens() const {
        std::int64_t t = padding;
        for (const std::int64_t n : lengths) t += n;
        return t;
    }
};

struct Result {
    std::vector<double> context, log_sum, d_qkv;
};

/// What outputs hold before an op writes them.
constexpr double garbage = 99;
std::vector<double> full_of_garbage(std::int64_t n) { return std::vector<double>(static_cast<std::size_t>(n), garbage); }

Result solve(const DeviceCase& on, const Problem& p) {
    const std::int64_t t = p.tokens();
    std::vector<double> bounds{0}, sample;
    for (const std::int64_t n : p.lengths) bounds.push_back(bounds.back() + static_cast<double>(n)), sample.push_back(static_cast<double>(sample.size() + 5));
    const DeviceTensor qkv = on.put({t, 3, p.heads, p.channels}, p.qkv), cu_seqlens = on.put_list(bounds), samples = on.put_list(sample);
    const std::int64_t values = t * p.heads * p.channels;
    const DeviceTensor context = on.put({t, p.heads, p.channels}, full_of_garbage(values)), log_sum = on.put_wide({p.heads, t}, full_of_garbage(p.heads * t));
    const DeviceTensor d_context = on.put({t, p.heads, p.channels}, p.d_context), d_qkv = on.put({t, 3, p.heads, p.channels}, full_of_garbage(3 * values));
    const DeviceTensor scratch = on.put_wide({p.heads, t}, full_of_garbage(p.heads * t)), table = p.rotary ? table_for(on, table_positions, p.channels) : DeviceTensor();
    const Dropout dropout{.rate = p.rate, .seed = 11, .detail = 2};
    Stream& stream = on.stream();
    attention(stream, {.qkv = qkv, .rotary = table, .cu_seqlens = cu_seqlens, .sample = samples, .context = context, .log_sum = log_sum, .scale = p.scale,
                       .first_head = p.first_head, .longest = p.longest, .dropout = dropout});
    attention_backward(stream, {.qkv = qkv, .rotary = table, .cu_seqlens = cu_seqlens, .sample = samples, .context = context, .log_sum = log_sum,
                                .d_context = d_context, .d_qkv = d_qkv, .scratch = scratch, .scale = p.scale, .first_head = p.first_head,
                                .longest = p.longest, .dropout = dropout});
    BOOST_TEST((to_host(qkv) == rounded(p.qkv, on.dtype)), "operands were written");
    return {to_host(context), to_host(log_sum), to_host(d_qkv)};
}

/// Tiles multiply turned q and k as bf16: the same problem with q and k turned in f32 and rounded, and nothing to turn.
Problem turned_and_rounded(Problem p) {
    std::vector<float> angles(static_cast<std::size_t>(table_positions * p.channels)), row(static_cast<std::size_t>(p.channels));
    rotary_table(view(angles.data(), {table_positions, p.channels / 2, 2}));
    std::int64_t token = 0;
    for (const std::int64_t length : p.lengths)
        for (std::int64_t position = 0; position < length; ++position, ++token)
            for (std::int64_t head = 0; head < 2 * p.heads; ++head) {  // those of q, then those of k
                const auto begin = p.qkv.begin() + (token * 3 * p.heads + head) * p.channels;
                std::transform(begin, begin + p.channels, row.begin(), [](double x) { return static_cast<float>(x); });
                simd::table().f32.rotate(row.data(), angles.data() + position * p.channels, p.channels, 1);
                std::copy(row.begin(), row.end(), begin);
            }
    p.qkv = rounded(p.qkv, Dtype::bf16);
    p.rotary = false;
    return p;
}

double loss_at(Problem p, const std::vector<double>& qkv) {
    p.qkv = qkv;
    return dot(solve(exact_case(), p).context, p.d_context);
}

/// Heads [begin, end) of a [T, parts, H, D] array.
std::vector<double> heads_of(const std::vector<double>& x, std::int64_t heads, std::int64_t channels, std::int64_t begin, std::int64_t end) {
    std::vector<double> out;
    for (std::size_t i = 0; i < x.size(); ++i) {
        const std::int64_t head = static_cast<std::int64_t>(i) / channels % heads;
        if (head >= begin && head < end) out.push_back(x[i]);
    }
    return out;
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_single_token_attends_to_itself) {
    for (const DeviceCase& on : device_cases()) {
        Problem p({1}, 1, 2);
        p.qkv = {1, 2, 3, -1, 0.25, -4}, p.d_context = {1, 2};
        const Result r = solve(on, p);
        check_all(r.context, {0.25, -4}, 0);
        check_all(r.log_sum, {0.5}, on.wide_tolerance(2));  // scale q k = 0.5 * (3 - 2)
        check_all(r.d_qkv, {0, 0, 0, 0, 1, 2}, on.tolerance(2));             // a probability that is always 1 has no gradient
    }
}

BOOST_AUTO_TEST_CASE(two_tokens_mix_their_values_by_probability) {
    for (const DeviceCase& on : device_cases()) {
        Problem p({2}, 1, 2);
        // Orthogonal unit queries and keys, scale ln 3: probabilities 3/4 and 1/4.
        p.qkv = {1, 0, 1, 0, 4, 0, 0, 1, 0, 1, 0, 8};
        p.scale = std::log(3.0);
        const Result r = solve(on, p);
        check_all(r.context, {3, 2, 1, 6}, on.tolerance(2));
        check_all(r.log_sum, {std::log(4.0), std::log(4.0)}, on.wide_tolerance(2));
    }
}

BOOST_AUTO_TEST_CASE(empty_sequences_change_nothing) {
    for (const DeviceCase& on : device_cases()) {
        const Result with = solve(on, Problem({0, 2, 0, 0, 3, 0}, 2, 4)), without = solve(on, Problem({2, 3}, 2, 4));
        check_all(with.context, without.context, 0);
        check_all(with.log_sum, without.log_sum, 0);
        check_all(with.d_qkv, without.d_qkv, 0);
        BOOST_TEST(solve(on, Problem({}, 2, 4)).context.empty());
        BOOST_TEST(solve(on, Problem({0}, 2, 4)).context.empty());
    }
}

BOOST_AUTO_TEST_CASE(sequences_do_not_see_each_other) {
    for (const DeviceCase& on : device_cases()) {
        const Problem both({3, 17}, 2, 4);
        const Result together = solve(on, both);
        std::size_t at_context = 0, at_qkv = 0;
        for (const std::int64_t n : both.lengths) {
            Problem one({n}, 2, 4);
            one.qkv.assign(both.qkv.begin() + static_cast<std::ptrdiff_t>(at_qkv), both.qkv.begin() + static_cast<std::ptrdiff_t>(at_qkv + one.qkv.size()));
            one.d_context.assign(both.d_context.begin() + static_cast<std::ptrdiff_t>(at_context),
                                 both.d_context.begin() + static_cast<std::ptrdiff_t>(at_context + one.d_context.size()));
            const Result alone = solve(on, one);
            for (const double x : alone.context) BOOST_TEST(x == together.context[at_context++]);
            for (const double x : alone.d_qkv) BOOST_TEST(x == together.d_qkv[at_qkv++]);
        }
    }
}

BOOST_AUTO_TEST_CASE(gradients_agree_with_central_differences) {
    for (const auto& [rate, rotary] : {std::pair{0.0, false}, {0.25, false}, {0.0, true}, {0.25, true}}) {
        Problem p({1, 2, 0, 5}, 2, 4);
        p.rate = rate, p.rotary = rotary;
        BOOST_TEST(worst_difference(p.qkv, solve(exact_case(), p).d_qkv, [&](const auto& x) { return loss_at(p, x); }) < gradient_bound);
        Problem longer({130}, 1, 2);  // one row past a block of 128 queries
        longer.rate = rate, longer.rotary = rotary;
        BOOST_TEST(worst_difference(longer.qkv, solve(exact_case(), longer).d_qkv, [&](const auto& x) { return loss_at(longer, x); }, 13) < gradient_bound);
    }
}

BOOST_AUTO_TEST_CASE(lower_precision_agrees_with_f64) {
    for (const DeviceCase& on : device_cases())
        for (const bool rotary : {false, true}) {
            Problem p({1, 3, 17, 130}, 2, 16);
            p.rate = 0.1, p.rotary = rotary;
            p.qkv = rounded(p.qkv, on.dtype), p.d_context = rounded(p.d_context, on.dtype);
            const Result got = solve(on, p), expected = solve(exact_case(), p);
            check_all(got.context, expected.context, on.tolerance(130));
            const bool in_tiles = on.device == Device::cpu && on.dtype == Dtype::bf16 && simd::tiles();
            check_all(got.log_sum, in_tiles && rotary ? solve(exact_case(), turned_and_rounded(p)).log_sum : expected.log_sum, on.wide_tolerance(130));
            check_all(got.d_qkv, expected.d_qkv, on.tolerance(130));
        }
}

BOOST_AUTO_TEST_CASE(heads_split_over_ranks_give_the_bits_of_all_heads) {
    for (const DeviceCase& on : device_cases()) {
        Problem all({3, 9}, 4, 6);
        all.rate = 0.2;
        const Result whole = solve(on, all);
        for (const std::int64_t first : {0, 2}) {
            Problem half({3, 9}, 2, 6);
            half.rate = all.rate, half.first_head = first;
            half.qkv = heads_of(all.qkv, 4, 6, first, first + 2);
            half.d_context = heads_of(all.d_context, 4, 6, first, first + 2);
            const Result part = solve(on, half);
            check_all(part.context, heads_of(whole.context, 4, 6, first, first + 2), 0);
            check_all(part.d_qkv, heads_of(whole.d_qkv, 4, 6, first, first + 2), 0);
        }
    }
}

BOOST_AUTO_TEST_CASE(tokens_after_the_last_sequence_are_zero_and_change_nothing) {
    for (const DeviceCase& on : device_cases())
        for (const std::int64_t padding : {1, 37}) {
            const std::int64_t h = 2, d = 4, used = 22;
            Problem exact({3, 19, 0}, h, d), padded({3, 19, 0}, h, d, padding);
            for (Problem* p : {&exact, &padded}) p->rate = 0.2, p->rotary = true;
            // What stands there is large, and must not be met.
            padded.qkv = exact.qkv, padded.d_context = exact.d_context;
            padded.qkv.resize(static_cast<std::size_t>((used + padding) * 3 * h * d), 1e30), padded.d_context.resize(static_cast<std::size_t>((used + padding) * h * d), 1e30);
            const Result one = solve(on, exact);
            Result more = solve(on, padded);
            const auto check_rest = [](std::vector<double>& all, std::size_t kept) {
                for (std::size_t i = kept; i < all.size(); ++i) BOOST_TEST(all[i] == 0);
                all.resize(kept);
            };
            check_rest(more.context, one.context.size());
            check_rest(more.d_qkv, one.d_qkv.size());
            check_all(more.context, one.context, 0);
            check_all(more.d_qkv, one.d_qkv, 0);
            for (std::int64_t head = 0; head < h; ++head)
                for (std::int64_t t = 0; t < used + padding; ++t)
                    BOOST_TEST(more.log_sum[static_cast<std::size_t>(head * (used + padding) + t)] ==
                               (t < used ? one.log_sum[static_cast<std::size_t>(head * used + t)] : garbage));
        }
    // Nothing but padding.
    for (const DeviceCase& on : device_cases()) {
        const Result none = solve(on, Problem({0}, 2, 4, 3));
        check_all(none.context, std::vector<double>(24, 0), 0);
        check_all(none.d_qkv, std::vector<double>(72, 0), 0);
    }
}

BOOST_AUTO_TEST_CASE(what_is_known_of_the_longest_sequence_changes_no_bit) {
    for (const DeviceCase& on : device_cases()) {
        Problem p({3, 70, 9}, 2, 16);
        p.rate = 0.1, p.rotary = true;
        const Result unknown = solve(on, p);
        for (const std::int64_t longest : {70, 128}) {
            p.longest = longest;
            const Result known = solve(on, p);
            check_all(known.context, unknown.context, 0);
            check_all(known.d_qkv, unknown.d_qkv, 0);
        }
    }
}

BOOST_AUTO_TEST_CASE(large_scores_do_not_overflow) {
    for (const DeviceCase& on : device_cases()) {
        Problem p({3}, 1, 2);
        for (double& x : p.qkv) x *= 1000;
        for (const double x : solve(on, p).context) BOOST_TEST(std::isfinite(x));
        for (const double x : solve(on, p).d_qkv) BOOST_TEST(std::isfinite(x));
    }
}

BOOST_AUTO_TEST_CASE(bits_do_not_depend_on_threads) {
    Problem p({40, 7, 130}, 3, 16);
    p.rate = 0.1;
    std::vector<Result> results;
    for (const int threads : {1, 2, 3}) {
        set_thread_count(threads);
        results.push_back(solve({Device::cpu, Dtype::f32}, p));
    }
    set_thread_count(cpu_count());
    for (const Result& other : results) {
        check_all(other.context, results[0].context, 0);
        check_all(other.d_qkv, results[0].d_qkv, 0);
    }
}

BOOST_AUTO_TEST_CASE(shapes_that_do_not_fit_are_refused) {
    const DeviceCase on = exact_case();
    const DeviceTensor qkv = on.zeros({2, 3, 1, 4}), bounds = on.put_list({0, 2}), context = on.zeros({2, 1, 4}), log_sum = on.zeros({1, 2});
    Stream& stream = on.stream();
    BOOST_CHECK_THROW(attention(stream, {.qkv = qkv, .cu_seqlens = bounds, .context = log_sum, .log_sum = log_sum}), Error);
    BOOST_CHECK_THROW(attention(stream, {.qkv = qkv, .cu_seqlens = bounds, .context = context, .log_sum = log_sum, .dropout = {.rate = 0.5}}), Error);
    const DeviceTensor narrow = table_for(on, 2, 2), single = table_for({Device::cpu, Dtype::f32}, 2, 4);
    BOOST_CHECK_THROW(attention(stream, {.qkv = qkv, .rotary = narrow, .cu_seqlens = bounds, .context = context, .log_sum = log_sum}), Error);
    BOOST_CHECK_THROW(attention(stream, {.qkv = qkv, .rotary = single, .cu_seqlens = bounds, .context = context, .log_sum = log_sum}), Error);
}
