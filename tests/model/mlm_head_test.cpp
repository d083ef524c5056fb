#include "model/mlm_head.hpp"

#include "tests/kernels/gradient_check.hpp"
#include "tests/model/tiny_model.hpp"

#include <boost/test/unit_test.hpp>

using namespace rf;
using namespace rf::test;

namespace {

/// The head alone on given hidden states.
struct HeadRun {
    Sums sums;
    std::vector<double> dx, d_word;
};

/// Sequences of 20 tokens with every second position predicted.
Batch batch_of(int sequences) {
    Batch batch;
    for (int s = 0; s < sequences; ++s) {
        std::vector<std::int32_t> ids(20, 3), wanted;
        for (int t = 0; t < 20; ++t) wanted.push_back(t % 2 == 0 ? 1 + (t + s) % 11 : 0);
        batch.add(ids, wanted);
    }
    return batch;
}

/// What the encoder would hand on of x [T, C]: the predicted rows, and zeros for padding.
std::vector<double> read(const Batch& batch, const std::vector<double>& x) {
    std::vector<double> rows;
    for (const std::int32_t row : batch.rows)
        for (std::size_t i = 0; i < 8; ++i) rows.push_back(row < 0 ? 0 : x[static_cast<std::size_t>(row) * 8 + i]);
    return rows;
}

/// dx of all tokens, as the encoder gets it back.
HeadRun run(TinyModel& model, const Batch& batch, const std::vector<double>& x, const Scalar& factor, bool training) {
    const StepContext context = model.step(batch, 1, training);
    const auto m = static_cast<std::int64_t>(batch.rows.size()), c = model.config.hidden_size;
    const std::vector<double> rows = read(batch, x);
    const ParamView weights(model.layout, model.weights()), grads(model.layout, model.grads());
    std::fill_n(model.grads().as<double>(), model.layout.size(), 0.0);
    const Tensor dx = model.arena.tensor({m, c}, Dtype::f64);
    HeadRun r;
    model.head.forward_backward(context, weights, grads, view(rows.data(), {m, c}), list(batch.targets), factor, dx, r.sums.tensor());
    r.dx.assign(x.size(), 0);
    for (std::int64_t i = 0; i < m; ++i)
        if (const std::int32_t row = batch.rows[static_cast<std::size_t>(i)]; row >= 0) std::copy_n(dx.as<double>() + i * c, c, r.dx.begin() + row * c);
    r.d_word = model.copy(grads[model.encoder.word_table()]);
    return r;
}

}  // namespace

BOOST_AUTO_TEST_CASE(gradients_agree_with_central_differences) {
    for (const bool training : {false, true}) {
        TinyModel model(tiny_config());
        randomise(model);
        const Batch batch = batch_of(1);
        const std::vector<double> x = numbers(20 * 8, 1);
        const HeadRun exact = run(model, batch, x, 0.1, training);
        BOOST_TEST(worst_difference(x, exact.dx, [&](const auto& moved) { return 0.1 * run(model, batch, moved, 0.1, training).sums.loss(); }) < gradient_bound);
        double* word = ParamView(model.layout, model.weights())[model.encoder.word_table()].as<double>();
        const std::vector<double> table(word, word + 12 * 8);
        const auto loss = [&](const std::vector<double>& moved) {
            std::copy(moved.begin(), moved.end(), word);
            return 0.1 * run(model, batch, x, 0.1, training).sums.loss();
        };
        BOOST_TEST(worst_difference(table, exact.d_word, loss) < gradient_bound);
    }
}

BOOST_AUTO_TEST_CASE(more_rows_than_one_chunk_are_the_sum_of_their_parts) {
    TinyModel model(tiny_config());
    randomise(model);
    const Batch all = batch_of(60);  // 600 predicted rows, worked on 512 at a time
    const std::vector<double> x = numbers(1200 * 8, 1);
    const HeadRun whole = run(model, all, x, 0.5, true);
    double loss = 0;
    double correct = 0;
    std::vector<double> d_word(12 * 8, 0);
    for (int half = 0; half < 2; ++half) {
        Batch some = all;
        some.rows.assign(all.rows.begin() + half * 300, all.rows.begin() + half * 300 + 300);
        some.targets.assign(all.targets.begin() + half * 300, all.targets.begin() + half * 300 + 300);
        const HeadRun part = run(model, some, x, 0.5, true);
        loss += part.sums.loss(), correct += part.sums.correct();
        for (std::size_t i = 0; i < d_word.size(); ++i) d_word[i] += part.d_word[i];
        for (std::size_t i = 0; i < 600 * 8; ++i) {
            const std::size_t at = static_cast<std::size_t>(half) * 600 * 8 + i;
            BOOST_TEST(std::abs(part.dx[at] - whole.dx[at]) < 1e-14);
        }
    }
    BOOST_TEST(all.count() == 600);
    BOOST_TEST(whole.sums.correct() == correct);
    BOOST_TEST(std::abs(whole.sums.loss() - loss) < 1e-12 * loss);
    for (std::size_t i = 0; i < d_word.size(); ++i) BOOST_TEST(std::abs(d_word[i] - whole.d_word[i]) < 1e-12);
}

BOOST_AUTO_TEST_CASE(evaluation_gives_the_loss_of_the_forward_pass) {
    TinyModel model(tiny_config());
    randomise(model);
    const Batch batch = batch_of(2);
    const std::vector<double> x = numbers(40 * 8, 1);
    const HeadRun trained = run(model, batch, x, 1, false);
    const StepContext context = model.step(batch, 1, false);
    const std::vector<double> rows = read(batch, x);
    Sums sums;
    model.head.evaluate(context, ParamView(model.layout, model.weights()), view(rows.data(), {20, 8}), list(batch.targets), sums.tensor());
    BOOST_TEST(sums.loss() == trained.sums.loss());
    BOOST_TEST(sums.correct() == trained.sums.correct());
    // Sums go on from what stands there.
    model.head.evaluate(context, ParamView(model.layout, model.weights()), view(rows.data(), {20, 8}), list(batch.targets), sums.tensor());
    BOOST_TEST(std::abs(sums.loss() - 2 * trained.sums.loss()) < 1e-12 * sums.loss());
    BOOST_TEST(sums.correct() == 2 * trained.sums.correct());
}

BOOST_AUTO_TEST_CASE(rows_that_do_not_count_change_nothing) {
    TinyModel model(tiny_config());
    randomise(model);
    const Batch exact = batch_of(30);  // 300 rows; 250 more reach over a chunk of 512
    const std::vector<double> x = numbers(600 * 8, 1);
    const HeadRun one = run(model, exact, x, 0.5, true), more = run(model, exact.padded(0, 0, 250, 0), x, 0.5, true);
    BOOST_TEST(more.sums.loss() == one.sums.loss());
    BOOST_TEST(more.sums.correct() == one.sums.correct());
    for (std::size_t i = 0; i < one.dx.size(); ++i) BOOST_TEST(std::abs(more.dx[i] - one.dx[i]) < 1e-14);
    for (std::size_t i = 0; i < one.d_word.size(); ++i) BOOST_TEST(std::abs(more.d_word[i] - one.d_word[i]) < 1e-12);
}

BOOST_AUTO_TEST_CASE(a_factor_in_memory_counts_when_the_work_runs) {
    TinyModel model(tiny_config());
    randomise(model);
    const Batch batch = batch_of(1);
    const std::vector<double> x = numbers(20 * 8, 1);
    double factor = 0.25;
    const HeadRun number = run(model, batch, x, 0.25, true), memory = run(model, batch, x, view(&factor, {1}), true);
    BOOST_TEST(memory.dx == number.dx);
    BOOST_TEST(memory.d_word == number.d_word);
    factor = 0.5;
    const HeadRun doubled = run(model, batch, x, view(&factor, {1}), true);
    for (std::size_t i = 0; i < number.dx.size(); ++i) BOOST_TEST(doubled.dx[i] == 2 * number.dx[i]);
}

BOOST_AUTO_TEST_CASE(nothing_to_predict_gives_no_loss_and_no_gradient) {
    TinyModel model(tiny_config());
    randomise(model);
    Batch batch;
    batch.add({2, 5, 7}, {0, 0, 0});
    const HeadRun r = run(model, batch, numbers(3 * 8, 1), 1, true);
    BOOST_TEST(r.sums.loss() == 0);
    BOOST_TEST(r.sums.correct() == 0);
    BOOST_TEST(batch.count() == 0);
    for (const double g : r.dx) BOOST_TEST(g == 0);
    for (const double g : r.d_word) BOOST_TEST(g == 0);
}
