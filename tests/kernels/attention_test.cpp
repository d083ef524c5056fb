#include "kernels/attention.hpp"

#include "core/cpu.hpp"
#include "tests/kernels/device_case.hpp"
#include "tests/kernels/gradient_check.hpp"

using namespace rf;
using namespace rf::test;

namespace {

/// A packed batch of sequences; sample numbers count from 5.
struct Problem {
    std::vector<std::int64_t> lengths;
    std::int64_t heads, channels;
    std::vector<double> qkv, d_context;
    double scale = 0.5, rate = 0;
    std::int64_t first_head = 0;

    Problem(std::vector<std::int64_t> lengths, std::int64_t heads, std::int64_t channels)
        : lengths(std::move(lengths)), heads(heads), channels(channels), qkv(numbers(tokens() * 3 * heads * channels, 1)),
          d_context(numbers(tokens() * heads * channels, 2)) {}
    std::int64_t tokens() const {
        std::int64_t t = 0;
        for (const std::int64_t n : lengths) t += n;
        return t;
    }
};

struct Result {
    std::vector<double> context, log_sum, d_qkv;
};

Result solve(const DeviceCase& on, const Problem& p) {
    const std::int64_t t = p.tokens();
    std::vector<double> bounds{0}, sample;
    for (const std::int64_t n : p.lengths) bounds.push_back(bounds.back() + static_cast<double>(n)), sample.push_back(static_cast<double>(sample.size() + 5));
    const DeviceTensor qkv = on.put({t, 3, p.heads, p.channels}, p.qkv), cu_seqlens = on.put_list(bounds), samples = on.put_list(sample);
    const DeviceTensor context = on.zeros({t, p.heads, p.channels}), log_sum = on.zeros_wide({p.heads, t});
    const DeviceTensor d_context = on.put({t, p.heads, p.channels}, p.d_context), d_qkv = on.zeros({t, 3, p.heads, p.channels});
    const Dropout dropout{.rate = p.rate, .seed = 11, .detail = 2};
    Stream& stream = on.stream();
    attention(stream, {.qkv = qkv, .cu_seqlens = cu_seqlens, .sample = samples, .context = context, .log_sum = log_sum, .scale = p.scale,
                       .first_head = p.first_head, .dropout = dropout});
    attention_backward(stream, {.qkv = qkv, .cu_seqlens = cu_seqlens, .sample = samples, .context = context, .log_sum = log_sum,
                                .d_context = d_context, .d_qkv = d_qkv, .scale = p.scale, .first_head = p.first_head, .dropout = dropout});
    return {to_host(context), to_host(log_sum), to_host(d_qkv)};
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
    for (const double rate : {0.0, 0.25}) {
        Problem p({1, 2, 0, 5}, 2, 4);
        p.rate = rate;
        BOOST_TEST(worst_difference(p.qkv, solve(exact_case(), p).d_qkv, [&](const auto& x) { return loss_at(p, x); }) < gradient_bound);
        Problem longer({130}, 1, 2);  // one row past a block of 128 queries
        longer.rate = rate;
        BOOST_TEST(worst_difference(longer.qkv, solve(exact_case(), longer).d_qkv, [&](const auto& x) { return loss_at(longer, x); }, 13) < gradient_bound);
    }
}

BOOST_AUTO_TEST_CASE(lower_precision_agrees_with_f64) {
    for (const DeviceCase& on : device_cases()) {
        Problem p({1, 3, 17, 130}, 2, 16);
        p.rate = 0.1;
        p.qkv = rounded(p.qkv, on.dtype), p.d_context = rounded(p.d_context, on.dtype);
        const Result got = solve(on, p), expected = solve(exact_case(), p);
        check_all(got.context, expected.context, on.tolerance(130));
        check_all(got.log_sum, expected.log_sum, on.wide_tolerance(130));
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
}
