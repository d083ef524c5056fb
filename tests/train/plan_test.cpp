/// A plan against what a run of the same shape really takes, for every split of the ranks at hand; what a plan must not depend on, and
/// machines that are none.

#include "train/plan.hpp"

#include "core/cpu.hpp"
#include "model/footprint.hpp"
#include "optim/lane_tree.hpp"
#include "tests/scratch.hpp"
#include "train/trainer.hpp"

#include <boost/test/unit_test.hpp>

#include <optional>

using namespace rf;
using namespace rf::test;

namespace {

std::optional<World> the_world;

struct WithWorld {
    WithWorld() {
        int argc = 0;
        char** argv = nullptr;
        the_world.emplace(argc, argv);
        set_thread_count(1);  // the ranks may share two cores
    }
    ~WithWorld() { the_world.reset(); }
};
BOOST_TEST_GLOBAL_FIXTURE(WithWorld);

constexpr std::int64_t length = 34, predicted = 8;  // of the 32 tokens between [CLS] and [SEP] a quarter

ModelConfig config(const std::string& residual, std::int64_t layers = 2) {
    ModelConfig c;
    c.vocab_size = 403;  // parts of 4 tensor ranks differ
    c.hidden_size = 64;
    c.num_attention_heads = 4;
    c.intermediate_size = 130;
    c.num_hidden_layers = layers;
    c.residual_mode = residual;
    return c;
}

PackedBatch lane_batch(std::int64_t sequences) {
    PackedBatch batch;
    batch.clear();
    for (std::int64_t s = 0; s < sequences; ++s) {
        Example example;
        for (std::int64_t t = 0; t < length; ++t) {
            example.ids.push_back(static_cast<std::int32_t>((7 * t + 3 * s) % 403));
            if (t == 0 || t > predicted) continue;
            example.rows.push_back(static_cast<std::int32_t>(t));
            example.targets.push_back(static_cast<std::int32_t>((5 * t + s) % 403));
        }
        batch.append(example, static_cast<std::uint64_t>(s));
    }
    return batch;
}

Job job_of(const ModelConfig& model, Dtype dtype, std::int64_t sequences, std::int64_t lanes, std::int64_t evaluated) {
    return {.model = model, .dtype = dtype, .sequences = sequences, .lanes = lanes, .max_length = length, .length = length, .predicted = 0.25,
            .evaluated = evaluated, .checkpoints = false};
}

Machine machine() {
    return {.about = "made up", .device = "cpu", .ranks_per_node = 4, .cores_per_node = 4, .memory_gib = 1, .program_mib = 10, .product_gflops = {100, 0},
            .attention_gflops = {20, 0}, .row_gb_per_s = 4, .memory_gb_per_s = 20, .launch_us = 1, .inside = {2, 10}, .between = {1, 30}, .storage_gb_per_s = 0.5, .node_mtbf_hours = 100};
}

/// The largest of all ranks' numbers is the plan's.
void check_need(const Job& job, std::int64_t tensor) {
    ParallelGrid grid(the_world->communicator(), tensor);
    const auto largest = [&](std::int64_t bytes) { return static_cast<std::int64_t>(grid.world.max(static_cast<double>(bytes))); };
    EncoderModel model(job.model, grid, {.dtype = job.dtype, .training = true, .max_length = job.max_length});
    model.initialise();
    Trainer trainer(model, grid, OptimizerConfig{}, {.lanes = static_cast<int>(job.lanes)});
    if (job.evaluated > 0)
        for (int i = 0; i < 2; ++i) model.evaluate(tasks::LaneBatch(lane_batch(job.evaluated)), 1);
    for (int update = 1; update <= 2; ++update)
        trainer.update(std::vector<PackedBatch>(static_cast<std::size_t>(trainer.lane_count()), lane_batch(job.sequences / job.lanes)), update, 1e-3, 1);

    const RankSplit split{tensor, grid.data->size()};
    const Plan plan = make_plan(job, split, machine());
    BOOST_TEST_CONTEXT(tensor << " x " << split.data << " ranks, " << job.model.residual_mode << ", " << name_of(job.dtype) << ", " << job.lanes << " lanes") {
        BOOST_TEST(plan.memory.weights + plan.memory.optimizer == largest(model.state().bytes()));
        const std::int64_t sums = tensor > 1 && job.dtype == Dtype::bf16 ? job.sequences / job.lanes * length * job.model.hidden_size * 4 : 0;
        BOOST_TEST(plan.memory.gradients + plan.memory.communication - sums == largest(trainer.gradient_bytes()));
        ArenaCount arena;
        const auto pass = [&](std::int64_t sequences) {
            return Pass{.model = job.model, .tensor_rank = static_cast<int>(tensor) - 1, .tensor_size = static_cast<int>(tensor), .dtype = job.dtype,
                        .tokens = sequences * length, .targets = sequences * predicted};
        };
        if (job.evaluated > 0)
            for (int i = 0; i < 2; ++i) count_evaluation(arena, pass(job.evaluated));
        for (std::int64_t i = 0; i < 2 * trainer.lane_count(); ++i) count_training(arena, pass(job.sequences / job.lanes));
        BOOST_TEST(arena.peak_bytes() == largest(model.arena().peak_bytes()));
        BOOST_TEST(plan.memory.activations >= arena.peak_bytes());
        BOOST_TEST(plan.memory.activations == arena.held_bytes());
        BOOST_TEST(plan.parameters == model.layout().parameter_count());
    }
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_plan_needs_what_a_run_takes) {
    const std::int64_t ranks = the_world->communicator().size();
    for (const RankSplit& split : splits_of(ranks))
        for (const std::string residual : {"alpha", "rezero"})
            for (const Dtype dtype : {Dtype::f32, Dtype::bf16}) {
                check_need(job_of(config(residual), dtype, 24, 12, 0), split.tensor);
                check_need(job_of(config(residual), dtype, 24, 4, 9), split.tensor);
            }
}

BOOST_AUTO_TEST_CASE(plans_of_other_families_need_what_their_runs_take) {
    const std::int64_t ranks = the_world->communicator().size();
    for (const char* family : {"roformer", "bert"})
        for (const Dtype dtype : {Dtype::f32, Dtype::bf16}) {
            ModelConfig model = config("alpha");
            model.family = family;
            check_need(job_of(model, dtype, 24, 4, 9), ranks == 4 ? 2 : ranks);
        }
}

BOOST_AUTO_TEST_CASE(an_arena_of_several_blocks_is_counted_block_by_block) {
    const std::int64_t ranks = the_world->communicator().size();
    check_need(job_of(config("alpha", 6), Dtype::f32, ranks * 90, ranks, 0), 1);
    check_need(job_of(config("alpha", 6), Dtype::f32, ranks * 30, ranks, 110), 1);
}

BOOST_AUTO_TEST_CASE(gradients_travel_as_the_lane_tree_says) {
    const Job job = job_of(config("alpha"), Dtype::f32, 24, 12, 0);
    ParamLayout layout;
    const Encoder encoder(job.model, layout);
    const double two = static_cast<double>(Shards(layout.size(), 2).padded_size()), four = static_cast<double>(Shards(layout.size(), 4).padded_size());
    // Half of its lanes' sum to the other rank. Of 12 lanes rank 1 of 2 holds [6, 8) and [8, 12).
    BOOST_TEST(make_plan(job, {1, 2}, machine()).sent.gradients == 2 * two * 4 / 2);
    BOOST_TEST(make_plan(job, {1, 2}, machine()).sent.weights == two * 4 / 2);
    BOOST_TEST(make_plan(job, {1, 1}, machine()).sent.total() == 0);
    // Of 8 lanes every one of 4 ranks holds one subtree.
    Job even = job;
    even.lanes = 8;
    BOOST_TEST(make_plan(even, {1, 4}, machine()).sent.gradients == four * 4 * 3 / 4);
    BOOST_TEST(LaneShare(12, 2, 1).own().size() == 2U);
    // Two tensor ranks: embedding, four sums a layer, the head's. Of the second and last layer those behind attention are of the predicted rows alone.
    const double tokens = 24 * length, targets = 24 * predicted;
    BOOST_TEST(make_plan(job, {2, 1}, machine()).sent.tensor_all_reduce == (6 * tokens + 4 * targets) * 64 * 4);
}

BOOST_AUTO_TEST_CASE(more_of_anything_is_never_worse_where_it_helps) {
    Job job = job_of(config("alpha"), Dtype::f32, 64, 4, 0);
    job.length = job.max_length = 128;
    const Plan base = make_plan(job, {1, 4}, machine());
    Job finer = job;
    finer.lanes = 16;
    BOOST_TEST(make_plan(finer, {1, 4}, machine()).memory.activations <= base.memory.activations);
    BOOST_TEST(make_plan(job, {2, 4}, machine()).memory.weights < base.memory.weights);
    BOOST_TEST(make_plan(job, {1, 2}, machine()).memory.optimizer > base.memory.optimizer);
    Job longer = job;
    longer.length = longer.max_length = 256;
    const Plan more = make_plan(longer, {1, 4}, machine());
    BOOST_TEST(more.memory.activations > base.memory.activations);
    BOOST_TEST(more.seconds.compute > 2 * base.seconds.compute);
    BOOST_TEST(more.flops > 2 * base.flops);
    for (const auto change : {+[](Machine& m) { m.product_gflops.f32 *= 2; }, +[](Machine& m) { m.memory_gb_per_s *= 2; }, +[](Machine& m) { m.inside.gb_per_s *= 2; },
                              +[](Machine& m) { m.launch_us /= 2; }, +[](Machine& m) { m.row_gb_per_s *= 2; }, +[](Machine& m) { m.cores_per_node *= 2; }}) {
        Machine faster = machine();
        change(faster);
        BOOST_TEST(make_plan(job, {1, 4}, faster).seconds.total() <= base.seconds.total());
    }
    // Ranks beyond the cores share them.
    Machine narrow = machine();
    narrow.cores_per_node = 2;
    BOOST_TEST(make_plan(job, {1, 4}, narrow).seconds.compute >= make_plan(job, {1, 2}, narrow).seconds.compute * 0.999);
    BOOST_TEST(make_plan(job, {1, 2}, narrow).seconds.compute < 2.1 * base.seconds.compute);  // twice the lanes a rank, on as many cores
}

BOOST_AUTO_TEST_CASE(what_bounds_an_update_is_its_largest_part) {
    BOOST_TEST((StepTime{.compute = 2, .memory = 1}).bound() == "compute");
    BOOST_TEST((StepTime{.compute = 2, .memory = 3, .hidden = 9}).bound() == "memory");
    BOOST_TEST((StepTime{.network = 3, .latency = 4}).bound() == "latency");
    Machine slow = machine();
    slow.inside.gb_per_s = 1e-3;
    BOOST_TEST(make_plan(job_of(config("alpha"), Dtype::f32, 8, 4, 0), {1, 4}, slow).seconds.bound() == "network");
}

BOOST_AUTO_TEST_CASE(checkpoints_are_written_as_often_as_young_says) {
    // δ = 18 s, M = 10000 s: 600 s between two; 3 % of the time writing, 3 % doing again.
    const CheckpointRhythm rhythm = checkpoint_rhythm(9e9, 18, 10000, 2.5);
    BOOST_TEST(rhythm.interval == 600);
    BOOST_TEST(rhythm.updates == 240);
    BOOST_TEST(std::abs(rhythm.lost - 0.06) < 1e-15);
    // The least of the cost that the formula is made from.
    const auto cost = [](double interval) { return 18 / interval + interval / (2 * 10000); };
    BOOST_TEST(cost(600) < cost(590));
    BOOST_TEST(cost(600) < cost(610));
    // Never a second one before the first is durable, never less than an update.
    BOOST_TEST(checkpoint_rhythm(9e9, 300, 100, 2.5).interval == 300);
    BOOST_TEST(checkpoint_rhythm(9e9, 18, 10000, 1e6).updates == 1);

    Job job = job_of(config("alpha"), Dtype::f32, 64, 4, 0);
    const CheckpointRhythm one = make_plan(job, {1, 4}, machine()).checkpoints, two = make_plan(job, {2, 4}, machine()).checkpoints;
    BOOST_TEST(one.bytes == 12.0 * static_cast<double>(job.model.parameter_count()));
    BOOST_TEST(one.write_seconds == one.bytes * 1e-9 / 0.5);
    BOOST_TEST(one.mtbf_seconds == 360000);
    BOOST_TEST(two.mtbf_seconds == 180000);  // two nodes
    job.checkpoint_seconds = 7;
    BOOST_TEST(make_plan(job, {1, 4}, machine()).checkpoints.write_seconds == 7);
}

BOOST_AUTO_TEST_CASE(remedies_fit_and_change_as_little_as_they_can) {
    Job job = job_of(config("alpha"), Dtype::f32, 4096, 1, 0);
    Machine small = machine();
    const Plan whole = make_plan(job, {1, 1}, small);
    small.memory_gib = static_cast<double>(whole.memory.total()) * 0.6 / (1 << 30);
    BOOST_TEST(!make_plan(job, {1, 1}, small).fits());
    const std::vector<Remedy> found = find_remedies(job, {1, 1}, small);
    BOOST_REQUIRE(!found.empty());
    bool lanes = false;
    for (const Remedy& remedy : found) {
        BOOST_TEST(remedy.plan.fits());
        BOOST_TEST(remedy.settings.find(' ') == std::string::npos);
        lanes = lanes || remedy.settings == "batch.lanes=2";
    }
    BOOST_TEST(lanes);
    small.memory_gib = 1e-4;
    BOOST_TEST(find_remedies(job, {1, 1}, small).empty());
}

BOOST_AUTO_TEST_CASE(splits_that_cannot_be_say_why) {
    const Job job = job_of(config("alpha"), Dtype::f32, 24, 12, 0);
    BOOST_TEST(obstacle(job, {2, 6}) == "");
    RF_TEST_HOLDS(obstacle(job, {8, 1}), "4 heads do not divide");
    RF_TEST_HOLDS(obstacle(job, {1, 8}), "batch.lanes = 12 does not divide over 8");
    BOOST_TEST(splits_of(6).size() == 4U);
}

BOOST_AUTO_TEST_CASE(a_machine_needs_every_key_and_possible_values) {
    const Scratch scratch;
    const json::value good = json::write(machine());
    const json::Place place{"input.json", "plan.machine"};
    const auto said = [&](const std::string& key, const json::value& value) {
        json::value changed = good;
        if (value.is_null()) changed.as_object().erase(key);
        else json::set(changed, key + "=" + boost::json::serialize(value));
        write(scratch / "machine.json", json::pretty(changed));
        return refusal([&] { read_machine(boost::json::string(scratch("machine.json")), place); });
    };
    BOOST_TEST(said("about", "another") == "no error");
    for (const char* key : {"memory_gb_per_s", "memory_gib", "inside.gb_per_s", "row_gb_per_s", "storage_gb_per_s", "node_mtbf_hours"}) RF_TEST_HOLDS(said(key, -1), "machine.json: " + std::string(key));
    RF_TEST_HOLDS(said("product_gflops.f32", -3), "machine.json: product_gflops.f32: expected 0 or more, found -3");
    RF_TEST_HOLDS(said("product_gflops.f32", 0), "product_gflops: expected the rate of one dtype");
    RF_TEST_HOLDS(said("device", "tpu"), "machine.json: device");
    RF_TEST_HOLDS(said("memory_gb_per_sec", 3), "unknown key \"memory_gb_per_sec\"");
    RF_TEST_HOLDS(said("launch_us", nullptr), "machine.json: launch_us: missing");
    RF_TEST_HOLDS(said("inside", boost::json::object{{"gb_per_s", 3}}), "machine.json: inside.latency_us: missing");
    RF_TEST_HOLDS(said("cores_per_node", 1.5), "an integer");
    // A file with one key changed, as --set leaves it.
    write(scratch / "machine.json", json::pretty(good));
    const json::value changed = boost::json::object{{"file", scratch("machine.json")}, {"cores_per_node", 9}};
    BOOST_TEST(read_machine(changed, place).cores_per_node == 9);
    BOOST_TEST(read_machine(changed, place).memory_gib == 1);
    RF_TEST_HOLDS(refusal([&] { read_machine(boost::json::object{{"cores_per_node", 9}}, place); }), "input.json: plan.machine.about: missing");
}
