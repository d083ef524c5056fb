/// Our model and optimizer against plain PyTorch: fixture.h5 is what make_fixture.py computed in f64 for a two-layer model on
/// real token ids, families.h5 the same for one layer of the other families.

#include "io/hdf5.hpp"
#include "kernels/elementwise.hpp"
#include "tests/model/tiny_model.hpp"
#include "train/trainer.hpp"

#include <boost/test/unit_test.hpp>

#include <cstdlib>

using namespace rf;
using namespace rf::test;

namespace {

const Dtype dtypes[] = {Dtype::f64, Dtype::f32};

/// Allowed distance over norm, tensor by tensor. f32: 1e-5 is what the project promises. f64: the same multiple of its unit roundoff,
/// 1e-5 * 2^-29, about 2e-14. An update moves weights by about lr = 1e-3 of their norm, so f64 is what pins LAMB down.
double bound(Dtype dtype) { return dtype == Dtype::f64 ? 1e-5 * 0x1p-29 : 1e-5; }

class Fixture {
public:
    explicit Fixture(const std::string& name = "fixture.h5") : hold_(h5::lock()), file_(h5::open_file(std::string(std::getenv("RF_SOURCE_DIR")) + "/tests/parity/" + name)) {
        config.hidden_size = h5::int_attribute(file_, "hidden_size");
        config.num_attention_heads = h5::int_attribute(file_, "num_attention_heads");
        config.intermediate_size = h5::int_attribute(file_, "intermediate_size");
        config.num_hidden_layers = h5::int_attribute(file_, "num_hidden_layers");
        config.norm_epsilon = h5::double_attribute(file_, "norm_epsilon");
        config.vocab_size = static_cast<std::int64_t>(ids("batch/released_id").size());
        config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0;
        alpha = h5::double_attribute(file_, "alpha");
    }
    std::vector<double> numbers(const std::string& name) const { return h5::read_vector<double>(file_, name); }
    std::vector<std::int32_t> ids(const std::string& name) const { return h5::read_vector<std::int32_t>(file_, name); }
    /// The tensors of a group at their places in a flat buffer of the layout.
    void fill(const std::string& group, const ParamLayout& layout, const Tensor& flat) const {
        for (const ParamEntry& entry : layout.entries()) {
            const std::vector<double> values = numbers(group + "/" + entry.spec.name);
            BOOST_TEST_REQUIRE(static_cast<std::int64_t>(values.size()) == entry.local.count(), "size of " << group << "/" << entry.spec.name);
            for (std::size_t i = 0; i < values.size(); ++i) {
                const std::int64_t at = entry.offset + static_cast<std::int64_t>(i);
                if (flat.dtype == Dtype::f64) flat.as<double>()[at] = values[i];
                else flat.as<float>()[at] = static_cast<float>(values[i]);
            }
        }
    }

    ModelConfig config;
    double alpha = 1;

private:
    std::unique_lock<std::recursive_mutex> hold_;
    h5::File file_;
};

void check_same(const std::vector<double>& ours, const std::vector<double>& theirs, Dtype dtype, const std::string& what) {
    BOOST_TEST_REQUIRE(ours.size() == theirs.size(), what << ": " << ours.size() << " numbers, PyTorch has " << theirs.size());
    double difference = 0, norm = 0;
    for (std::size_t i = 0; i < ours.size(); ++i) {
        difference += (ours[i] - theirs[i]) * (ours[i] - theirs[i]);
        norm += theirs[i] * theirs[i];
    }
    const double relative = std::sqrt(difference / norm);
    BOOST_TEST_MESSAGE(name_of(dtype) << " " << what << ": " << relative);
    BOOST_TEST(relative <= bound(dtype), what << " in " << name_of(dtype) << ": relative difference " << relative << ", allowed " << bound(dtype));
}

/// Each tensor of a flat buffer; query, key and value, which differ much in size, each for itself. `undetermined`: a tensor whose gradient is 0
/// but for rounding, so that neither it nor what LAMB makes of it can be compared.
void check_tensors(const Fixture& fixture, const std::string& group, const ParamLayout& layout, const Tensor& flat, const std::string& undetermined = {}) {
    for (const ParamEntry& entry : layout.entries()) {
        const std::vector<double> theirs = fixture.numbers(group + "/" + entry.spec.name);
        const std::int64_t n = entry.local.count() / entry.spec.tensors;
        for (std::int64_t part = 0; part < entry.spec.tensors; ++part) {
            if (layout.group_name(entry.first_group + static_cast<std::int32_t>(part)) == undetermined) continue;
            std::vector<double> ours;
            for (std::int64_t i = entry.offset + part * n; i < entry.offset + (part + 1) * n; ++i)
                ours.push_back(flat.dtype == Dtype::f64 ? flat.as<double>()[i] : flat.as<float>()[i]);
            check_same(ours, {theirs.begin() + part * n, theirs.begin() + (part + 1) * n}, flat.dtype,
                       message(group, "/", entry.spec.name, entry.spec.tensors > 1 ? message("[", part, "]") : ""));
        }
    }
}

/// What both ways to hold a batch have in common, from the fixture.
template <class B>
B batch_of(const Fixture& fixture) {
    B batch;
    batch.ids = fixture.ids("batch/tokens");
    batch.cu_seqlens = fixture.ids("batch/cu_seqlens");
    batch.rows = fixture.ids("batch/rows");
    batch.targets = fixture.ids("batch/targets");
    for (std::size_t s = 0; s + 1 < batch.cu_seqlens.size(); ++s) {
        batch.sample.push_back(static_cast<std::int32_t>(s));
        for (std::int32_t t = batch.cu_seqlens[s]; t < batch.cu_seqlens[s + 1]; ++t) {
            batch.position.push_back(t - batch.cu_seqlens[s]);
            batch.token_sample.push_back(static_cast<std::int32_t>(s));
        }
    }
    return batch;
}

}  // namespace

BOOST_AUTO_TEST_CASE(activations_and_loss_equal_pytorch) {
    const Fixture fixture;
    for (const Dtype dtype : dtypes) {
        TinyModel model(fixture.config, dtype);
        fixture.fill("weights", model.layout, model.weights());
        const double loss = model.loss(batch_of<Batch>(fixture), fixture.alpha);
        const std::vector<double> states = fixture.numbers("states");
        const std::size_t each = states.size() / model.outputs.size();
        for (std::size_t i = 0; i < model.outputs.size(); ++i)
            check_same(model.outputs[i], {states.begin() + static_cast<std::ptrdiff_t>(i * each), states.begin() + static_cast<std::ptrdiff_t>((i + 1) * each)},
                       dtype, message("states[", i, "]"));
        check_same(model.logits, fixture.numbers("logits"), dtype, "logits");
        check_same({loss}, fixture.numbers("loss"), dtype, "loss");
    }
}

BOOST_AUTO_TEST_CASE(gradients_of_all_tensors_equal_pytorch) {
    const Fixture fixture;
    for (const Dtype dtype : dtypes) {
        TinyModel model(fixture.config, dtype);
        fixture.fill("weights", model.layout, model.weights());
        model.gradient(batch_of<Batch>(fixture), fixture.alpha);
        // Row 1 of the segment table is never used: its gradient is zero on both sides, row 0 carries the tensor's norm.
        check_tensors(fixture, "gradients", model.layout, model.grads());
    }
}

BOOST_AUTO_TEST_CASE(other_families_equal_pytorch) {
    Fixture fixture("families.h5");
    fixture.config.max_position_embeddings = 30;
    for (const std::string family : {"bert", "roberta", "roformer"})
        for (const Dtype dtype : dtypes) {
            fixture.config.family = family;
            TinyModel model(fixture.config, dtype);
            fixture.fill(family + "/weights", model.layout, model.weights());
            Batch batch = batch_of<Batch>(fixture);
            batch.segments = fixture.ids("batch/segments");
            const double loss = model.loss(batch, fixture.alpha);
            const std::vector<double> states = fixture.numbers(family + "/states");
            const std::size_t each = states.size() / model.outputs.size();
            for (std::size_t i = 0; i < model.outputs.size(); ++i)
                check_same(model.outputs[i], {states.begin() + static_cast<std::ptrdiff_t>(i * each), states.begin() + static_cast<std::ptrdiff_t>((i + 1) * each)}, dtype,
                           message(family, "/states[", i, "]"));
            check_same(model.logits, fixture.numbers(family + "/logits"), dtype, family + "/logits");
            check_same({loss}, fixture.numbers(family + "/loss"), dtype, family + "/loss");
            model.gradient(batch, fixture.alpha);
            // Without rotation a bias of all keys changes no softmax.
            const std::string keys = family == "roformer" ? "" : "layer_0/attention/qkv_bias[1]";
            check_tensors(fixture, family + "/gradients", model.layout, model.grads(), keys);

            const auto self = make_self_communicator();
            ParallelGrid grid(*self, 1);
            const Dtype wide = accumulator_of(dtype);
            const ParamState state(model.layout, grid, Device::cpu, wide, true);
            fixture.fill(family + "/weights", model.layout, state.master());
            const Buffer memory(state.shard_size() * size_of(wide));
            const Tensor gradient = memory.tensor({state.shard_size()}, wide);
            copy(model.stream, model.grads(), gradient.part(0, {model.layout.size()}));
            Optimizer optimizer(OptimizerConfig{}, state, grid, model.stream);
            const Optimizer::Numbers numbers = optimizer.numbers(1, 0.5e-3);  // the first rate of make_fixture.py
            double* control = optimizer.control().as<double>();
            control[control_lr] = numbers.lr, control[control_correction1] = numbers.correction1, control[control_correction2] = numbers.correction2;
            optimizer.step(model.stream, gradient);
            check_tensors(fixture, family + "/weights_after_1", model.layout, state.master(), keys);
        }
}

BOOST_AUTO_TEST_CASE(three_lamb_updates_equal_pytorch) {
    const Fixture fixture;
    const std::vector<double> lr = fixture.numbers("lr"), alpha = fixture.numbers("alpha"), losses = fixture.numbers("losses");
    BOOST_TEST_REQUIRE(losses.size() == 3);
    for (const Dtype dtype : dtypes) {
        const auto self = make_self_communicator();
        ParallelGrid grid(*self, 1);
        EncoderModel model(fixture.config, grid, {.dtype = dtype, .training = true, .max_length = 64});
        fixture.fill("weights", model.layout(), model.state().master());
        model.state().publish_weights(model.stream(), *grid.data);
        Trainer trainer(model, grid, OptimizerConfig{}, {.lanes = 1});
        for (std::size_t i = 0; i < losses.size(); ++i) {
            const auto step = static_cast<std::int64_t>(i + 1);
            const UpdateStats stats = trainer.update({batch_of<PackedBatch>(fixture)}, step, lr[i], alpha[i]);
            check_same({stats.loss}, {losses[i]}, dtype, message("loss of update ", step));
            check_tensors(fixture, message("weights_after_", step), model.layout(), model.state().master());
        }
    }
}
