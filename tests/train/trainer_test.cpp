#include "train/trainer.hpp"

#include "core/build.hpp"
#include "core/device_memory.hpp"
#include "kernels/elementwise.hpp"
#include "tests/model/tiny_model.hpp"

#include <boost/test/unit_test.hpp>

#include <cmath>
#include <limits>
#include <numeric>

using namespace rf;
using namespace rf::test;

namespace {

PackedBatch packed(const Batch& b) {
    PackedBatch out;
    out.ids = b.ids, out.position = b.position, out.token_sample = b.token_sample, out.sample = b.sample, out.cu_seqlens = b.cu_seqlens;
    out.rows = b.rows, out.targets = b.targets;
    return out;
}

/// A model of its own and a trainer of two lanes.
struct Training {
    std::unique_ptr<Communicator> self = make_self_communicator();
    ParallelGrid grid{*self, 1};
    EncoderModel model{tiny_config(), grid, {.dtype = Dtype::f64, .training = true, .max_length = 64, .seed = 3}};
    Trainer trainer;
    explicit Training(std::int64_t skips_allowed = 0) : trainer(model, grid, OptimizerConfig{}, {.lanes = 2, .skips_allowed = skips_allowed}) { model.initialise(); }
    static std::vector<double> numbers(const Tensor& t) { return {t.as<double>(), t.as<double>() + t.count()}; }
    std::vector<double> masters() const { return numbers(model.state().master()); }
};

std::vector<PackedBatch> two_lanes() {
    Batch other;
    other.add({2, 5, 7, 3}, {0, 4, 0, 9});
    return {packed(packed_batch(12)), packed(other)};
}

}  // namespace

BOOST_AUTO_TEST_CASE(launch_and_wait_are_an_update) {
    Training one, two;
    for (int step = 1; step <= 3; ++step) {
        const UpdateStats a = one.trainer.update(two_lanes(), step, 1e-3, 0.5);
        BOOST_TEST(two.trainer.in_flight() == 0);
        two.trainer.launch(two_lanes(), step, 1e-3, 0.5);
        BOOST_TEST(two.trainer.in_flight() == 1);
        const UpdateStats b = two.trainer.wait();
        BOOST_TEST(b.update == step);
        BOOST_TEST(a.loss == b.loss);
        BOOST_TEST(a.gradient_norm == b.gradient_norm);
        BOOST_TEST(a.accuracy == b.accuracy);
        BOOST_TEST(b.tokens == 74 + 4);
        BOOST_TEST(b.targets == static_cast<std::int64_t>(two_lanes()[0].targets.size()) + 2);
        BOOST_TEST(b.loss > 0);
        BOOST_TEST(b.gradient_norm > 0);
    }
    BOOST_TEST(one.masters() == two.masters());
    BOOST_TEST(one.trainer.depth() == 0);
    BOOST_CHECK_THROW(two.trainer.wait(), Error);  // nothing is under way
}

BOOST_AUTO_TEST_CASE(learning_rate_and_residual_weight_belong_to_the_update) {
    const auto after = [](double lr, double alpha) {
        Training t;
        t.trainer.update(two_lanes(), 1, lr, alpha);
        return t.masters();
    };
    const std::vector<double> base = after(1e-3, 0.5);
    BOOST_TEST(after(1e-3, 0.5) == base);
    BOOST_TEST(after(2e-3, 0.5) != base);
    BOOST_TEST(after(1e-3, 0.25) != base);
}

BOOST_AUTO_TEST_CASE(a_loss_that_is_not_finite_stops_before_anything_is_applied) {
    Training t;
    t.trainer.update(two_lanes(), 1, 1e-3, 0.5);
    double& spoilt = t.model.state().weights().flat().as<double>()[0];  // in the row of id 0, which every softmax sees
    const double kept = spoilt;
    const std::vector<double> weights = t.masters(), m = Training::numbers(t.model.state().m()), v = Training::numbers(t.model.state().v());
    spoilt = std::numeric_limits<double>::quiet_NaN();
    try {
        t.trainer.update(two_lanes(), 2, 1e-3, 0.5);
        BOOST_ERROR("the update went on");
    } catch (const NotFinite& e) {
        const std::string what = e.what();
        BOOST_TEST(what.find("update 2") != std::string::npos, what);
        BOOST_TEST(what.find("lane 0") != std::string::npos, what);
        BOOST_TEST(what.find("layer_1/feed_forward/down") != std::string::npos, what);  // the last, the first that backward comes to
    }
    spoilt = kept;  // of f64 there is one copy of weights and masters
    BOOST_TEST(t.masters() == weights);
    BOOST_TEST(Training::numbers(t.model.state().m()) == m);
    BOOST_TEST(Training::numbers(t.model.state().v()) == v);
    BOOST_TEST(t.trainer.in_flight() == 0);
}

BOOST_AUTO_TEST_CASE(updates_that_are_not_finite_are_left_out_until_too_many_follow_each_other) {
    Training t(2), undisturbed(2);
    t.trainer.update(two_lanes(), 1, 1e-3, 0.5);
    undisturbed.trainer.update(two_lanes(), 1, 1e-3, 0.5);
    double& spoilt = t.model.state().weights().flat().as<double>()[0];
    const double kept = spoilt;
    const auto spoilt_update = [&](int update) {
        spoilt = std::numeric_limits<double>::quiet_NaN();
        const UpdateStats stats = t.trainer.update(two_lanes(), update, 1e-3, 0.5);
        spoilt = kept;
        BOOST_TEST(stats.not_finite.find("lane 0") != std::string::npos, stats.not_finite);
        BOOST_TEST(!std::isfinite(stats.loss));
    };
    spoilt_update(2);
    spoilt_update(3);
    BOOST_TEST(t.trainer.update(two_lanes(), 4, 1e-3, 0.5).not_finite == "");
    undisturbed.trainer.update(two_lanes(), 4, 1e-3, 0.5);
    BOOST_TEST(t.masters() == undisturbed.masters());
    spoilt = std::numeric_limits<double>::quiet_NaN();
    t.trainer.update(two_lanes(), 5, 1e-3, 0.5);
    t.trainer.update(two_lanes(), 6, 1e-3, 0.5);
    BOOST_CHECK_THROW(t.trainer.update(two_lanes(), 7, 1e-3, 0.5), NotFinite);
}

BOOST_AUTO_TEST_CASE(norms_tensor_by_tensor_make_up_those_of_the_whole) {
    Training t;
    const auto norm_of = [](const std::vector<double>& x) { return std::sqrt(std::inner_product(x.begin(), x.end(), x.begin(), 0.0)); };
    std::vector<double> before = t.masters(), change;
    const double weights = norm_of(before);
    const UpdateStats stats = t.trainer.update(two_lanes(), 1, 1e-3, 0.5);
    const std::vector<double> after = t.masters();
    for (std::size_t i = 0; i < before.size(); ++i) change.push_back(after[i] - before[i]);
    double sum_gradient = 0, sum_weights = 0, sum_change = 0;
    for (const Trainer::TensorNorms& norms : t.trainer.tensor_norms(view(before.data(), {static_cast<std::int64_t>(before.size())}))) {
        sum_gradient += norms.gradient * norms.gradient, sum_weights += norms.weights * norms.weights, sum_change += norms.change * norms.change;
        // LAMB's step is as long as the learning rate tells, in every tensor.
        BOOST_TEST((std::abs(norms.change / norms.weights - 1e-3) < 1e-9 || norms.gradient == 0), norms.name << ": " << norms.change << " of " << norms.weights);
    }
    BOOST_TEST(std::abs(std::sqrt(sum_gradient) / stats.gradient_norm - 1) < 1e-12);
    BOOST_TEST(std::abs(std::sqrt(sum_weights) / weights - 1) < 1e-12);
    BOOST_TEST(std::abs(std::sqrt(sum_change) / norm_of(change) - 1) < 1e-12);
    BOOST_TEST(t.trainer.find_faults(tasks::LaneBatch(two_lanes()[0]), 0.5) == "");
}

namespace {

/// Two heads behind one encoder; three micro-steps of two lanes: masked language modelling and each of the heads.
struct Mixing {
    static constexpr int lanes = 2, micro_steps = 3;
    static constexpr double alpha = 0.5;
    std::unique_ptr<Communicator> self = make_self_communicator();
    ParallelGrid grid{*self, 1};
    EncoderModel model{without_dropout(), grid, {.dtype = Dtype::f64, .training = true, .max_length = 64, .seed = 3}, {head("a", 2), head("b", 3)}};

    Mixing() { model.initialise(); }
    static ModelConfig without_dropout() {
        ModelConfig config = tiny_config();
        config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0;
        return config;
    }
    static EncoderModel::Head head(const std::string& name, int labels) {
        tasks::Task task;
        task.file.name = name;
        task.kind = tasks::Kind::classify;
        for (int i = 0; i < labels; ++i) task.labels.push_back(std::to_string(i));
        return {task, 0};
    }
    /// Sequences with one label each.
    static tasks::LaneBatch labelled(int head, const std::vector<std::vector<std::int32_t>>& sequences, const std::vector<std::int32_t>& label) {
        Batch b;
        tasks::LaneBatch lane;
        lane.labels.cell_begin = lane.labels.list_begin = {0};
        for (const auto& sequence : sequences) {
            lane.labels.rows.push_back(static_cast<std::int32_t>(b.ids.size()));
            b.add(sequence, std::vector<std::int32_t>(sequence.size(), 0));
            lane.labels.list_begin.push_back(static_cast<std::int32_t>(lane.labels.rows.size()));
        }
        lane.packed = packed(b);
        lane.head = head;
        lane.labels.label = label;
        lane.labels.counted = static_cast<std::int64_t>(label.size());
        return lane;
    }
    static std::vector<MicroStep> steps() {
        const std::vector<PackedBatch> predicted = two_lanes();
        return {MicroStep(predicted.begin(), predicted.end()),
                {labelled(0, {{2, 5, 7, 3}, {2, 8, 3}}, {1, 0}), labelled(0, {{2, 9, 9, 10, 3}}, {1})},
                {labelled(1, {{2, 6, 3}}, {2}), labelled(1, {{2, 4, 5, 3}, {2, 11, 3}, {2, 7, 7, 3}}, {0, 2, 1})}};
    }
    /// The gradient of a micro-step's mean loss.
    std::vector<double> gradient(const MicroStep& step) {
        const std::int64_t n = model.state().padded_size();
        const Buffer memory(n * 8), sums(16);
        const Tensor g = memory.tensor({n}, Dtype::f64);
        fill_zero(model.stream(), g);
        double counted = step.front().head == tasks::mlm_head ? 1e-7 : 0;  // the guard of train_mlm.py
        for (const tasks::LaneBatch& lane : step) counted += static_cast<double>(lane.counted());
        for (const tasks::LaneBatch& lane : step) model.forward_backward(lane, alpha, 1 / counted, g, sums.tensor({2}, Dtype::f64));
        return Training::numbers(g);
    }
    /// Elements before the first head's.
    std::int64_t shared_size() const {
        for (const ParamEntry& entry : model.layout().entries())
            if (entry.spec.name.starts_with(tasks::head_prefix)) return entry.offset;
        return 0;
    }
    static double product(const std::vector<double>& a, const std::vector<double>& b, std::int64_t n) { return std::inner_product(a.begin(), a.begin() + n, b.begin(), 0.0); }
    double norm(const std::vector<double>& g, bool shared) const { return std::sqrt(product(g, g, shared ? shared_size() : static_cast<std::int64_t>(g.size()))); }
    /// What the optimizer got: AdamW's first m is (1 - beta1) times the gradient.
    std::vector<double> applied(const TrainerOptions& options, UpdateStats& stats) {
        OptimizerConfig adamw;
        adamw.name = "adamw";
        Trainer trainer(model, grid, adamw, options);
        trainer.launch(steps(), 1, 1e-3, alpha);
        stats = trainer.wait();
        std::vector<double> g = Training::numbers(model.state().m());
        for (double& x : g) x /= 1 - adamw.beta1;
        return g;
    }
};

/// Sums of a few hundred f64 terms in another order, relative to the largest element.
void check_close(const std::vector<double>& a, const std::vector<double>& b) {
    BOOST_TEST_REQUIRE(a.size() == b.size());
    double largest = 0, worst = 0;
    for (std::size_t i = 0; i < a.size(); ++i) largest = std::max(largest, std::abs(b[i])), worst = std::max(worst, std::abs(a[i] - b[i]));
    BOOST_TEST(largest > 0);
    BOOST_TEST(worst <= 1000 * std::numeric_limits<double>::epsilon() * largest);
}

}  // namespace

BOOST_AUTO_TEST_CASE(the_update_is_the_mean_of_the_micro_steps_normalised_gradients) {
    for (const Normalise rule : {Normalise::none, Normalise::shared, Normalise::all}) {
        Mixing mixing;
        std::vector<std::vector<double>> gradients;
        for (const MicroStep& step : Mixing::steps()) gradients.push_back(mixing.gradient(step));
        std::vector<double> expected(gradients[0].size(), 0), norms;
        for (const auto& g : gradients) {
            norms.push_back(mixing.norm(g, rule != Normalise::all));
            for (std::size_t i = 0; i < g.size(); ++i) expected[i] += g[i] / Mixing::micro_steps / (rule == Normalise::none ? 1 : norms.back());
        }
        UpdateStats stats;
        check_close(mixing.applied({.lanes = Mixing::lanes, .micro_steps = Mixing::micro_steps, .normalise = rule, .cosine_every = 1}, stats), expected);
        BOOST_TEST_REQUIRE(stats.steps.size() == 3);
        const std::int64_t counted[] = {static_cast<std::int64_t>(two_lanes()[0].targets.size()) + 2, 3, 4};
        double loss = 0;
        const double whole = mixing.norm(expected, true);
        for (int k = 0; k < 3; ++k) {
            const StepStats& one = stats.steps[static_cast<std::size_t>(k)];
            const auto& g = gradients[static_cast<std::size_t>(k)];
            BOOST_TEST(one.head == k - 1);
            BOOST_TEST(one.counted == counted[k]);
            BOOST_TEST(one.weight == 1.0 / 3);
            BOOST_TEST(one.gradient_norm == norms[static_cast<std::size_t>(k)], boost::test_tools::tolerance(1e-13));
            BOOST_TEST(one.cosine == Mixing::product(g, expected, mixing.shared_size()) / whole / mixing.norm(g, true), boost::test_tools::tolerance(1e-12));
            loss += one.loss / 3;
        }
        BOOST_TEST(stats.loss == loss, boost::test_tools::tolerance(1e-14));
        BOOST_TEST(stats.gradient_norm == mixing.norm(expected, false), boost::test_tools::tolerance(1e-13));
    }
}

BOOST_AUTO_TEST_CASE(min_norm_weights_make_every_loss_fall_alike) {
    for (const Normalise rule : {Normalise::none, Normalise::shared}) {
        Mixing mixing;
        std::vector<std::vector<double>> gradients;
        for (const MicroStep& step : Mixing::steps()) gradients.push_back(mixing.gradient(step));
        if (rule != Normalise::none)
            for (auto& g : gradients) {
                const double norm = mixing.norm(g, true);
                for (double& x : g) x /= norm;
            }
        UpdateStats stats;
        const std::vector<double> found = mixing.applied({.lanes = Mixing::lanes, .micro_steps = Mixing::micro_steps, .normalise = rule, .min_norm = true}, stats);
        std::vector<double> expected(found.size(), 0);
        double sum = 0;
        for (std::size_t k = 0; k < 3; ++k) {
            BOOST_TEST(stats.steps[k].weight >= 0);
            sum += stats.steps[k].weight;
            for (std::size_t i = 0; i < expected.size(); ++i) expected[i] += stats.steps[k].weight * gradients[k][i];
        }
        BOOST_TEST(sum == 1, boost::test_tools::tolerance(1e-14));
        check_close(found, expected);
        // Of the least norm: no gradient has a smaller product with the mixture than the mixture itself, to the 1e-9 it stops at.
        const std::int64_t shared = mixing.shared_size();
        double largest = 0;
        for (const auto& g : gradients) largest = std::max(largest, Mixing::product(g, g, shared));
        for (const auto& g : gradients) BOOST_TEST(Mixing::product(g, expected, shared) > Mixing::product(expected, expected, shared) - 1e-9 * largest);
        BOOST_TEST(Mixing::product(expected, expected, shared) < largest);
    }
}

BOOST_AUTO_TEST_CASE(evaluation_and_encoding_see_the_published_weights) {
    Training t;
    const PackedBatch batch = two_lanes()[0];
    const HeadSums sums = t.model.evaluate(tasks::LaneBatch(batch), 0.5), again = t.model.evaluate(tasks::LaneBatch(batch), 0.5);
    BOOST_TEST(sums.count == static_cast<std::int64_t>(batch.targets.size()));
    BOOST_TEST(sums.loss > 0);
    BOOST_TEST(sums.loss == again.loss);  // sums begin at zero every time
    BOOST_TEST(sums.correct == again.correct);
    BOOST_TEST(t.model.encode(tasks::LaneBatch(batch), 0.5).size() == static_cast<std::size_t>(batch.tokens() * 8));
    BOOST_TEST(t.model.logits(tasks::LaneBatch(batch), 0.5).size() == batch.rows.size() * 12);
    t.trainer.update(two_lanes(), 1, 1e-3, 0.5);
    BOOST_TEST(t.model.evaluate(tasks::LaneBatch(batch), 0.5).loss != sums.loss);
}

BOOST_AUTO_TEST_CASE(a_step_may_outgrow_its_memory_before_it_is_captured) {
    const auto self = make_self_communicator();
    ParallelGrid grid(*self, 1);
    PackedBatch batch;
    batch.clear();
    for (int s = 0; s < 16; ++s) {
        Example example;
        for (int t = 0; t < 30; ++t) {
            example.ids.push_back(5 * s + t);
            example.rows.push_back(t);
            example.targets.push_back(3 * s + t);
        }
        batch.append(example, static_cast<std::uint64_t>(s));
    }
    ModelConfig c = tiny_config();
    c.vocab_size = 9000;  // 480 rows of f32 logits: more than one block of an arena, 16 MiB
    std::vector<Device> devices{Device::cpu};
    if constexpr (has_cuda)
        if (cuda::device_count() > 0) devices.push_back(Device::cuda);
    for (const Device device : devices) {
        EncoderModel model(c, grid, {.device = device, .training = true, .max_length = 64, .seed = 3});
        model.initialise();
        const std::int64_t n = model.state().padded_size();
        const Buffer memory(n * 4, device), sums(16, device);
        const Tensor gradient = memory.tensor({n}, Dtype::f32);
        std::vector<float> first;
        for (int round = 0; round < 3; ++round) {  // on a GPU as it is, captured, replayed
            fill_zero(model.stream(), gradient);
            model.forward_backward(tasks::LaneBatch(batch), 1, 0.1, gradient, sums.tensor({2}, Dtype::f64));
            std::vector<float> now(static_cast<std::size_t>(n));
            download(model.stream(), gradient, now.data());
            if (round == 0) first = now;
            BOOST_TEST((now == first));
        }
    }
}

BOOST_AUTO_TEST_CASE(a_fresh_gradient_takes_the_place_of_what_was_there) {
    const auto self = make_self_communicator();
    ParallelGrid grid(*self, 1);
    const PackedBatch batch = packed(packed_batch(12)), nothing = [] {
        PackedBatch empty;
        empty.clear();
        return empty;
    }();
    std::vector<Device> devices{Device::cpu};
    if constexpr (has_cuda)
        if (cuda::device_count() > 0) devices.push_back(Device::cuda);
    for (const char* family : {"roformer_v2", "bert"})  // the second with biases and gains between the matrices
        for (const Device device : devices) {
            ModelConfig c = tiny_config();
            c.family = family;
            if (c.family == "bert") c.hidden_act = "gelu";
            EncoderModel model(c, grid, {.device = device, .training = true, .max_length = 64, .seed = 3});
            model.initialise();
            Stream& stream = model.stream();
            const std::int64_t n = model.state().padded_size();
            const Buffer memory(n * 4, device), sums(16, device);
            const Tensor gradient = memory.tensor({n}, Dtype::f32);
            const auto after = [&](const PackedBatch& work, bool fresh) {
                model.forward_backward(tasks::LaneBatch(work), 1, 0.1, {gradient, fresh}, sums.tensor({2}, Dtype::f64));
                std::vector<float> now(static_cast<std::size_t>(n));
                download(stream, gradient, now.data());
                return now;
            };
            fill_zero(stream, gradient);
            const std::vector<float> once = after(batch, false), twice = after(batch, false);
            for (int round = 0; round < 3; ++round) {  // on a GPU as it is, captured, replayed
                upload(stream, std::vector<float>(static_cast<std::size_t>(n), NAN).data(), gradient);
                BOOST_TEST((after(batch, true) == once), family);
            }
            std::int64_t wrong = 0;
            for (std::size_t i = 0; i < once.size(); ++i) wrong += std::abs(twice[i] - 2 * once[i]) > 1e-6F + 1e-4F * std::abs(once[i]);
            BOOST_TEST(wrong == 0, family);
            BOOST_TEST((after(nothing, true) == std::vector<float>(static_cast<std::size_t>(n))), family);
        }
}
