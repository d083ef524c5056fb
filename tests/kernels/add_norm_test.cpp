#include "kernels/add_norm.hpp"

#include "core/cpu.hpp"
#include "tests/kernels/device_case.hpp"
#include "tests/kernels/gradient_check.hpp"

using namespace rf;
using namespace rf::test;

namespace {

/// One [T, C] problem: x may be left out (the embedding's form).
struct Problem {
    std::int64_t tokens, channels;
    std::vector<double> x, f, dy;
    double alpha = 0.7;
    bool normalise = true;
    double rate = 0;
    bool alpha_in_memory = false;

    Problem(std::int64_t tokens, std::int64_t channels, bool with_x = true)
        : tokens(tokens), channels(channels), x(with_x ? numbers(tokens * channels, 1) : std::vector<double>{}), f(numbers(tokens * channels, 2)),
          dy(numbers(tokens * channels, 3)) {}
};

struct Result {
    std::vector<double> y, inv_rms, dx, df, d_alpha;
};

Result solve(const DeviceCase& on, const Problem& p) {
    const Shape shape{p.tokens, p.channels};
    std::vector<double> position, sample;
    for (std::int64_t t = 0; t < p.tokens; ++t) position.push_back(static_cast<double>(t)), sample.push_back(7);
    const DeviceTensor positions = on.put_list(position), samples = on.put_list(sample);
    const DeviceTensor x = p.x.empty() && p.tokens > 0 ? DeviceTensor() : on.put(shape, p.x), f = on.put(shape, p.f), y = on.zeros(shape);
    const DeviceTensor inv_rms = on.zeros_wide({p.tokens}), dy = on.put(shape, p.dy), df = on.zeros(shape);
    const DeviceTensor dx = x.tensor() ? on.zeros(shape) : DeviceTensor(), d_alpha = on.zeros_wide({1}), scratch = on.scratch({p.tokens});
    const DeviceTensor one = to_device(on.device, {1}, p.alpha_in_memory ? on.dtype : Dtype::f64, {p.alpha});
    const Scalar alpha = p.alpha_in_memory ? Scalar(one.tensor()) : Scalar(p.alpha);
    const Dropout dropout{.rate = p.rate, .seed = 5, .detail = 3};
    const TokenOrigin origin{.sample = samples, .position = positions};
    Stream& stream = on.stream();
    add_norm(stream, {.x = x, .f = f, .y = y, .inv_rms = inv_rms, .alpha = alpha, .normalise = p.normalise, .dropout = dropout, .origin = origin});
    add_norm_backward(stream, {.dy = dy, .y = y, .inv_rms = inv_rms, .f = f, .dx = dx, .df = df, .d_alpha = d_alpha, .scratch = scratch,
                               .alpha = alpha, .normalise = p.normalise, .dropout = dropout, .origin = origin});
    return {to_host(y), to_host(inv_rms), dx.tensor() ? to_host(dx) : std::vector<double>{}, to_host(df), to_host(d_alpha)};
}

double loss_of(const Problem& p) { return dot(solve(exact_case(), p).y, p.dy); }

/// Norm of one row without a residual.
DeviceTensor norm(const DeviceCase& on, const std::vector<double>& f, double epsilon) {
    const Shape shape{1, static_cast<std::int64_t>(f.size())};
    DeviceTensor y = on.zeros(shape);
    const DeviceTensor input = on.put(shape, f), inv_rms = on.zeros_wide({1});
    Stream& stream = on.stream();
    add_norm(stream, {.f = input, .y = y, .inv_rms = inv_rms, .epsilon = epsilon});
    return y;
}

}  // namespace

BOOST_AUTO_TEST_CASE(epsilon_stands_inside_the_root) {
    for (const DeviceCase& on : device_cases()) {
        const double bound = std::max(1e-10, on.tolerance(4));  // ten digits given
        check_all(norm(on, {3, 4}, 1e-12), {0.8485281374, 1.1313708499}, bound);
        check_all(norm(on, {3, 4}, 1e-7), {0.8485281340, 1.1313708454}, bound);
        check_all(norm(on, {0.01, -0.02, 0.03, 0}, 1e-7), {0.5344461398, -1.0688922797, 1.6033384195, 0}, bound);
        check_all(norm(on, {0.01, -0.02, 0.03, 0}, 1e-12), {0.5345224831, -1.0690449661, 1.6035674492, 0}, bound);
    }
}

BOOST_AUTO_TEST_CASE(backward_gives_the_published_gradient) {
    for (const DeviceCase& on : device_cases()) {
        const double bound = std::max(1e-10, on.tolerance(4));
        const DeviceTensor x = on.put({1, 4}, {1, -2, 3, .5}), y = on.zeros({1, 4}), inv_rms = on.zeros_wide({1});
        const DeviceTensor dy = on.put({1, 4}, {.1, .2, -.3, .4}), df = on.zeros({1, 4});
        Stream& stream = on.stream();
        add_norm(stream, {.f = x, .y = y, .inv_rms = inv_rms, .epsilon = 1e-7});
        check_all(y, {0.5298129354, -1.0596258708, 1.5894388062, 0.2649064677}, bound);
        add_norm_backward(stream, {.dy = dy, .y = y, .inv_rms = inv_rms, .df = df});
        check_all(df, {0.0901611476, 0.0316028789, -0.0474043184, 0.2305151012}, bound);
    }
}

BOOST_AUTO_TEST_CASE(the_branch_is_scaled_before_it_is_added) {
    for (const DeviceCase& on : device_cases()) {
        Problem p(1, 2);
        p.x = {1, 2}, p.f = {2, -1}, p.dy = {1, 0}, p.alpha = 0.5;
        // z = (2, 1.5), rms = sqrt(3.125)
        check_all(solve(on, p).y, {1.1313708498984762, 0.8485281374238570}, std::max(1e-12, on.tolerance(2)));  // epsilon moves them by 2e-13
        p.normalise = false;
        const Result plain = solve(on, p);
        check_all(plain.y, {2, 1.5}, 0);
        check_all(plain.dx, {1, 0}, 0);
        check_all(plain.df, {0.5, 0}, 0);
        check_all(plain.d_alpha, {2}, 0);
    }
}

BOOST_AUTO_TEST_CASE(a_branch_scale_in_memory_gives_the_bits_of_a_number) {
    for (const DeviceCase& on : device_cases())
        for (const bool normalise : {true, false}) {
            Problem p(3, 17);
            p.alpha = 0.75, p.normalise = normalise;  // a number of every dtype
            const Result number = solve(on, p);
            p.alpha_in_memory = true;
            const Result memory = solve(on, p);
            check_all(memory.y, number.y, 0);
            check_all(memory.dx, number.dx, 0);
            check_all(memory.df, number.df, 0);
            check_all(memory.d_alpha, number.d_alpha, 0);
            p.alpha = 0.5;
            BOOST_TEST(solve(on, p).y != number.y);
        }
    const DeviceTensor two = exact_case().zeros({2});
    BOOST_CHECK_THROW(Scalar(two.tensor()), Error);
}

BOOST_AUTO_TEST_CASE(gradients_agree_with_central_differences) {
    for (const bool with_x : {true, false})
        for (const bool normalise : {true, false})
            for (const double rate : {0.0, 0.3}) {
                Problem p(3, 17, with_x);
                p.normalise = normalise, p.rate = rate;
                const Result exact = solve(exact_case(), p);
                const auto along = [&](std::vector<double> Problem::*which) {
                    return [&p, which](const std::vector<double>& v) {
                        Problem moved = p;
                        moved.*which = v;
                        return loss_of(moved);
                    };
                };
                BOOST_TEST(worst_difference(p.f, exact.df, along(&Problem::f)) < gradient_bound);
                if (!with_x) continue;
                BOOST_TEST(worst_difference(p.x, exact.dx, along(&Problem::x)) < gradient_bound);
                BOOST_TEST(worst_difference({p.alpha}, exact.d_alpha, [&](const std::vector<double>& alpha) {
                    Problem moved = p;
                    moved.alpha = alpha[0];
                    return loss_of(moved);
                }) < gradient_bound);
            }
}

BOOST_AUTO_TEST_CASE(lower_precision_agrees_with_f64) {
    for (const DeviceCase& on : device_cases())
        for (const std::int64_t channels : {1, 15, 16, 17, 33, 384})
            for (const bool normalise : {true, false}) {
                Problem p(3, channels);
                p.normalise = normalise, p.rate = 0.1;
                p.x = rounded(p.x, on.dtype), p.f = rounded(p.f, on.dtype), p.dy = rounded(p.dy, on.dtype);
                const Result got = solve(on, p), expected = solve(exact_case(), p);
                check_all(got.y, expected.y, on.tolerance(channels));
                // Gradients carry the rounding of y too, and are as large as 1 / rms.
                double inv_rms = 1;
                for (const double r : expected.inv_rms) inv_rms = std::max(inv_rms, r);
                if (normalise) check_all(got.inv_rms, expected.inv_rms, on.wide_tolerance(channels));
                check_all(got.dx, expected.dx, inv_rms * on.tolerance(channels));
                check_all(got.df, expected.df, inv_rms * on.tolerance(channels));
                check_all(got.d_alpha, expected.d_alpha, inv_rms * on.tolerance(3 * channels));
            }
}

BOOST_AUTO_TEST_CASE(outputs_may_share_memory_with_inputs_as_the_header_says) {
    for (const DeviceCase& on : device_cases()) {
        const Problem p(3, 17);
        const Result apart = solve(on, p);
        const Shape shape{3, 17};
        for (const bool into_x : {true, false}) {
            const DeviceTensor x = on.put(shape, p.x), f = on.put(shape, p.f), inv_rms = on.zeros_wide({3});
            Stream& stream = on.stream();
            const DeviceTensor& y = into_x ? x : f;
            add_norm(stream, {.x = x, .f = f, .y = y, .inv_rms = inv_rms, .alpha = p.alpha});
            check_all(y, apart.y, 0);
            const DeviceTensor dy = on.put(shape, p.dy), df = on.zeros(shape);
            add_norm_backward(stream, {.dy = dy, .y = y, .inv_rms = inv_rms, .dx = dy, .df = df, .alpha = p.alpha});
            check_all(dy, apart.dx, 0);
            check_all(df, apart.df, 0);
            const DeviceTensor both = on.put(shape, p.dy), dx = on.zeros(shape);
            add_norm_backward(stream, {.dy = both, .y = y, .inv_rms = inv_rms, .dx = dx, .df = both, .alpha = p.alpha});
            check_all(dx, apart.dx, 0);
            check_all(both, apart.df, 0);
        }
    }
}

BOOST_AUTO_TEST_CASE(no_tokens_give_no_gradient) {
    for (const DeviceCase& on : device_cases()) {
        const Result nothing = solve(on, Problem(0, 8));
        BOOST_TEST(nothing.y.empty());
        check_all(nothing.d_alpha, {0}, 0);
    }
}

BOOST_AUTO_TEST_CASE(bits_do_not_depend_on_threads) {
    Problem p(200, 40);  // more than three blocks of tokens in the sum of d_alpha
    p.rate = 0.1;
    std::vector<Result> results;
    for (const int threads : {1, 2, 3}) {
        set_thread_count(threads);
        results.push_back(solve({Device::cpu, Dtype::f32}, p));
    }
    set_thread_count(cpu_count());
    for (const Result& other : results) {
        check_all(other.y, results[0].y, 0);
        check_all(other.df, results[0].df, 0);
        check_all(other.d_alpha, results[0].d_alpha, 0);
    }
}

BOOST_AUTO_TEST_CASE(dropout_without_origins_is_refused) {
    const DeviceCase on = exact_case();
    const DeviceTensor f = on.zeros({2, 3}), inv_rms = on.zeros({2});
    Stream& stream = on.stream();
    BOOST_CHECK_THROW(add_norm(stream, {.f = f, .y = f, .inv_rms = inv_rms, .dropout = {.rate = 0.1}}), Error);
    BOOST_CHECK_THROW(add_norm(stream, {.f = f, .y = f}), Error);  // nowhere to put inv_rms
}
