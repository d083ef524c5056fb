#include "kernels/token_pairs.hpp"

#include "core/cpu.hpp"
#include "tests/kernels/device_case.hpp"
#include "tests/kernels/gradient_check.hpp"
#include "tests/kernels/rotary_table.hpp"
#include "tests/kernels/token_pairs_case.hpp"

using namespace rf;
using namespace rf::test;

namespace {

std::vector<DeviceCase> pair_cases() {
    std::vector<DeviceCase> cases;
    for (const DeviceCase& on : device_cases())
        if (on.dtype != Dtype::bf16) cases.push_back(on);
    return cases;
}

struct Result {
    double loss = 0, correct = 0;
    std::vector<double> stats, dq, dk, d_bias;
};

/// Operands of one case on a device.
struct Operands {
    DeviceTensor q, k, bias, cu_seqlens, visible, cells, cell_begin;
    TokenPairs pairs;
    Operands(const DeviceCase& on, const PairCase& c, const std::vector<double>& vq, const std::vector<double>& vk, const std::vector<double>& vb)
        : q(on.put({c.groups, c.tokens(), c.d}, vq)), k(on.put({c.groups, c.tokens(), c.d}, vk)),
          bias(c.with_bias ? on.put({c.tokens(), 2 * c.types}, vb) : DeviceTensor()), cu_seqlens(on.put_list(c.cu_seqlens())),
          visible(to_device(on.device, {c.sequences(), 2}, Dtype::i32, c.visible_list())),
          cells(to_device(on.device, {static_cast<std::int64_t>(c.cell_list().size()) / 3, 3}, Dtype::i32, c.cell_list())), cell_begin(on.put_list(c.cell_begin())),
          pairs{.q = q, .k = k, .bias = bias, .cu_seqlens = cu_seqlens, .visible = visible, .first_is_visible = c.first_is_visible, .types = c.types, .ordered = c.ordered,
                .longest = c.longest(), .kind = c.kind, .cells = cells, .cell_begin = cell_begin} {}
};

Result solve(const DeviceCase& on, const PairCase& c, const std::vector<double>& q, const std::vector<double>& k, const std::vector<double>& b, const Scalar& factor) {
    const Operands o(on, c, q, k, b);
    const DeviceTensor stats = on.zeros({4, c.types, c.sequences()}), rows = on.scratch({4, c.types, c.tokens()}), sums = to_device(on.device, {2}, Dtype::f64, {0, 0});
    // What the gradients held must not matter.
    const auto filled = [&](Shape shape) { return on.put(shape, std::vector<double>(static_cast<std::size_t>(shape.count()), 7)); };
    const DeviceTensor dq = filled({c.groups, c.tokens(), c.d}), dk = filled({c.groups, c.tokens(), c.d});
    const DeviceTensor d_bias = c.with_bias ? filled({c.tokens(), 2 * c.types}) : DeviceTensor();
    token_pair_loss(on.stream(), {.pairs = o.pairs, .stats = stats, .rows = rows, .sums = sums});
    token_pair_backward(on.stream(), {.pairs = o.pairs, .stats = stats, .factor = factor, .dq = dq, .dk = dk, .d_bias = d_bias});
    const std::vector<double> total = to_host(sums);
    return {total[0], total[1], to_host(stats), to_host(dq), to_host(dk), c.with_bias ? to_host(d_bias) : std::vector<double>()};
}

/// Numbers for q, k and bias of a case.
struct Values {
    std::vector<double> q, k, bias;
    explicit Values(const PairCase& c, double size = 2) : q(numbers(c.groups * c.tokens() * c.d, 1)), k(numbers(c.groups * c.tokens() * c.d, 2)), bias(numbers(c.tokens() * 2 * c.types, 3)) {
        for (std::vector<double>* v : {&q, &k, &bias})
            for (double& x : *v) x = static_cast<float>(x * size);
    }
};

const TokenPairKind kinds[] = {TokenPairKind::softmax, TokenPairKind::multilabel};

/// One sequence whose scores are given: q = scores and k = the unit vectors, D = n + n % 2.
PairCase table_case(std::int64_t n, TokenPairKind kind, std::vector<std::array<std::int32_t, 3>> cells) {
    return {.d = n + n % 2, .kind = kind, .lengths = {n}, .visible = {{0, static_cast<std::int32_t>(n)}}, .cells = {std::move(cells)}};
}
Result solve_table(const DeviceCase& on, const PairCase& c, const std::vector<std::vector<double>>& scores) {
    std::vector<double> q(static_cast<std::size_t>(c.tokens() * c.d), 0), k = q;
    for (std::size_t i = 0; i < scores.size(); ++i) {
        for (std::size_t j = 0; j < scores.size(); ++j) q[i * static_cast<std::size_t>(c.d) + j] = scores[i][j];
        k[i * static_cast<std::size_t>(c.d) + i] = 1;
    }
    return solve(on, c, q, k, {}, 1);
}

}  // namespace

BOOST_AUTO_TEST_CASE(multilabel_cross_entropies_are_the_published_ones) {
    for (const DeviceCase& on : pair_cases()) {
        // The three cells of a sequence of two tokens, as they are met: (0, 0), (0, 1), (1, 1).
        const std::vector<std::vector<double>> scores{{2, -1}, {99, .5}}, zeros{{0, 0}, {0, 0}};
        const double bound = std::max(5e-11, on.tolerance(3));  // ten digits given
        const Result one = solve_table(on, table_case(2, TokenPairKind::multilabel, {{0, 0, 0}}), scores);
        check_close(one.loss, 1.2310586164, bound);
        BOOST_TEST(one.correct == 0);  // s = 0.5 is wrong
        const Result two = solve_table(on, table_case(2, TokenPairKind::multilabel, {{0, 0, 0}, {0, 1, 1}}), scores);
        check_close(two.loss, 0.8682186072, bound);
        BOOST_TEST(two.correct == 1);
        const Result none = solve_table(on, table_case(2, TokenPairKind::multilabel, {{0, 0, 0}}), zeros);
        check_close(none.loss, std::log(3.0) + std::log(2.0), bound);  // log(1 + 2) + log(1 + 1)
        PairCase single = table_case(2, TokenPairKind::multilabel, {{0, 0, 0}});
        single.visible = {{0, 1}};
        check_close(solve_table(on, single, zeros).loss, std::log(2.0), bound);  // no wrong cell at all: log(1 + 0) + log(1 + 1)
    }
}

BOOST_AUTO_TEST_CASE(scores_of_efficient_global_pointer_are_the_published_ones) {
    for (const DeviceCase& on : pair_cases()) {
        // Outputs of the dense layer hold q and k in turns; the second dense gives end and start. Head size 2, position 0 and 1: the table's angles are
        // those of theta = 1, and the published products are rotated ones.
        const DeviceTensor x = on.put({2, 4}, {1, 2, 3, 4, .5, -1, 1, 0}), position = on.put_list({0, 1}), q = on.zeros({1, 2, 2}), k = on.zeros({1, 2, 2});
        const DeviceTensor rotary = on.put({2, 1, 2}, {1, 0, std::cos(1.0), std::sin(1.0)});
        token_pair_vectors(on.stream(), {.x = x, .position = position, .rotary = rotary, .interleaved = true, .q = q, .k = k});
        PairCase c{.ordered = 0, .d = 2, .kind = TokenPairKind::multilabel, .with_bias = true, .lengths = {2}, .visible = {{0, 2}}};
        const std::vector<double> bias{4.7, 1.5, -.25, .7}, none(4, 0);  // [1, 2, 3, 4] and [.5, -1, 1, 0] times the second dense, by hand
        const std::vector<double> vq = to_host(q), vk = to_host(k);
        const double products[] = {9.8994949366, -2.167080943, 1.9102571219, -0.3535533906}, scores[] = {12.9994949366, -1.542080943, 4.6102571219, -0.1285533906};
        const double bound = std::max(5e-11, on.tolerance(2));
        for (std::int64_t i = 0; i < 2; ++i)
            for (std::int64_t j = 0; j < 2; ++j) {
                check_close(c.score(vq, vk, none, 0, 0, i, j), products[2 * i + j], bound);
                // The op's own score, seen alone: everything else is right, so it is the largest wrong one.
                PairCase alone = c;
                alone.cells = {{}};
                for (std::int32_t a = 0; a < 2; ++a)
                    for (std::int32_t b = 0; b < 2; ++b)
                        if (a != i || b != j) alone.cells[0].push_back({0, a, b});
                check_close(solve(on, alone, vq, vk, bias, 1).stats[2], scores[2 * i + j], bound);
            }
    }
}

BOOST_AUTO_TEST_CASE(vectors_are_turned_by_their_position_and_split_by_their_layout) {
    for (const DeviceCase& on : pair_cases()) {
        // Section 8.3: d = 4, theta = (1, 0.01), x = [1, 2, 3, 4] at positions 1 and 10; q is halved (1 / sqrt(4)).
        const std::vector<double> at1{-1.1426396637, 1.9220755965, 2.9598506679, 4.0297995017}, at10{0.2489706927, -2.222164169, 2.5856788292, 4.2795169111};
        std::vector<double> angles;
        for (int m = 0; m <= 10; ++m)
            for (const double theta : {1.0, 0.01}) angles.push_back(std::cos(m * theta)), angles.push_back(std::sin(m * theta));
        const DeviceTensor rotary = on.put({11, 2, 2}, angles), position = on.put_list({1, 10});
        const double bound = std::max(5e-10, on.tolerance(2));
        const auto check_vectors = [&](std::int64_t groups, bool interleaved, const std::vector<double>& row) {
            std::vector<double> rows = row;
            rows.insert(rows.end(), row.begin(), row.end());
            const DeviceTensor x = on.put({2, groups * 8}, rows), q = on.zeros({groups, 2, 4}), k = on.zeros({groups, 2, 4}), dx = on.zeros({2, groups * 8});
            token_pair_vectors(on.stream(), {.x = x, .position = position, .rotary = rotary, .interleaved = interleaved, .q = q, .k = k});
            // The last group's q is half of x turned, its k twice x turned.
            const std::vector<double> vq = to_host(q), vk = to_host(k);
            for (std::size_t c = 0; c < 4; ++c) {
                const std::size_t last = static_cast<std::size_t>(groups - 1) * 8;
                check_close(vq[last + c], at1[c] / 2, bound), check_close(vq[last + 4 + c], at10[c] / 2, bound);
                check_close(vk[last + c], 2 * at1[c], bound), check_close(vk[last + 4 + c], 2 * at10[c], bound);
            }
            // Turned back, q is scaled a second time.
            token_pair_vectors_backward(on.stream(), {.dq = q, .dk = k, .position = position, .rotary = rotary, .interleaved = interleaved, .dx = dx});
            std::vector<double> back = rows;
            for (std::size_t i = 0; i < back.size(); ++i)
                if (interleaved ? i % 2 == 0 : i % 8 < 4) back[i] /= 4;
            check_all(dx, back, bound);
        };
        check_vectors(1, true, {1, 2, 2, 4, 3, 6, 4, 8});
        check_vectors(1, false, {1, 2, 3, 4, 2, 4, 6, 8});
        check_vectors(2, false, {5, -1, 7, 2, 9, 8, 1, 3, 1, 2, 3, 4, 2, 4, 6, 8});
    }
}

BOOST_AUTO_TEST_CASE(the_best_cell_is_found_and_the_lowest_of_equals) {
    for (const DeviceCase& on : pair_cases()) {
        PairCase c = table_case(3, TokenPairKind::softmax, {{0, 1, 2}});
        const Result r = solve_table(on, c, {{0, 1, 2}, {50, 1, 2}, {50, 50, 2}});
        const std::vector<double> e{1, std::exp(1), std::exp(2), std::exp(1), std::exp(2), std::exp(2)};
        double sum = 0;
        for (const double x : e) sum += x;
        check_all(r.stats, {std::log(sum), 2, 2, 2}, on.tolerance(6));
        check_close(r.loss, std::log(sum) - 2, on.tolerance(6));
        BOOST_TEST(r.correct == 0);  // (0, 2) comes first
        c.cells = {{{0, 0, 2}}};
        BOOST_TEST(solve_table(on, c, {{0, 1, 2}, {50, 1, 2}, {50, 50, 2}}).correct == 1);
        // No answer is (0, 0). Columns 1 and 2 are not visible.
        c.cells = {{}}, c.visible = {{0, 1}};
        const Result none = solve_table(on, c, {{0, 9, 9}, {9, 9, 9}, {9, 9, 9}});
        BOOST_TEST(none.loss == 0);
        BOOST_TEST(none.correct == 1);
    }
}

BOOST_AUTO_TEST_CASE(losses_are_those_of_the_formula_packed_or_not) {
    for (const TokenPairKind kind : kinds)
        for (const bool shared : {false, true}) {
            const PairCase c = mixed_case(kind, shared);
            const Values v(c);
            const double expected = c.loss(v.q, v.k, v.bias);
            for (const DeviceCase& on : pair_cases()) {
                const Result r = solve(on, c, v.q, v.k, v.bias, 1);
                check_close(r.loss, expected, on.tolerance(34 * 34));
                // One sequence at a time: its tokens lie elsewhere in the batch.
                double sum = 0, correct = 0;
                for (std::int64_t s = 0; s < c.sequences(); ++s) {
                    PairCase one = c;
                    const auto cu = c.cu_seqlens();
                    const auto begin = static_cast<std::int64_t>(cu[static_cast<std::size_t>(s)]), n = c.lengths[static_cast<std::size_t>(s)];
                    one.lengths = {n}, one.visible = {c.visible[static_cast<std::size_t>(s)]}, one.cells = {c.cells[static_cast<std::size_t>(s)]}, one.padding = 0;
                    const auto cut = [&](const std::vector<double>& x, std::int64_t groups, std::int64_t width) {
                        std::vector<double> part;
                        for (std::int64_t g = 0; g < groups; ++g)
                            part.insert(part.end(), x.begin() + (g * c.tokens() + begin) * width, x.begin() + (g * c.tokens() + begin + n) * width);
                        return part;
                    };
                    const Result alone = solve(on, one, cut(v.q, c.groups, c.d), cut(v.k, c.groups, c.d), cut(v.bias, 1, 2 * c.types), 1);
                    sum += alone.loss, correct += alone.correct;
                    BOOST_TEST((cut(r.dq, c.groups, c.d) == alone.dq));  // the same bits
                    BOOST_TEST((cut(r.dk, c.groups, c.d) == alone.dk));
                    if (c.with_bias) BOOST_TEST((cut(r.d_bias, 1, 2 * c.types) == alone.d_bias));
                }
                BOOST_TEST(std::abs(sum - r.loss) < 1e-12 * sum);  // sums are f64
                BOOST_TEST(correct == r.correct);
            }
        }
}

BOOST_AUTO_TEST_CASE(gradients_agree_with_central_differences) {
    for (const TokenPairKind kind : kinds)
        for (const bool shared : {false, true}) {
            const PairCase c = mixed_case(kind, shared);
            const Values v(c);
            const Result exact = solve(exact_case(), c, v.q, v.k, v.bias, 0.3);
            const auto loss = [&](const std::vector<double>& q, const std::vector<double>& k, const std::vector<double>& b) { return 0.3 * c.loss(q, k, b); };
            BOOST_TEST(worst_difference(v.q, exact.dq, [&](const auto& x) { return loss(x, v.k, v.bias); }, 3) < gradient_bound);
            BOOST_TEST(worst_difference(v.k, exact.dk, [&](const auto& x) { return loss(v.q, x, v.bias); }, 3) < gradient_bound);
            if (c.with_bias) BOOST_TEST(worst_difference(v.bias, exact.d_bias, [&](const auto& x) { return loss(v.q, v.k, x); }, 2) < gradient_bound);
        }
}

BOOST_AUTO_TEST_CASE(lower_precision_agrees_with_f64) {
    for (const DeviceCase& on : pair_cases())
        for (const TokenPairKind kind : kinds)
            for (const bool shared : {false, true}) {
                const PairCase c = mixed_case(kind, shared);
                const Values v(c);
                const Result got = solve(on, c, v.q, v.k, v.bias, 0.5), expected = solve(exact_case(), c, v.q, v.k, v.bias, 0.5);
                check_all(got.stats, expected.stats, on.tolerance(34 * 34));
                BOOST_TEST(got.correct == expected.correct);
                check_all(got.dq, expected.dq, on.tolerance(34));
                check_all(got.dk, expected.dk, on.tolerance(34));
                check_all(got.d_bias, expected.d_bias, on.tolerance(34));
            }
}

BOOST_AUTO_TEST_CASE(bits_do_not_depend_on_threads) {
    for (const TokenPairKind kind : kinds)
        for (const bool shared : {false, true}) {
            const PairCase c = mixed_case(kind, shared);
            const Values v(c);
            const DeviceCase on{Device::cpu, Dtype::f32};
            const int threads = thread_count();
            set_thread_count(1);
            const Result one = solve(on, c, v.q, v.k, v.bias, 0.5);
            set_thread_count(3);
            const Result three = solve(on, c, v.q, v.k, v.bias, 0.5);
            set_thread_count(threads);
            BOOST_TEST((one.loss == three.loss && one.stats == three.stats && one.dq == three.dq && one.dk == three.dk && one.d_bias == three.d_bias));
        }
}

BOOST_AUTO_TEST_CASE(scores_of_any_size_do_not_overflow) {
    for (const DeviceCase& on : pair_cases()) {
        const std::vector<std::vector<double>> scores{{1e4, -1e4}, {0, 1e4}};
        const Result one = solve_table(on, table_case(2, TokenPairKind::softmax, {{0, 0, 1}}), scores);
        check_close(one.loss, 2e4 + std::log(2.0), on.tolerance(2));
        const Result many = solve_table(on, table_case(2, TokenPairKind::multilabel, {{0, 0, 1}}), scores);
        check_close(many.loss, 2e4 + std::log(2.0), on.tolerance(2));
        for (const double d : one.dq) BOOST_TEST(std::isfinite(d));
        for (const double d : many.dq) BOOST_TEST(std::isfinite(d));
    }
}

BOOST_AUTO_TEST_CASE(cells_above_zero_are_counted_and_listed) {
    for (const DeviceCase& on : pair_cases())
        for (const bool shared : {false, true}) {
            const PairCase c = mixed_case(TokenPairKind::multilabel, shared);
            const Values v(c);
            const Operands o(on, c, v.q, v.k, v.bias);
            const DeviceTensor counts(on.device, {c.types, c.tokens()}, Dtype::i32);
            token_pair_cells(on.stream(), {.pairs = o.pairs, .counts = counts});
            // Sequence by sequence, then by type and start.
            const std::vector<double> count = to_host(counts), cu = c.cu_seqlens();
            std::vector<double> begin(count.size(), 0), expected, scores;
            std::int64_t total = 0;
            for (std::int64_t s = 0; s < c.sequences(); ++s)
                for (std::int64_t type = 0; type < c.types; ++type)
                    for (std::int64_t i = 0; i < c.lengths[static_cast<std::size_t>(s)]; ++i) {
                        const auto place = static_cast<std::size_t>(type * c.tokens() + static_cast<std::int64_t>(cu[static_cast<std::size_t>(s)]) + i);
                        begin[place] = static_cast<double>(total);
                        total += static_cast<std::int64_t>(count[place]);
                        for (std::int64_t j = 0; j < c.lengths[static_cast<std::size_t>(s)]; ++j) {
                            const double score = c.score(v.q, v.k, v.bias, static_cast<std::int64_t>(cu[static_cast<std::size_t>(s)]), type, i, j);
                            if (!c.counts(s, type, i, j) || score <= 0) continue;
                            for (const std::int64_t part : {type, i, j}) expected.push_back(static_cast<double>(part));
                            scores.push_back(score);
                        }
                    }
            BOOST_REQUIRE_EQUAL(total, static_cast<std::int64_t>(scores.size()));
            BOOST_TEST(total > 100);
            const DeviceTensor found(on.device, {total, 3}, Dtype::i32), found_scores = on.zeros({total});
            const DeviceTensor places = to_device(on.device, {c.types, c.tokens()}, Dtype::i32, begin);
            token_pair_cells(on.stream(), {.pairs = o.pairs, .begin = places, .found = found, .scores = found_scores});
            BOOST_TEST((to_host(found) == expected));
            check_all(found_scores, scores, on.tolerance(4));
        }
}

BOOST_AUTO_TEST_CASE(operands_that_do_not_fit_are_refused) {
    const DeviceCase on = exact_case();
    const PairCase c = mixed_case(TokenPairKind::multilabel, true);
    const Values v(c);
    const Operands o(on, c, v.q, v.k, v.bias);
    const DeviceTensor stats = on.zeros({4, c.types, c.sequences()}), short_stats = on.zeros({4, 1, c.sequences()}), dq = on.zeros({1, c.tokens(), c.d});
    TokenPairs wrong = o.pairs;
    wrong.types = 3;
    BOOST_CHECK_THROW(token_pair_loss(on.stream(), {.pairs = wrong, .stats = stats}), Error);
    BOOST_CHECK_THROW(token_pair_loss(on.stream(), {.pairs = o.pairs, .stats = short_stats}), Error);
    BOOST_CHECK_THROW(token_pair_backward(on.stream(), {.pairs = o.pairs, .stats = stats, .dq = dq, .dk = dq}), Error);  // no d_bias
    wrong = o.pairs;
    wrong.cells = {};  // but not their cell_begin
    BOOST_CHECK_THROW(token_pair_loss(on.stream(), {.pairs = wrong, .stats = stats}), Error);
}
