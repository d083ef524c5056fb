#include "tasks/dense_head.hpp"

#include "core/cpu.hpp"
#include "tests/tasks/head_case.hpp"

using namespace rf;
using namespace rf::test;
using namespace rf::tasks;

namespace {

using Case = HeadCase<DenseHead>;

/// A head of one loss and a batch for it, with padding behind.
struct Problem {
    DenseHead::Spec spec;
    HeadBatch batch;
};

Problem problem(DenseLoss loss) {
    Problem p{.spec = {.task = "t", .loss = loss, .outputs = loss == DenseLoss::classes ? 3 : loss == DenseLoss::choices ? 2 : 1},
              .batch = {.lengths = {3, 1, 4, 2, 5, 2}}};
    switch (loss) {
        case DenseLoss::classes: p.batch.label = {2, 0, -1, 1, 1, 2}; break;
        case DenseLoss::choices: p.batch.label = {1, -1, 0}; break;
        case DenseLoss::square: p.batch.score = {1, -0.5, std::nan(""), 3, 0, 2}; break;
        default: p.batch.score = {1, 0, 2, 2, std::nan(""), 0.5}, p.batch.lists = {0, 2, 2, 6}; break;
    }
    return p;
}

const DenseLoss losses[] = {DenseLoss::classes, DenseLoss::choices, DenseLoss::square, DenseLoss::pairwise, DenseLoss::listwise};

}  // namespace

BOOST_AUTO_TEST_CASE(classes_by_hand) {
    const Case c({.task = "tnews", .outputs = 2});
    BOOST_TEST(c.layout.entries()[0].spec.name == "task/tnews/dense");
    BOOST_TEST(c.layout.entries()[1].spec.name == "task/tnews/bias");
    BOOST_TEST(c.layout.entries()[0].spec.fan == 8);
    BOOST_TEST(c.layout.entries()[1].spec.fan == 0);  // starts at zero
    // Only the first token of a sequence counts. Logits: 1 + 2 and 3 * 2 - 3, so both classes have 1/2; then 2 and -3.
    std::vector<double> w(static_cast<std::size_t>(c.layout.size()), 0), x(4 * 8, 5);
    w[0] = 1, w[8] = 3;
    w[static_cast<std::size_t>(c.layout.entries()[1].offset)] = 2, w[static_cast<std::size_t>(c.layout.entries()[1].offset) + 1] = -3;
    std::fill_n(x.begin(), 8, 0), std::fill_n(x.begin() + 3 * 8, 8, 0);
    x[0] = 1, w[8] = 6;
    for (const DeviceCase& on : device_cases()) {
        const HeadResult r = c.run(on, {.lengths = {3, 1}, .label = {1, 0}}, w, x, 0.5);
        check_close(r.loss, std::log(2.0) + std::log1p(std::exp(-5)), on.wide_tolerance(2));
        BOOST_TEST(r.correct == 1);  // of equal logits the first counts
        // d_logits of the first: (1/4, -1/4); dW = d x, dx = d W.
        check_close(r.dx[0], 0.25 * 1 - 0.25 * 6, on.tolerance(2));
        for (std::size_t i = 8; i < 3 * 8; ++i) BOOST_TEST(r.dx[i] == 0);
        check_close(r.grads[0], 0.25, on.tolerance(2));
        check_close(r.grads[8], -0.25, on.tolerance(2));
    }
}

BOOST_AUTO_TEST_CASE(gradients_agree_with_central_differences) {
    for (const DenseLoss loss : losses) {
        const Problem p = problem(loss);
        Case(p.spec).check_gradients(p.batch, 0.3);
    }
}

BOOST_AUTO_TEST_CASE(every_device_and_dtype_agrees_with_f64) {
    for (const DenseLoss loss : losses) {
        const Problem p = problem(loss);
        Case(p.spec).check_devices(p.batch, 8 * 6);
    }
}

BOOST_AUTO_TEST_CASE(a_batch_is_the_sum_of_its_examples) {
    for (const DenseLoss loss : losses) {
        const Problem p = problem(loss);
        const Case c(p.spec);
        const std::vector<double> w = c.weights(), x = numbers(p.batch.tokens() * 8, 12);
        const HeadResult all = c.run(exact_case(), p.batch, w, x, 0.3);
        // Sequences of each example.
        const std::vector<std::size_t> begin = loss == DenseLoss::choices ? std::vector<std::size_t>{0, 2, 4, 6}
                                               : p.batch.lists.empty()    ? std::vector<std::size_t>{0, 1, 2, 3, 4, 5, 6}
                                                                          : std::vector<std::size_t>{0, 2, 2, 6};
        double sum = 0, correct = 0;
        std::vector<double> grads(w.size(), 0), dx;
        const std::vector<double> cu = p.batch.cu_seqlens();
        for (std::size_t e = 0; e + 1 < begin.size(); ++e) {
            const auto part = [&](const std::vector<double>& v, std::size_t from, std::size_t to) {
                return v.empty() ? v : std::vector<double>(v.begin() + static_cast<std::ptrdiff_t>(from), v.begin() + static_cast<std::ptrdiff_t>(to));
            };
            HeadBatch one{.lengths = part(p.batch.lengths, begin[e], begin[e + 1]), .label = part(p.batch.label, e, e + 1), .score = part(p.batch.score, begin[e], begin[e + 1])};
            if (!p.batch.lists.empty()) one.lists = {0, static_cast<double>(begin[e + 1] - begin[e])};
            const HeadResult r = c.run(exact_case(), one, w, part(x, static_cast<std::size_t>(cu[begin[e]]) * 8, static_cast<std::size_t>(cu[begin[e + 1]]) * 8), 0.3);
            sum += r.loss, correct += r.correct;
            dx.insert(dx.end(), r.dx.begin(), r.dx.end());
            for (std::size_t i = 0; i < grads.size(); ++i) grads[i] += r.grads[i];
        }
        check_close(all.loss, sum, 1e-13);
        BOOST_TEST(all.correct == correct);
        check_all(all.dx, dx, 1e-15);
        check_all(all.grads, grads, 1e-14);
    }
}

BOOST_AUTO_TEST_CASE(padding_changes_nothing) {
    for (const DenseLoss loss : losses) {
        const Problem p = problem(loss);
        HeadBatch more = p.batch;
        more.padding = 3, more.padded_sequences = 2;
        if (loss == DenseLoss::classes) more.label.insert(more.label.end(), 2, -1);
        if (loss == DenseLoss::choices) more.label.push_back(-1);
        if (!more.score.empty()) more.score.insert(more.score.end(), 2, std::nan(""));
        if (!more.lists.empty()) more.lists.push_back(8);
        const Case c(p.spec);
        for (const DeviceCase& on : device_cases()) {
            const std::vector<double> w = rounded(c.weights(), on.dtype), x = rounded(numbers(more.tokens() * 8, 12), on.dtype);
            const HeadResult padded = c.run(on, more, w, x, 0.3), plain = c.run(on, p.batch, w, {x.begin(), x.end() - 3 * 8}, 0.3);
            check_close(padded.loss, plain.loss, on.tolerance(8));  // a product's last bits may depend on its shape
            BOOST_TEST(padded.correct == plain.correct);
            check_all({padded.dx.begin(), padded.dx.end() - 3 * 8}, plain.dx, on.tolerance(8));
            check_all(std::vector<double>(padded.dx.end() - 3 * 8, padded.dx.end()), std::vector<double>(3 * 8, 0), 0);
            check_all(padded.grads, plain.grads, on.tolerance(8));
        }
    }
}

BOOST_AUTO_TEST_CASE(logits_are_those_the_loss_is_of) {
    const Problem p = problem(DenseLoss::classes);
    const Case c(p.spec);
    const std::vector<double> w = c.weights(), x = numbers(p.batch.tokens() * 8, 12);
    c.with(exact_case(), p.batch, w, x, [&](const StepContext& step, const ParamView& weights, const DeviceTensor& states, const HeadLabels&) {
        const Tensor logits = c.head.logits(step, weights, states);
        double loss = 0;
        for (int s = 0; s < 6; ++s) {
            const double* row = logits.as<double>() + 3 * s;
            if (p.batch.label[static_cast<std::size_t>(s)] < 0) continue;
            loss += std::log(std::exp(row[0]) + std::exp(row[1]) + std::exp(row[2])) - row[static_cast<std::size_t>(p.batch.label[static_cast<std::size_t>(s)])];
        }
        check_close(c.run(exact_case(), p.batch, w, x, 1).loss, loss, 1e-13);
    });
}

BOOST_AUTO_TEST_CASE(bits_do_not_depend_on_threads) {
    const int threads = thread_count();
    for (const DenseLoss loss : losses) {
        const Problem p = problem(loss);
        const Case c(p.spec);
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

BOOST_AUTO_TEST_CASE(labels_that_do_not_fit_are_refused) {
    const Case c(problem(DenseLoss::choices).spec), ranked({.task = "r", .loss = DenseLoss::pairwise});
    const std::vector<double> x = numbers(6 * 8, 12);
    BOOST_CHECK_THROW(c.run(exact_case(), {.lengths = {3, 3}, .label = {1, 0}}, c.weights(), x, 1), Error);
    BOOST_CHECK_THROW(ranked.run(exact_case(), {.lengths = {3, 3}, .score = {1, 0}}, ranked.weights(), x, 1), Error);
    ParamLayout layout;
    BOOST_CHECK_THROW(DenseHead(Case::config(), {.task = "t", .outputs = 0}, layout), Error);
}
