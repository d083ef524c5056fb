#include "kernels/embedding.hpp"

#include "core/cpu.hpp"
#include "tests/kernels/device_case.hpp"
#include "tests/kernels/gradient_check.hpp"

using namespace rf;
using namespace rf::test;

namespace {

/// V = 5 ids and two segments.
struct Problem {
    std::int64_t channels;
    std::vector<double> ids{4, 0, 4, 2, 4}, segments{0, 1, 1, 0, 0};
    std::vector<double> word, segment, dy;
    explicit Problem(std::int64_t channels) : channels(channels), word(numbers(5 * channels, 1)), segment(numbers(2 * channels, 2)), dy(numbers(5 * channels, 3)) {}
    std::int64_t tokens() const { return static_cast<std::int64_t>(ids.size()); }
};

std::vector<double> forward(const DeviceCase& on, const Problem& p) {
    const DeviceTensor ids = on.put_list(p.ids), segments = on.put_list(p.segments), word = on.put({5, p.channels}, p.word);
    const DeviceTensor segment = on.put({2, p.channels}, p.segment), y = on.zeros({p.tokens(), p.channels});
    Stream& stream = on.stream();
    embedding(stream, {.ids = ids, .segments = segments, .word = word, .segment = segment, .y = y});
    return to_host(y);
}

/// What goes with the ids of a batch: its tokens grouped by id.
struct Grouped {
    DeviceTensor ids, tokens, begin;
    Grouped(const DeviceCase& on, const std::vector<double>& list, std::size_t empty_groups = 0) : ids(on.put_list(list)) {
        IdGroups groups = group_by_id(std::vector<std::int32_t>(list.begin(), list.end()));
        groups.begin.insert(groups.begin.end(), empty_groups, groups.begin.back());
        tokens = on.put_list({groups.tokens.begin(), groups.tokens.end()}), begin = on.put_list({groups.begin.begin(), groups.begin.end()});
    }
};
DeviceTensor scratch_for(const DeviceCase& on, std::int64_t tokens, std::int64_t types, std::int64_t channels) {
    return on.scratch({embedding_scratch_rows(tokens, types), channels});
}

struct Gradients {
    std::vector<double> word, segment;
};
Gradients backward(const DeviceCase& on, const Problem& p, std::size_t empty_groups = 0) {
    const Grouped by(on, p.ids, empty_groups);
    const DeviceTensor segments = on.put_list(p.segments), dy = on.put({p.tokens(), p.channels}, p.dy);
    const DeviceTensor d_word = on.zeros_wide({5, p.channels}), d_segment = on.zeros_wide({2, p.channels});
    Stream& stream = on.stream();
    const DeviceTensor scratch = scratch_for(on, p.tokens(), 2, p.channels);
    embedding_backward(stream, {.ids = by.ids, .segments = segments, .tokens = by.tokens, .begin = by.begin, .dy = dy, .d_word = d_word,
                                .d_segment = d_segment, .scratch = scratch});
    return {to_host(d_word), to_host(d_segment)};
}

}  // namespace

BOOST_AUTO_TEST_CASE(rows_of_both_tables_are_added) {
    for (const DeviceCase& on : device_cases()) {
        const DeviceTensor ids = on.put_list({2, 0}), segments = on.put_list({1, 0}), word = on.put({3, 2}, {1, 2, 3, 4, 5, 6});
        const DeviceTensor segment = on.put({2, 2}, {10, 20, 30, 40}), y = on.zeros({2, 2});
        Stream& stream = on.stream();
        embedding(stream, {.ids = ids, .segments = segments, .word = word, .segment = segment, .y = y});
        check_all(y, {35, 46, 11, 22}, 0);
        embedding(stream, {.ids = ids, .word = word, .segment = segment, .y = y});  // without segments all are 0
        check_all(y, {15, 26, 11, 22}, 0);
        embedding(stream, {.ids = ids, .word = word, .y = y});
        check_all(y, {5, 6, 1, 2}, 0);
    }
}

BOOST_AUTO_TEST_CASE(rows_of_other_ranks_count_as_zero) {
    for (const DeviceCase& on : device_cases()) {
        const Grouped by(on, {0, 3, 4, 6, 7});
        const DeviceTensor word = on.put({3, 1}, {1, 2, 3}), y = on.put({5, 1}, {9, 9, 9, 9, 9});
        Stream& stream = on.stream();
        embedding(stream, {.ids = by.ids, .word = word, .y = y, .first_id = 4});
        check_all(y, {0, 0, 1, 3, 0}, 0);
        const DeviceTensor dy = on.put({5, 1}, {1, 2, 4, 8, 16}), d_word = on.put_wide({3, 1}, {100, 100, 100});
        const DeviceTensor scratch = scratch_for(on, 5, 0, 1);
        embedding_backward(stream, {.ids = by.ids, .tokens = by.tokens, .begin = by.begin, .dy = dy, .d_word = d_word, .first_id = 4, .scratch = scratch});
        check_all(d_word, {104, 100, 108}, 0);
    }
}

BOOST_AUTO_TEST_CASE(gradients_of_repeated_ids_add_up) {
    for (const DeviceCase& on : device_cases()) {
        const Grouped by(on, {1, 0, 1});
        const DeviceTensor segments = on.put_list({0, 1, 1}), dy = on.put({3, 2}, {1, 2, 3, 4, 5, 6});
        const DeviceTensor d_word = on.put_wide({2, 2}, {0, 0, 10, 0}), d_segment = on.zeros_wide({2, 2});
        Stream& stream = on.stream();
        const DeviceTensor scratch = scratch_for(on, 3, 2, 2);
        embedding_backward(stream, {.ids = by.ids, .segments = segments, .tokens = by.tokens, .begin = by.begin, .dy = dy, .d_word = d_word,
                                    .d_segment = d_segment, .scratch = scratch});
        check_all(d_word, {3, 4, 16, 8}, 0);
        check_all(d_segment, {1, 2, 8, 10}, 0);
    }
}

BOOST_AUTO_TEST_CASE(no_tokens_leave_the_gradients_alone) {
    for (const DeviceCase& on : device_cases()) {
        const Grouped by(on, {});
        const DeviceTensor dy = on.zeros({0, 2}), word = on.zeros({2, 2}), d_word = on.put_wide({2, 2}, {1, 2, 3, 4});
        Stream& stream = on.stream();
        embedding(stream, {.ids = by.ids, .word = word, .y = dy});
        const DeviceTensor scratch = scratch_for(on, 0, 0, 2);
        embedding_backward(stream, {.ids = by.ids, .tokens = by.tokens, .begin = by.begin, .dy = dy, .d_word = d_word, .scratch = scratch});
        check_all(d_word, {1, 2, 3, 4}, 0);
    }
}

BOOST_AUTO_TEST_CASE(groups_hold_the_tokens_of_each_id_in_batch_order) {
    const std::vector<std::int32_t> ids{4, 0, 4, 2, 4};
    const IdGroups groups = group_by_id(ids);
    BOOST_TEST((groups.tokens == std::vector<std::int32_t>{1, 3, 0, 2, 4}));
    BOOST_TEST((groups.begin == std::vector<std::int32_t>{0, 1, 2, 5}));
    const IdGroups none = group_by_id({});
    BOOST_TEST(none.tokens.empty());
    BOOST_TEST((none.begin == std::vector<std::int32_t>{0}));
}

BOOST_AUTO_TEST_CASE(empty_groups_change_nothing) {
    for (const DeviceCase& on : device_cases()) {
        const Problem p(17);
        const Gradients exact = backward(on, p), padded = backward(on, p, 40);
        check_all(padded.word, exact.word, 0);
        check_all(padded.segment, exact.segment, 0);
    }
}

BOOST_AUTO_TEST_CASE(gradients_without_groups_are_refused) {
    const DeviceCase on = exact_case();
    const Grouped by(on, {1, 0});
    const DeviceTensor dy = on.zeros({2, 2}), d_word = on.zeros({2, 2}), one = on.put_list({0});
    BOOST_CHECK_THROW(embedding_backward(on.stream(), {.ids = by.ids, .dy = dy, .d_word = d_word}), Error);
    BOOST_CHECK_THROW(embedding_backward(on.stream(), {.ids = by.ids, .tokens = one, .begin = by.begin, .dy = dy, .d_word = d_word}), Error);
}

BOOST_AUTO_TEST_CASE(gradients_agree_with_central_differences) {
    for (const std::int64_t channels : {3, 17, 65}) {
        const Problem p(channels);
        const Gradients exact = backward(exact_case(), p);
        const auto along = [&](std::vector<double> Problem::*which) {
            return [&p, which](const std::vector<double>& v) {
                Problem moved = p;
                moved.*which = v;
                return dot(forward(exact_case(), moved), p.dy);
            };
        };
        BOOST_TEST(worst_difference(p.word, exact.word, along(&Problem::word)) < gradient_bound);
        BOOST_TEST(worst_difference(p.segment, exact.segment, along(&Problem::segment)) < gradient_bound);
    }
}

BOOST_AUTO_TEST_CASE(lower_precision_agrees_with_f64) {
    for (const DeviceCase& on : device_cases())
        for (const std::int64_t channels : {1, 16, 17, 65}) {
            Problem p(channels);
            p.word = rounded(p.word, on.dtype), p.segment = rounded(p.segment, on.dtype), p.dy = rounded(p.dy, on.dtype);
            check_all(forward(on, p), forward(exact_case(), p), on.tolerance(1));
            const Gradients got = backward(on, p), expected = backward(exact_case(), p);
            check_all(got.word, expected.word, on.wide_tolerance(3));
            check_all(got.segment, expected.segment, on.wide_tolerance(3));
        }
}

BOOST_AUTO_TEST_CASE(bits_do_not_depend_on_threads) {
    Problem p(130);
    p.ids.clear(), p.segments.clear();
    for (int t = 0; t < 500; ++t) p.ids.push_back(t * 7 % 5), p.segments.push_back(t % 2);
    p.dy = numbers(500 * 130, 3);
    std::vector<Gradients> results;
    for (const int threads : {1, 2, 3}) {
        set_thread_count(threads);
        results.push_back(backward({Device::cpu, Dtype::f32}, p));
    }
    set_thread_count(cpu_count());
    for (const Gradients& other : results) {
        check_all(other.word, results[0].word, 0);
        check_all(other.segment, results[0].segment, 0);
    }
}
