#include "tasks/pair_head.hpp"

#include "core/cpu.hpp"
#include "tests/tasks/head_case.hpp"

using namespace rf;
using namespace rf::test;
using namespace rf::tasks;

namespace {

using Case = HeadCase<PairHead>;

struct Problem {
    PairHead::Spec spec;
    HeadBatch batch;
    Case make() const { return Case(spec, spec.size); }
};

/// A span with a window that has no answer, and padding behind.
Problem span() {
    return {.spec = {.task = "s", .size = 4, .first_is_visible = true},
            .batch = {.lengths = {7, 5, 3}, .cells = {0, 3, 5}, .cell_begin = {0, 1, 1, 1, 1}, .visible = {3, 6, 2, 4, 1, 2, 0, 0}, .padding = 2, .padded_sequences = 1}};
}
/// Three types, of which one may run backwards.
Problem entities(bool efficient) {
    return {.spec = {.task = "e", .types = 3, .ordered = 2, .size = 4, .efficient = efficient, .kind = TokenPairKind::multilabel},
            .batch = {.lengths = {7, 5, 1}, .cells = {0, 1, 1, 0, 1, 4, 2, 3, 2, 1, 2, 3}, .cell_begin = {0, 3, 4, 4}, .visible = {1, 6, 1, 4, 0, 1}}};
}
Problem problem(int which) { return which == 0 ? span() : entities(which == 2); }

}  // namespace

BOOST_AUTO_TEST_CASE(parameters_have_the_published_shapes_and_fans) {
    const Case pointer = entities(false).make(), efficient = entities(true).make();
    BOOST_TEST(pointer.layout.entries().size() == 1);
    BOOST_TEST(pointer.layout.entries()[0].spec.name == "task/e/dense");
    BOOST_TEST((pointer.layout.entries()[0].spec.shape == Shape{3 * 2 * 4, 8}));
    BOOST_TEST((efficient.layout.entries()[0].spec.shape == Shape{2 * 4, 8}));
    BOOST_TEST(efficient.layout.entries()[1].spec.name == "task/e/bias_dense");
    BOOST_TEST((efficient.layout.entries()[1].spec.shape == Shape{2 * 3, 2 * 4}));
    BOOST_TEST(efficient.layout.entries()[0].spec.fan == 8);
    BOOST_TEST(efficient.layout.entries()[1].spec.fan == 8);  // 2 D
}

BOOST_AUTO_TEST_CASE(gradients_agree_with_central_differences) {
    for (int which = 0; which < 3; ++which) problem(which).make().check_gradients(problem(which).batch, 0.3);
}

BOOST_AUTO_TEST_CASE(every_device_and_dtype_agrees_with_f64) {
    // A projection over 8 channels, a product over 4, a sum over 7 tokens, and back.
    for (int which = 0; which < 3; ++which) problem(which).make().check_devices(problem(which).batch, 8 * 4 * 7);
}

BOOST_AUTO_TEST_CASE(efficient_global_pointer_gives_the_published_scores) {
    // Hidden states are the published outputs of the first dense layer, which is one here; head size 2, one type. The second dense [4, 2] is given
    // as (in, out). Section 8.3 has the scores at positions 0 and 1.
    const Case c({.task = "e", .ordered = 0, .size = 2, .efficient = true, .kind = TokenPairKind::multilabel}, 2);
    std::vector<double> w(static_cast<std::size_t>(c.layout.size()), 0), x(2 * 8, 0);
    for (std::size_t i = 0; i < 4; ++i) w[i * 8 + i] = 1;
    const double second[4][2] = {{.1, .2}, {.3, -.1}, {0, .5}, {1, 0}}, rows[2][4] = {{1, 2, 3, 4}, {.5, -1, 1, 0}};
    for (std::size_t i = 0; i < 4; ++i) {
        for (std::size_t o = 0; o < 2; ++o) w[static_cast<std::size_t>(c.layout.entries()[1].offset) + o * 4 + i] = second[i][o];
        x[i] = rows[0][i], x[8 + i] = rows[1][i];
    }
    const HeadBatch batch{.lengths = {2}, .visible = {0, 2}};
    const double a = 12.9994949366, b = -1.542080943, d = 4.6102571219, e = -0.1285533906;
    c.with(exact_case(), batch, w, x, [&](const StepContext& step, const ParamView& weights, const DeviceTensor& states, const HeadLabels& labels) {
        std::vector<std::int64_t> begin;
        const std::vector<FoundCell> found = c.head.found(step, weights, states, labels, begin);
        BOOST_REQUIRE(found.size() == 2);
        BOOST_TEST((found[0].start == 0 && found[0].end == 0 && found[1].start == 1 && found[1].end == 0));
        check_close(found[0].score, a, 5e-11);
        check_close(found[1].score, d, 5e-11);
    });
    check_close(c.run(exact_case(), batch, w, x, 1).loss, std::log1p(std::exp(a) + std::exp(b) + std::exp(d) + std::exp(e)), 5e-10);
}

BOOST_AUTO_TEST_CASE(global_pointer_takes_first_the_query_then_the_key_of_each_type) {
    // Two types of size 2; at position 0 nothing is turned. Hidden states are the outputs: q = (1, 2), k = (3, 4); then q = (5, 6), k = (7, 8).
    const Case c({.task = "g", .types = 2, .ordered = 2, .size = 2, .kind = TokenPairKind::multilabel}, 2);
    std::vector<double> w(static_cast<std::size_t>(c.layout.size()), 0), x;
    for (std::size_t i = 0; i < 8; ++i) w[i * 8 + i] = 1, x.push_back(static_cast<double>(i + 1));
    for (const DeviceCase& on : device_cases())
        c.with(on, {.lengths = {1}, .visible = {0, 1}}, w, x, [&](const StepContext& step, const ParamView& weights, const DeviceTensor& states, const HeadLabels& labels) {
            std::vector<std::int64_t> begin;
            const std::vector<FoundCell> found = c.head.found(step, weights, states, labels, begin);
            BOOST_REQUIRE(found.size() == 2);
            check_close(found[0].score, (1 * 3 + 2 * 4) / std::sqrt(2.0), on.wide_tolerance(2));
            check_close(found[1].score, (5 * 7 + 6 * 8) / std::sqrt(2.0), on.wide_tolerance(2));
            BOOST_TEST((begin == std::vector<std::int64_t>{0, 2}));
        });
}

BOOST_AUTO_TEST_CASE(the_best_span_leaves_out_the_first_token) {
    const Problem p = span();
    const Case c = p.make();
    for (const DeviceCase& on : device_cases()) {
        const std::vector<double> w = rounded(c.weights(), on.dtype), x = rounded(numbers(p.batch.tokens() * 8, 12), on.dtype);
        c.with(on, p.batch, w, x, [&](const StepContext& step, const ParamView& weights, const DeviceTensor& states, const HeadLabels& labels) {
            const Tensor best = c.head.best(step, weights, states, labels);
            std::vector<double> stats(static_cast<std::size_t>(best.count()));
            if (best.dtype == Dtype::f64) download(step.stream, best, stats.data());
            else {
                std::vector<float> narrow(stats.size());
                download(step.stream, best, narrow.data());
                std::copy(narrow.begin(), narrow.end(), stats.begin());
            }
            // The same from all cells above any score: a head of any number of cells with the same weights, whose scores are shifted by nothing.
            for (std::size_t s = 0; s < 3; ++s) {
                const double n = p.batch.lengths[s], cell = stats[3 * 4 + s];
                const double start = std::floor(cell / n), end = cell - start * n;
                BOOST_TEST(start >= p.batch.visible[2 * s]);
                BOOST_TEST(end >= start);
                BOOST_TEST(end < p.batch.visible[2 * s + 1]);
                BOOST_TEST(stats[s] >= stats[2 * 4 + s]);  // log of the sum against the largest
            }
            BOOST_TEST(stats[3 * 4 + 2] == 1 * 3 + 1);  // one cell is all there is
        });
    }
    const Case many = entities(false).make();
    many.with(exact_case(), entities(false).batch, many.weights(), numbers(13 * 8, 12),
              [&](const StepContext& step, const ParamView& weights, const DeviceTensor& states, const HeadLabels& labels) {
                  BOOST_CHECK_THROW(many.head.best(step, weights, states, labels), Error);
              });
}

BOOST_AUTO_TEST_CASE(found_cells_are_visible_ordered_and_those_of_one_sequence_at_a_time) {
    for (const bool efficient : {false, true})
        for (const DeviceCase& on : device_cases()) {
            const Problem p = entities(efficient);
            const Case c = p.make();
            const std::vector<double> w = rounded(c.weights(), on.dtype), x = rounded(numbers(p.batch.tokens() * 8, 12), on.dtype);
            const auto found_in = [&](const HeadBatch& batch, const std::vector<double>& states, std::vector<std::int64_t>& begin) {
                std::vector<FoundCell> cells;
                c.with(on, batch, w, states, [&](const StepContext& step, const ParamView& weights, const DeviceTensor& s, const HeadLabels& labels) {
                    cells = c.head.found(step, weights, s, labels, begin);
                });
                return cells;
            };
            std::vector<std::int64_t> begin, one;
            const std::vector<FoundCell> all = found_in(p.batch, x, begin);
            BOOST_REQUIRE(begin.size() == 4);
            BOOST_TEST(begin.back() == static_cast<std::int64_t>(all.size()));
            BOOST_TEST(all.size() > 10);
            bool backwards = false;
            for (std::size_t s = 0; s < 3; ++s) {
                const auto cu = p.batch.cu_seqlens();
                const std::vector<FoundCell> alone = found_in({.lengths = {p.batch.lengths[s]}, .visible = {p.batch.visible[2 * s], p.batch.visible[2 * s + 1]}},
                                                              {x.begin() + static_cast<std::ptrdiff_t>(cu[s]) * 8, x.begin() + static_cast<std::ptrdiff_t>(cu[s + 1]) * 8}, one);
                BOOST_REQUIRE_EQUAL(begin[s + 1] - begin[s], static_cast<std::int64_t>(alone.size()));
                for (std::size_t i = 0; i < alone.size(); ++i) {
                    const FoundCell& cell = all[static_cast<std::size_t>(begin[s]) + i];
                    BOOST_TEST((cell.type == alone[i].type && cell.start == alone[i].start && cell.end == alone[i].end && cell.score > 0));
                    check_close(cell.score, alone[i].score, on.tolerance(8));  // a product's last bits may depend on its shape
                    BOOST_TEST((cell.start >= p.batch.visible[2 * s] && cell.end < p.batch.visible[2 * s + 1]));
                    if (cell.type < 2) BOOST_TEST(cell.start <= cell.end);
                    else backwards = backwards || cell.start > cell.end;
                }
            }
            BOOST_TEST(backwards);
        }
}

BOOST_AUTO_TEST_CASE(bits_do_not_depend_on_threads) {
    const int threads = thread_count();
    for (int which = 0; which < 3; ++which) {
        const Problem p = problem(which);
        const Case c = p.make();
        const DeviceCase on{Device::cpu, Dtype::f32};
        const std::vector<double> x = numbers(p.batch.tokens() * 8, 12);
        set_thread_count(1);
        const HeadResult one = c.run(on, p.batch, c.weights(), x, 0.3);
        set_thread_count(3);
        const HeadResult three = c.run(on, p.batch, c.weights(), x, 0.3);
        set_thread_count(threads);
        BOOST_TEST((one.loss == three.loss && one.dx == three.dx && one.grads == three.grads));
    }
}

BOOST_AUTO_TEST_CASE(heads_and_tables_that_do_not_fit_are_refused) {
    ParamLayout layout;
    BOOST_CHECK_THROW(PairHead(Case::config(), {.task = "t", .size = 3}, layout), Error);
    BOOST_CHECK_THROW(PairHead(Case::config(), {.task = "t", .types = 2, .ordered = 3}, layout), Error);
    const Problem p = span();
    const Case other_size(p.spec, 2);  // angles for another head
    const std::vector<double> x = numbers(p.batch.tokens() * 8, 12);
    BOOST_CHECK_THROW(other_size.run(exact_case(), p.batch, other_size.weights(), x, 1), Error);
    HeadBatch longer{.lengths = {65}, .visible = {1, 2}};
    const Case c = p.make();
    BOOST_CHECK_THROW(c.run(exact_case(), longer, c.weights(), numbers(65 * 8, 12), 1), Error);  // the table has 64 positions
}

BOOST_AUTO_TEST_CASE(of_the_cells_found_a_sequence_keeps_the_best) {
    std::vector<FoundCell> cells{{0, 0, 1, 2.0}, {0, 0, 2, 5.0}, {0, 1, 1, 5.0}, {0, 1, 2, 1.0}, {0, 2, 2, 3.0}};
    const std::vector<FoundCell> all = cells;
    keep_best(cells, 5);
    BOOST_TEST((cells == all));
    keep_best(cells, 3);
    BOOST_TEST((cells == std::vector<FoundCell>{all[1], all[2], all[4]}));  // in their order
    keep_best(cells, 1);
    BOOST_TEST((cells == std::vector<FoundCell>{all[1]}));  // of equals the first

    // Scores of one sign everywhere: each of a sequence's n (n + 1) / 2 cells is found, n of each type stay.
    const Case c({.task = "all", .types = 2, .ordered = 2, .size = 2, .kind = TokenPairKind::multilabel}, 2);
    std::vector<double> w(static_cast<std::size_t>(c.layout.size()), 0);
    for (const std::size_t row : {0, 2, 4, 6}) w[row * 8] = 1;  // q and k of either type: the first channel; turned by an angle below pi / 2
    const HeadBatch batch{.lengths = {2, 1}, .visible = {0, 2, 0, 1}};
    std::vector<double> x(3 * 8, 0);
    for (std::size_t t = 0; t < 3; ++t) x[t * 8] = 1 + static_cast<double>(t);
    for (const DeviceCase& on : device_cases())
        c.with(on, batch, w, x, [&](const StepContext& step, const ParamView& weights, const DeviceTensor& states, const HeadLabels& labels) {
            std::vector<std::int64_t> begin;
            BOOST_TEST(c.head.found(step, weights, states, labels, begin).size() == 2U * (3 + 1));
            const Outputs outputs = c.head.outputs(step, weights, states, labels);
            BOOST_TEST((outputs.cell_begin == std::vector<std::int64_t>{0, 4, 6}));
            BOOST_TEST(outputs.sequences() == 2);
            // Of tokens with 1 and 2 the pairs score 1, 2 cos 1 and 4, over the root of 2.
            BOOST_TEST((outputs.cells[0].start == 0 && outputs.cells[0].end == 1 && outputs.cells[1].start == 1 && outputs.cells[1].end == 1));
        });
}
