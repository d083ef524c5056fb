/// A model split over a tensor group against the same model whole, in f64: equal to rounding.

#include "model/encoder.hpp"

#include "core/cpu.hpp"
#include "tests/model/tiny_model.hpp"

#include <boost/test/unit_test.hpp>

using namespace rf;
using namespace rf::test;

namespace {

Communicator& world() {
    static int argc = 0;
    static char** argv = nullptr;
    static World all = [] {
        set_thread_count(1);  // the ranks may share two cores
        return World(argc, argv);
    }();
    return all.communicator();
}

/// Four heads; vocabulary and inner units that do not divide evenly.
ModelConfig uneven_config() {
    ModelConfig config = tiny_config();
    config.vocab_size = 13;
    config.num_attention_heads = 4;
    config.intermediate_size = 18;
    return config;
}

/// Calls body(local flat index, index in the whole model's flat buffers) for every element of a split layout.
template <class Body>
void for_elements(const ParamLayout& part, const ParamLayout& whole, const Body& body) {
    for (std::size_t e = 0; e < part.entries().size(); ++e) {
        const ParamEntry &entry = part.entries()[e], &all = whole.entries()[e];
        const int axis = std::max(entry.spec.split_axis, 0);
        std::int64_t inner = 1;
        for (int a = axis + 1; a < entry.local.rank; ++a) inner *= entry.local[a];
        const std::int64_t row = entry.local[axis] * inner;
        for (std::int64_t i = 0; i < entry.local.count(); ++i)
            body(entry.offset + i, all.offset + i / row * entry.spec.shape[axis] * inner + entry.split_begin * inner + i % row);
    }
}

// Sums over up to 74 tokens and 18 units through two layers and back, in another order: some thousand units of f64's roundoff.
constexpr double bound = 1e-12;

}  // namespace

BOOST_AUTO_TEST_CASE(a_split_model_gives_the_whole_ones_loss_and_gradients) {
    std::vector<ModelConfig> configs = other_styles(uneven_config());
    configs.push_back(uneven_config());
    configs.emplace_back(uneven_config()).residual_mode = "rezero";
    for (const ModelConfig& config : configs)
        for (const bool training : {false, true}) {
            TinyModel whole(config), part(config, Dtype::f64, world().split(0));
            randomise(whole);
            for_elements(part.layout, whole.layout, [&](std::int64_t local, std::int64_t global) {
                part.weights().as<double>()[local] = whole.weights().as<double>()[global];
            });
            const Batch batch = packed_batch(13);
            const double loss = whole.gradient(batch, 0.5, training);
            BOOST_TEST(std::abs(part.gradient(batch, 0.5, training) - loss) < bound * loss);
            double largest = 0, worst = 0;
            for (const double g : whole.copy(whole.grads())) largest = std::max(largest, std::abs(g));
            BOOST_TEST(largest > 0);
            for_elements(part.layout, whole.layout, [&](std::int64_t local, std::int64_t global) {
                worst = std::max(worst, std::abs(part.grads().as<double>()[local] - whole.grads().as<double>()[global]));
            });
            BOOST_TEST(worst < bound * largest, style_name(config) << ", training " << training << ": " << worst << " of " << largest);
        }
}

BOOST_AUTO_TEST_CASE(hidden_states_are_whole_and_logits_a_share_on_every_rank) {
    const ModelConfig config = uneven_config();
    TinyModel whole(config), part(config, Dtype::f64, world().split(0));
    randomise(whole);
    for_elements(part.layout, whole.layout,
                 [&](std::int64_t local, std::int64_t global) { part.weights().as<double>()[local] = whole.weights().as<double>()[global]; });
    const Batch batch = packed_batch(13);
    whole.loss(batch, 1);
    part.loss(batch, 1);
    for (std::size_t layer = 0; layer < whole.outputs.size(); ++layer)
        for (std::size_t i = 0; i < whole.outputs[layer].size(); ++i) BOOST_TEST(std::abs(part.outputs[layer][i] - whole.outputs[layer][i]) < bound);
    const std::int64_t first = part.encoder.first_id(), v = part_begin(13, world().rank() + 1, world().size()) - first;
    BOOST_TEST(static_cast<std::int64_t>(part.logits.size()) == v * static_cast<std::int64_t>(batch.rows.size()));
    for (std::size_t i = 0; i < part.logits.size(); ++i) {
        const auto row = static_cast<std::int64_t>(i) / v, column = first + static_cast<std::int64_t>(i) % v;
        BOOST_TEST(std::abs(part.logits[i] - whole.logits[static_cast<std::size_t>(row * 13 + column)]) < bound * 10);  // logits reach 10
    }
}

BOOST_AUTO_TEST_CASE(tensors_held_whole_have_one_gradient_on_all_ranks) {
    std::vector<ModelConfig> configs = other_styles(uneven_config());
    configs.emplace_back(uneven_config()).residual_mode = "rezero";
    for (const ModelConfig& config : configs) {
        TinyModel whole(config), part(config, Dtype::f64, world().split(0));
        randomise(whole);
        for_elements(part.layout, whole.layout,
                     [&](std::int64_t local, std::int64_t global) { part.weights().as<double>()[local] = whole.weights().as<double>()[global]; });
        part.gradient(packed_batch(13), 1, true);
        // Bit for bit: each rank updates its own copy, and copies must never drift apart.
        for (const ParamEntry& entry : part.layout.entries()) {
            if (entry.spec.split_axis >= 0) continue;
            const double* own = part.grads().as<double>() + entry.offset;
            std::vector<double> largest(own, own + entry.local.count()), least = largest;
            Stream host;
            world().all_reduce(host, view(largest.data(), {entry.local.count()}), ReduceOp::max);
            world().all_reduce(host, view(least.data(), {entry.local.count()}), ReduceOp::min);
            BOOST_TEST((largest == least), style_name(config) << ": " << entry.spec.name);
        }
    }
}
