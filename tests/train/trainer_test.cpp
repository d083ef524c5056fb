#include "train/trainer.hpp"

#include "core/build.hpp"
#include "core/device_memory.hpp"
#include "kernels/elementwise.hpp"
#include "tests/model/tiny_model.hpp"

#include <boost/test/unit_test.hpp>

#include <limits>

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
    Trainer trainer{model, grid, OptimizerConfig{}, {.lanes = 2}};
    Training() { model.initialise(); }
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
        BOOST_TEST(what.find("embedding/word") != std::string::npos, what);
    }
    spoilt = kept;  // of f64 there is one copy of weights and masters
    BOOST_TEST(t.masters() == weights);
    BOOST_TEST(Training::numbers(t.model.state().m()) == m);
    BOOST_TEST(Training::numbers(t.model.state().v()) == v);
    BOOST_TEST(t.trainer.in_flight() == 0);
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
