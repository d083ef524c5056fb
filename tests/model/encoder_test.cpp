#include "model/encoder.hpp"

#include "core/cpu.hpp"
#include "optim/optimizer.hpp"
#include "tests/model/tiny_model.hpp"

#include <boost/test/unit_test.hpp>

#include <map>

using namespace rf;
using namespace rf::test;

namespace {

/// The reference batch: ids 2 5 7 3, targets 4 and 9 at positions 1 and 3. The padding of the padded form is left out:
/// removing it leaves the other rows as they are.
Batch reference_batch() {
    Batch batch;
    batch.add({2, 5, 7, 3}, {0, 4, 0, 9});
    return batch;
}

void check_row(const std::vector<double>& all, std::int64_t row, const std::vector<double>& expected) {
    for (std::size_t i = 0; i < expected.size(); ++i)
        BOOST_TEST(std::abs(all[static_cast<std::size_t>(row) * expected.size() + i] - expected[i]) < 6e-9);  // 8 digits given
}

double norm_of(const TinyModel& model, const std::string& name, std::int64_t slice = 0, std::int64_t slices = 1) {
    for (const ParamEntry& entry : model.layout.entries()) {
        if (entry.spec.name != name) continue;
        const std::int64_t n = entry.local.count() / slices;
        const double* g = model.grads().as<double>() + entry.offset + slice * n;
        double sum = 0;
        for (std::int64_t i = 0; i < n; ++i) sum += g[i] * g[i];
        return std::sqrt(sum);
    }
    BOOST_FAIL("no tensor " << name);
    return 0;
}

/// Largest relative difference between the gradient and central differences, over all parameters. On one thread: starting
/// more takes longer than the work of so small a model.
double worst_difference(TinyModel& model, const Batch& batch, double alpha, bool training, std::int64_t samples = 24) {
    const int threads = thread_count();
    set_thread_count(1);
    model.gradient(batch, alpha, training);
    const std::vector<double> exact = model.copy(model.grads());
    double* w = model.weights().as<double>();
    double worst = 0, scale = 0;
    for (const double g : exact) scale = std::max(scale, std::abs(g));
    constexpr double h = 1e-5;
    for (const ParamEntry& entry : model.layout.entries()) {
        const std::int64_t stride = std::max<std::int64_t>(1, entry.local.count() / samples);  // of each tensor
        for (std::int64_t i = entry.offset; i < entry.offset + entry.local.count(); i += stride) {
            const double kept = w[i];
            // Fourth order: the truncation error stays far below the bound.
            const auto at = [&](double d) {
                w[i] = kept + d;
                return model.loss(batch, alpha, training);
            };
            const double numeric = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h);
            w[i] = kept;
            worst = std::max(worst, std::abs(numeric - exact[static_cast<std::size_t>(i)]) / scale);
        }
    }
    set_thread_count(threads);
    return worst;
}

}  // namespace

BOOST_AUTO_TEST_CASE(reference_model_gives_the_published_activations) {
    TinyModel model(tiny_config());
    fill_by_formula(model);
    BOOST_TEST(std::abs(model.weights().as<double>()[0] - 0.42073549) < 5e-9);
    const double loss = model.loss(reference_batch(), 1);
    check_row(model.outputs[0], 0, {-0.30058927, -1.34549732, 0.48196123, -0.40621688, 0.0111845, 1.311093, 1.98139625, -0.23866965});
    check_row(model.outputs[1], 1, {-0.80396152, -1.16329303, 0.55347647, -0.05749327, 1.93915691, 0.66625663, 0.61396919, 1.05336029});
    check_row(model.outputs[2], 1, {1.04737584, -1.15145405, 0.44478722, 0.50245479, 1.61554846, 0.2229225, 1.56991351, -0.05041083});
    check_row(model.logits, 0, {-0.09359631, -1.02602189, 1.59204668, -0.6100779, 0.4693979, 1.19118092, 1.54981016, -0.12001492, -0.52622554,
                                1.27986855, -0.90893039, -0.3142343});
    BOOST_TEST(std::abs(loss - 2.09065779533) < 5e-11);
}

BOOST_AUTO_TEST_CASE(reference_model_gives_the_published_losses) {
    TinyModel model(tiny_config());
    fill_by_formula(model);
    BOOST_TEST(std::abs(model.loss(reference_batch(), 0.25) - 2.35787954597) < 5e-11);
    BOOST_TEST(std::abs(model.loss(reference_batch(), 0) - 2.16604435841) < 5e-11);
    ModelConfig wide = tiny_config();
    wide.norm_epsilon = 1e-7;
    TinyModel other(wide);
    fill_by_formula(other);
    BOOST_TEST(std::abs(other.loss(reference_batch(), 1) - 2.09065683435) < 5e-11);
}

BOOST_AUTO_TEST_CASE(without_rotary_positions_the_loss_is_the_published_wrong_one) {
    TinyModel model(tiny_config());
    fill_by_formula(model);
    double* table = model.table.as<double>();
    for (std::int64_t i = 0; i < model.table.count(); i += 2) table[i] = 1, table[i + 1] = 0;
    const double loss = model.loss(reference_batch(), 1);
    BOOST_TEST(std::abs(loss - 2.16876432923) < 5e-11);
    BOOST_TEST(std::abs(loss - 2.09065779533) > 1e-2);
}

BOOST_AUTO_TEST_CASE(half_split_rotation_gives_the_published_wrong_loss) {
    // Permuting the channels of q and k inside each head turns interleaved pairs into half-split ones.
    TinyModel model(tiny_config());
    fill_by_formula(model);
    const std::int64_t c = 8, d = 4;
    for (const ParamEntry& entry : model.layout.entries()) {
        if (!entry.spec.name.ends_with("qkv")) continue;
        double* w = model.weights().as<double>() + entry.offset;
        const std::vector<double> before(w, w + 2 * c * c);
        for (std::int64_t row = 0; row < 2 * c; ++row) {  // q, then k
            const std::int64_t i = row % d, from = row - i + (i % 2 == 0 ? i / 2 : d / 2 + i / 2);
            std::copy_n(before.data() + from * c, c, w + row * c);
        }
    }
    const double loss = model.loss(reference_batch(), 1);
    BOOST_TEST(std::abs(loss - 1.95583046521) < 5e-11);
}

BOOST_AUTO_TEST_CASE(reference_model_gives_the_published_gradient_norms) {
    TinyModel model(tiny_config());
    fill_by_formula(model);
    model.gradient(reference_batch(), 1);
    const auto close = [](double a, double b) { BOOST_TEST(std::abs(a - b) < 6e-8); };  // 7 digits given
    close(norm_of(model, "embedding/word"), 2.3210091);
    close(norm_of(model, "embedding/segment"), 1.3827995);
    const double expected[2][6] = {{.5057672, .5647442, .9924060, .9927705, 1.3513907, 1.0269997},
                                   {.2931157, .4167308, .7368330, 1.2050570, 1.2548338, 1.6526152}};
    for (int layer = 0; layer < 2; ++layer) {
        const std::string name = message("layer_", layer, "/");
        for (int i = 0; i < 3; ++i) close(norm_of(model, name + "attention/qkv", i, 3), expected[layer][i]);
        close(norm_of(model, name + "attention/output"), expected[layer][3]);
        close(norm_of(model, name + "feed_forward/up"), expected[layer][4]);
        close(norm_of(model, name + "feed_forward/down"), expected[layer][5]);
    }
    double total = 0;
    for (const double g : model.copy(model.grads())) total += g * g;
    close(std::sqrt(total), 4.3915617);
    close(model.grads().as<double>()[0], 0.0531360);
    for (const ParamEntry& entry : model.layout.entries())
        if (entry.spec.name == "layer_0/attention/qkv") close(model.grads().as<double>()[entry.offset], -0.0786715);
    model.gradient(reference_batch(), 0.25);
    total = 0;
    for (const double g : model.copy(model.grads())) total += g * g;
    close(std::sqrt(total), 2.7833968);
    close(norm_of(model, "layer_0/attention/qkv", 0, 3), .1179949);
    close(norm_of(model, "layer_1/feed_forward/down"), .3613905);
}

BOOST_AUTO_TEST_CASE(gradients_agree_with_central_differences) {
    ModelConfig config = tiny_config();
    for (const double alpha : {1.0, 0.25, 0.0}) {
        TinyModel model(config);
        randomise(model);
        BOOST_TEST(worst_difference(model, packed_batch(12), alpha, false) < 1e-7);
        BOOST_TEST(worst_difference(model, packed_batch(12), alpha, true) < 1e-7);  // with dropout, a fixed function of counters
    }
    config.residual_mode = "rezero";
    TinyModel model(config);
    randomise(model);
    BOOST_TEST(worst_difference(model, packed_batch(12), 1, true) < 1e-7);
}

BOOST_AUTO_TEST_CASE(gradients_of_other_families_agree_with_central_differences) {
    for (const ModelConfig& config : other_styles(tiny_config())) {
        TinyModel model(config);
        BOOST_TEST(model.layout.parameter_count() == config.parameter_count(), style_name(config));
        randomise(model);
        BOOST_TEST(worst_difference(model, packed_batch(12), 0.5, true, 4) < 1e-7, style_name(config));
    }
    ModelConfig rezero = other_styles(tiny_config())[1];  // bert
    rezero.residual_mode = "rezero";
    TinyModel model(rezero);
    BOOST_TEST(model.layout.parameter_count() == rezero.parameter_count());
    randomise(model);
    BOOST_TEST(worst_difference(model, packed_batch(12), 1, true, 4) < 1e-7);
}

BOOST_AUTO_TEST_CASE(packed_sequences_equal_one_at_a_time) {
    for (const bool training : {false, true}) {  // dropout goes with the sample, not with its place in the batch
        TinyModel model(tiny_config());
        randomise(model);
        const Batch all = packed_batch(12);
        model.loss(all, 1, training);
        const std::vector<double> together = model.outputs.back();
        std::size_t at = 0;
        for (std::size_t s = 0; s + 1 < all.cu_seqlens.size(); ++s) {
            Batch one;
            const std::vector<std::int32_t> ids(all.ids.begin() + all.cu_seqlens[s], all.ids.begin() + all.cu_seqlens[s + 1]);
            one.add(ids, std::vector<std::int32_t>(ids.size(), 0));
            one.sample = {all.sample[s]};
            one.token_sample.assign(ids.size(), all.sample[s]);
            model.loss(one, 1, training);
            for (const double x : model.outputs.back()) BOOST_TEST(std::abs(x - together[at++]) < 1e-13);
        }
    }
}

BOOST_AUTO_TEST_CASE(gradients_of_packed_sequences_are_the_sums_of_theirs) {
    std::vector<ModelConfig> configs = other_styles(tiny_config());
    configs.push_back(tiny_config());
    configs.emplace_back(tiny_config()).residual_mode = "rezero";
    for (const ModelConfig& config : configs) {
        TinyModel model(config);
        randomise(model);
        const Batch all = packed_batch(12);
        model.gradient(all, 0.25, true);
        const std::vector<double> together = model.copy(model.grads());
        std::vector<double> sum(together.size(), 0);
        for (std::size_t s = 0; s + 1 < all.cu_seqlens.size(); ++s) {
            const std::int32_t begin = all.cu_seqlens[s], end = all.cu_seqlens[s + 1];
            std::vector<std::int32_t> wanted(static_cast<std::size_t>(end - begin), 0);
            for (std::size_t i = 0; i < all.rows.size(); ++i)
                if (all.rows[i] >= begin && all.rows[i] < end) wanted[static_cast<std::size_t>(all.rows[i] - begin)] = all.targets[i];
            Batch one;
            one.add({all.ids.begin() + begin, all.ids.begin() + end}, wanted);
            one.sample = {all.sample[s]};
            one.token_sample.assign(wanted.size(), all.sample[s]);
            model.gradient(one, 0.25, true);
            // Each is a mean over its own targets (with 1e-7 in the denominator), the whole one over all.
            const double share = (static_cast<double>(one.rows.size()) + 1e-7) / (static_cast<double>(all.rows.size()) + 1e-7);
            const std::vector<double> part = model.copy(model.grads());
            for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += share * part[i];
        }
        for (std::size_t i = 0; i < sum.size(); ++i) BOOST_TEST(std::abs(sum[i] - together[i]) < 1e-13);
    }
}

BOOST_AUTO_TEST_CASE(a_padded_batch_gives_the_loss_and_gradients_of_the_exact_one) {
    std::vector<ModelConfig> configs = other_styles(tiny_config());
    configs.push_back(tiny_config());
    configs.emplace_back(tiny_config()).residual_mode = "rezero";
    for (const ModelConfig& config : configs)
        for (const bool training : {false, true}) {
            TinyModel model(config);
            randomise(model);
            const Batch exact = packed_batch(12), padded = exact.padded(22, 3, 7, 5);
            const double loss = model.gradient(exact, 0.25, training);
            const std::vector<double> gradient = model.copy(model.grads());
            BOOST_TEST(std::abs(model.gradient(padded, 0.25, training) - loss) < 1e-13 * loss);
            const std::vector<double> other = model.copy(model.grads());
            double largest = 0;
            for (std::size_t i = 0; i < gradient.size(); ++i) {
                largest = std::max(largest, std::abs(gradient[i]));
                BOOST_TEST(std::abs(other[i] - gradient[i]) < 1e-13);
            }
            BOOST_TEST(largest > 0.01);
            BOOST_TEST(std::abs(model.loss(padded, 0.25, training) - loss) < 1e-13 * loss);
        }
}

BOOST_AUTO_TEST_CASE(the_last_layer_at_few_rows_is_the_whole_one_there) {
    std::vector<ModelConfig> configs = other_styles(tiny_config());
    configs.push_back(tiny_config());
    configs.emplace_back(tiny_config()).residual_mode = "rezero";
    configs.emplace_back(tiny_config()).num_hidden_layers = 1;
    for (const ModelConfig& config : configs)
        for (const bool training : {false, true}) {
            TinyModel model(config);
            randomise(model);
            const std::int64_t c = config.hidden_size;
            const ParamView weights(model.layout, model.weights()), grads(model.layout, model.grads());
            // Gradients of dot(y, slopes), where only rows that are read have slopes, of a batch with padding.
            const Batch batch = packed_batch(12).padded(3, 1, 2, 2);
            const auto tokens = static_cast<std::int64_t>(batch.ids.size()), m = static_cast<std::int64_t>(batch.rows.size());
            std::vector<std::vector<double>> states, gradients;
            for (const bool whole : {false, true}) {
                StepContext step = model.step(batch, 0.5, training);
                if (whole) step.batch.read = {};
                std::fill_n(model.grads().as<double>(), model.layout.size(), 0.0);
                Encoder::Saved saved;
                const Tensor y = model.encoder.forward(step, weights, saved);
                BOOST_TEST_REQUIRE((y.shape == Shape{whole ? tokens : m, c}));
                const Tensor dy = model.arena.tensor_like(y);
                std::fill_n(dy.as<double>(), dy.count(), 0.0);
                std::vector<double>& read = states.emplace_back();
                for (std::int64_t i = 0; i < m; ++i) {
                    const std::int64_t token = batch.rows[static_cast<std::size_t>(i)], row = whole ? token : i;
                    if (token < 0) continue;
                    for (std::int64_t e = 0; e < c; ++e) {
                        read.push_back(y.as<double>()[row * c + e]);
                        dy.as<double>()[row * c + e] = std::sin(static_cast<double>(3 * i + e));
                    }
                }
                model.encoder.backward(step, weights, grads, dy, saved);
                gradients.push_back(model.copy(model.grads()));
                // Without what backward needs the same.
                step.keeps = false;
                const Tensor again = model.encoder.forward(step, weights, saved);
                std::size_t at = 0;
                for (std::int64_t i = 0; i < m; ++i)
                    if (const std::int64_t token = batch.rows[static_cast<std::size_t>(i)]; token >= 0)
                        for (std::int64_t e = 0; e < c; ++e) BOOST_TEST(again.as<double>()[(whole ? token : i) * c + e] == read[at++]);
            }
            const auto farthest = [](const std::vector<double>& a, const std::vector<double>& b) {
                double worst = 0, largest = 0;
                for (std::size_t i = 0; i < b.size(); ++i) worst = std::max(worst, std::abs(a[i] - b[i])), largest = std::max(largest, std::abs(b[i]));
                BOOST_TEST(largest > 0);
                return worst / largest;
            };
            // The same sums, in blocks of other sizes.
            BOOST_TEST(farthest(states[0], states[1]) < 1e-13, style_name(config));
            BOOST_TEST(farthest(gradients[0], gradients[1]) < 1e-13, style_name(config));
        }
}

BOOST_AUTO_TEST_CASE(a_residual_weight_in_memory_counts_when_the_work_runs) {
    TinyModel model(tiny_config());
    randomise(model);
    const Batch batch = packed_batch(12);
    double alpha = 0.25;
    const double loss = model.gradient(batch, 0.25, true);
    const std::vector<double> gradient = model.copy(model.grads());
    BOOST_TEST(model.gradient(batch, view(&alpha, {1}), true) == loss);
    BOOST_TEST(model.copy(model.grads()) == gradient);
    alpha = 0.5;
    const double other = model.gradient(batch, view(&alpha, {1}), true);
    BOOST_TEST(other != loss);
    BOOST_TEST(other == model.gradient(batch, 0.5, true));
}

BOOST_AUTO_TEST_CASE(one_lamb_step_gives_the_published_loss) {
    TinyModel model(tiny_config());
    fill_by_formula(model);
    model.gradient(reference_batch(), 1);
    ParallelGrid grid(*model.comm, 1);
    const ParamState state(model.layout, grid, Device::cpu, Dtype::f64, true);
    std::copy_n(model.weights().as<double>(), model.layout.size(), state.master().as<double>());
    std::vector<double> gradient = model.copy(model.grads());
    gradient.resize(static_cast<std::size_t>(state.shard_size()));
    Optimizer optimizer(OptimizerConfig{}, state, grid, model.stream);
    const Optimizer::Numbers numbers = optimizer.numbers(1, 1.76e-3);
    double* control = optimizer.control().as<double>();
    control[control_lr] = numbers.lr, control[control_correction1] = numbers.correction1, control[control_correction2] = numbers.correction2;
    optimizer.step(model.stream, view(gradient.data(), {state.shard_size()}));
    std::copy_n(state.master().as<double>(), model.layout.size(), model.weights().as<double>());
    BOOST_TEST(std::abs(model.loss(reference_batch(), 1) - 2.04010545448) < 5e-11);
}

BOOST_AUTO_TEST_CASE(released_sizes_have_the_published_parameter_counts) {
    const auto count = [](std::int64_t layers, std::int64_t hidden) {
        ModelConfig config;
        config.num_hidden_layers = layers;
        config.hidden_size = hidden;
        config.intermediate_size = 4 * hidden;
        config.num_attention_heads = hidden / 64;
        ParamLayout layout;
        const Encoder encoder(config, layout);
        BOOST_TEST(layout.parameter_count() == config.parameter_count());
        return layout.parameter_count();
    };
    BOOST_TEST(count(6, 384) == 15225600);
    BOOST_TEST(count(12, 768) == 94152192);
    BOOST_TEST(count(24, 1024) == 314279936);
}
