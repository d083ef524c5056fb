/// Updates whose lanes are spread over data ranks, in buckets so short that a tiny model has several of them: on the CPU, and on
/// GPUs (or the emulator, in its random order of streams) where every rank has one.

#include "comm/device_choice.hpp"
#include "core/build.hpp"
#include "core/cpu.hpp"
#include "core/device_memory.hpp"
#include "kernels/elementwise.hpp"
#include "tests/model/tiny_model.hpp"
#include "train/trainer.hpp"

#include <boost/test/unit_test.hpp>

#include <limits>
#include <optional>
#include <utility>

using namespace rf;
using namespace rf::test;

namespace {

std::optional<World> the_world;
Communicator& ranks() { return the_world->communicator(); }
std::vector<Device> devices{Device::cpu};

/// The world of all tests; it ends before MPI does.
struct WithWorld {
    WithWorld() {
        int argc = 0;
        char** argv = nullptr;
        the_world.emplace(argc, argv);
        set_thread_count(1);  // the ranks may share two cores
        if constexpr (has_cuda)
            if (cuda::device_count() >= the_world->local_size()) devices.push_back(choose_device(*the_world, "cuda"));
    }
    ~WithWorld() { the_world.reset(); }
};
BOOST_TEST_GLOBAL_FIXTURE(WithWorld);

ModelConfig config() {
    ModelConfig c = tiny_config();
    c.vocab_size = 60;
    c.hidden_size = 32;
    c.num_attention_heads = 2;
    c.intermediate_size = 64;
    c.num_hidden_layers = 3;  // 8192 elements each
    c.hidden_dropout_prob = c.attention_probs_dropout_prob = 0.1;
    return c;
}

/// Lane `lane` of every update: lengths of its own.
PackedBatch lane_batch(int lane) {
    PackedBatch batch;
    batch.clear();
    for (int s = 0; s <= lane % 3; ++s) {
        Example example;
        for (int t = 0; t < 3 + 3 * s + lane; ++t) {
            example.ids.push_back((7 * t + 11 * lane + s) % 60);
            if (t % 3 != 1) continue;
            example.rows.push_back(t);
            example.targets.push_back((5 * t + lane) % 60);
        }
        batch.append(example, static_cast<std::uint64_t>(3 * lane + s));
    }
    return batch;
}

constexpr int lane_total = 4, empty_lane = 1;  // the last one of a rank, where there are two ranks or four

std::vector<PackedBatch> lanes_from(int first, int count) {
    std::vector<PackedBatch> lanes;
    for (int lane = first; lane < first + count; ++lane) {
        lanes.push_back(lane_batch(lane));
        if (lane == empty_lane) lanes.back().clear();
    }
    return lanes;
}

std::vector<float> numbers(const Stream& stream, const Tensor& t) {
    std::vector<float> host(static_cast<std::size_t>(t.count()));
    download(stream, t, host.data());
    return host;
}

/// What a few updates make of the weights and of this rank's shard of the moments. Of each size the first is put on the stream as it
/// is, the second captured, and the third only replayed.
struct Trained {
    Shards shards;
    std::vector<float> weights, m, v;
};
Trained train(Communicator& all, Device device, bool graphs, std::int64_t bucket) {
    ParallelGrid grid(all, 1);
    EncoderModel model(config(), grid, {.device = device, .training = true, .graphs = graphs, .bucket = bucket, .max_length = 64, .seed = 3});
    Trainer trainer(model, grid, OptimizerConfig{}, {.lanes = lane_total});
    model.initialise();
    for (int update = 1; update <= 3; ++update) trainer.update(lanes_from(trainer.first_lane(), trainer.lane_count()), update, 1e-2, 0.2 * update);
    const ParamState& state = model.state();
    return {state.shards(), numbers(model.stream(), state.weights().flat()), numbers(model.stream(), state.m()), numbers(model.stream(), state.v())};
}

/// Elements in which ranks together differ from one alone.
std::int64_t differences(const Trained& one, const Trained& all) {
    std::int64_t wrong = 0;
    for (int b = 0; b < all.shards.buckets(); ++b) {
        const Range piece = all.shards.piece(b, ranks().rank());
        for (std::int64_t i = piece.begin; i < piece.end; ++i) {
            if (i >= one.shards.padded_size()) continue;
            const auto flat = static_cast<std::size_t>(i), own = static_cast<std::size_t>(all.shards.in_shard(b).begin + i - piece.begin);
            wrong += one.m[flat] != all.m[own] || one.v[flat] != all.v[own];
        }
    }
    for (std::size_t i = 0; i < std::min(one.weights.size(), all.weights.size()); ++i) wrong += one.weights[i] != all.weights[i];
    return wrong;
}

}  // namespace

BOOST_AUTO_TEST_CASE(data_ranks_give_the_bits_of_one) {
    const auto self = make_self_communicator();
    for (const Device device : devices) {
        const Trained one = train(*self, device, false, 0);
        for (const bool graphs : {true, false}) {
            if (device == Device::cpu && graphs) continue;
            for (const std::int64_t bucket : {1, 0}) {
                const Trained all = train(ranks(), device, graphs, bucket);
                const char* where = device == Device::cpu ? "CPU" : graphs ? "GPU, captured" : "GPU";
                BOOST_TEST(differences(one, all) == 0, where << ", buckets of " << bucket);
                if (bucket == 1) BOOST_TEST(all.shards.buckets() > 1);
            }
        }
    }
}

namespace {

/// Changes one weight in the memory of the last rank while it lives.
class SpoiltWeight {
public:
    SpoiltWeight(EncoderModel& model, float value) : stream_(model.stream()), place_(model.state().weights().flat().part(0, {1})) {
        if (ranks().rank() != ranks().size() - 1) return;
        download(stream_, place_, &kept_);
        put(value);
        spoilt_ = true;
    }
    ~SpoiltWeight() {
        if (spoilt_) put(kept_);
    }

private:
    void put(float value) { upload(stream_, &value, place_); }
    Stream& stream_;
    Tensor place_;
    float kept_ = 0;
    bool spoilt_ = false;
};

}  // namespace

BOOST_AUTO_TEST_CASE(an_update_that_is_not_finite_on_one_rank_is_left_out_on_all) {
    for (const Device device : devices) {
        const auto masters = [&](bool with_spoilt) {
            ParallelGrid grid(ranks(), 1);
            EncoderModel model(config(), grid, {.device = device, .training = true, .bucket = 1, .max_length = 64, .seed = 3});
            Trainer trainer(model, grid, OptimizerConfig{}, {.lanes = lane_total, .skips_allowed = 2});
            model.initialise();
            const auto work = [&] { return lanes_from(trainer.first_lane(), trainer.lane_count()); };
            BOOST_TEST(trainer.update(work(), 1, 1e-2, 0.2).not_finite == "");
            for (int round = 0; with_spoilt && round < 2; ++round) {
                const SpoiltWeight spoilt(model, std::numeric_limits<float>::quiet_NaN());
                const UpdateStats stats = trainer.update(work(), 2 + round, 1e-2, 0.2);
                BOOST_TEST(stats.not_finite.find("gradient of") != std::string::npos, stats.not_finite);
            }
            BOOST_TEST(trainer.update(work(), 4, 1e-2, 0.2).not_finite == "");
            return numbers(model.stream(), model.state().weights().flat());
        };
        BOOST_TEST((masters(true) == masters(false)), (device == Device::cpu ? "CPU" : "GPU"));
    }
}

BOOST_AUTO_TEST_CASE(a_rank_with_other_weights_is_found) {
    if (ranks().size() == 1) return;
    for (const Device device : devices) {
        ParallelGrid grid(ranks(), 1);
        EncoderModel model(config(), grid, {.device = device, .training = true, .bucket = 1, .max_length = 64, .seed = 3});
        Trainer trainer(model, grid, OptimizerConfig{}, {.lanes = lane_total});
        model.initialise();
        const tasks::LaneBatch lane(lane_batch(2));
        BOOST_TEST(trainer.find_faults(lane, 0.5) == "");
        std::string found;
        {
            const SpoiltWeight spoilt(model, 0.25F);
            found = trainer.find_faults(lane, 0.5);
        }
        // Of two nobody can say which is wrong; of four the one that stands alone is.
        const bool named = ranks().size() == 2 || ranks().rank() == ranks().size() - 1;
        BOOST_TEST((found.find("other weights") != std::string::npos) == named, found);
        BOOST_TEST(trainer.find_faults(lane, 0.5) == "");
    }
}

BOOST_AUTO_TEST_CASE(nothing_is_added_to_a_bucket_that_is_complete) {
    if (ranks().rank() != 0) return;  // for one rank
    const auto self = make_self_communicator();
    ParallelGrid grid(*self, 1);
    for (const Device device : devices) {
        EncoderModel model(config(), grid, {.device = device, .training = true, .bucket = 1, .max_length = 64, .seed = 3});
        model.initialise();
        Stream& stream = model.stream();
        const Shards& shards = model.state().shards();
        const std::int64_t n = model.state().padded_size();
        const Buffer memory(n * 4, device), seen_memory(n * 4, device), sums(16, device);
        const Tensor gradient = memory.tensor({n}, Dtype::f32), seen = seen_memory.tensor({n}, Dtype::f32);
        for (int round = 0; round < 3; ++round) {  // on a GPU as it is, captured, replayed
            fill_zero(stream, gradient);
            fill_zero(stream, seen);
            int from = shards.buckets(), calls = 0;
            const PackedBatch batch = lane_batch(2);
            model.forward_backward(tasks::LaneBatch(batch), 1, 0.1, gradient, sums.tensor({2}, Dtype::f64), [&](int bucket) {
                BOOST_TEST(bucket < from);
                const Range range{shards.bucket(bucket).begin, shards.bucket(from - 1).end};
                copy(stream, gradient.part(range.begin, {range.size()}), seen.part(range.begin, {range.size()}));
                from = bucket;
                ++calls;
            });
            BOOST_TEST(calls == 3);  // every layer is two buckets long
            BOOST_TEST(from == 1);   // the embedding's lies in the first one
            const std::vector<float> whole = numbers(stream, gradient), early = numbers(stream, seen);
            std::int64_t wrong = 0, added = 0;
            for (std::int64_t i = shards.bucket(from).begin; i < n; ++i) {
                wrong += whole[static_cast<std::size_t>(i)] != early[static_cast<std::size_t>(i)];
                added += early[static_cast<std::size_t>(i)] != 0;
            }
            BOOST_TEST(wrong == 0);
            BOOST_TEST(added > 3 * 8192 / 2);
        }
    }
}
