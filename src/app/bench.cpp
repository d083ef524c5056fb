#include "app/command.hpp"
#include "comm/device_choice.hpp"
#include "core/cpu.hpp"
#include "core/log.hpp"
#include "io/files.hpp"
#include "io/hdf5.hpp"
#include "io/schema.hpp"
#include "kernels/gemm.hpp"
#include "train/pretrain.hpp"

#include <algorithm>
#include <chrono>
#include <ctime>

namespace rf::app {

namespace {

struct BenchBatch {
    std::int64_t sequences = 8;
    std::int64_t max_length = 128;
    std::int64_t lanes = 0;  ///< 0: one for each data rank
};
BOOST_DESCRIBE_STRUCT(BenchBatch, (), (sequences, max_length, lanes))

struct BenchInput {
    json::value model = boost::json::string("inputs/model/small.json");
    json::value corpus = "";  ///< absent: every sequence has max_length random tokens; given: that corpus' real lengths
    BenchBatch batch;
    std::int64_t steps = 7;   ///< measured updates, after two of warming up
    std::string device = "auto";
    std::string dtype = "auto";
    OptimizerConfig optimizer;
    ParallelInput parallel;
    std::string output = "bench.h5";
};
BOOST_DESCRIBE_STRUCT(BenchInput, (), (model, corpus, batch, steps, device, dtype, optimizer, parallel, output))

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

double median(std::vector<double> list) {
    std::sort(list.begin(), list.end());
    return list.empty() ? 0 : list[list.size() / 2];
}

/// Lanes of random ids, 15 % of the positions predicted, as the recipe would.
std::vector<PackedBatch> dense_lanes(const BenchBatch& batch, std::int64_t vocab, int lanes, int first, int count, std::int64_t update) {
    std::vector<PackedBatch> result(static_cast<std::size_t>(count));
    for (PackedBatch& one : result) one.clear();
    for (std::int64_t s = 0; s < batch.sequences; ++s) {
        const int lane = static_cast<int>(s % lanes);
        if (lane < first || lane >= first + count) continue;
        Example example;
        for (std::int64_t t = 0; t < batch.max_length; ++t) {
            const PhiloxCounter w = philox({static_cast<std::uint32_t>(t), static_cast<std::uint32_t>(s), static_cast<std::uint32_t>(update), 0}, {1, 2});
            example.ids.push_back(static_cast<std::int32_t>(w[0] % static_cast<std::uint64_t>(vocab)));
            if (uniform(w[1]) >= 0.15) continue;
            example.rows.push_back(static_cast<std::int32_t>(t));
            example.targets.push_back(static_cast<std::int32_t>(w[2] % static_cast<std::uint64_t>(vocab)));
        }
        result[static_cast<std::size_t>(lane - first)].append(example, static_cast<std::uint64_t>(s));
    }
    return result;
}

/// FLOP/s of the model's own matrix products alone, on one rank: [n, C] x [F, C]ᵀ.
double product_rate(const ModelConfig& model, Dtype dtype, std::int64_t tokens) {
    const std::int64_t n = std::max<std::int64_t>(tokens, 1), c = model.hidden_size, f = model.intermediate_size;
    const Buffer a(n * c * size_of(dtype)), b(f * c * size_of(dtype)), out(n * f * size_of(dtype));
    Stream stream;
    std::vector<double> times;
    for (int i = 0; i < 8; ++i) {
        const double begin = seconds();
        gemm(stream, {.a = a.tensor({n, c}, dtype), .b = b.tensor({f, c}, dtype), .trans_b = true, .c = out.tensor({n, f}, dtype)});
        if (i > 1) times.push_back(seconds() - begin);
    }
    return 2.0 * static_cast<double>(n * c * f) / median(times);
}

}  // namespace

int run_bench(const Invocation& invocation, World& world) {
    BenchInput input;
    json::Place place;
    json::read(read_input(invocation, place), input, place);
    if (input.steps < 1) fail_usage(place.at("steps"), ": expected at least 1, found ", input.steps);
    if (input.batch.sequences < 1) fail_usage(place.at("batch.sequences"), ": expected at least 1, found ", input.batch.sequences);
    if (input.batch.max_length < 3) fail_usage(place.at("batch.max_length"), ": expected at least 3, found ", input.batch.max_length);
    input.optimizer.check(place.at("optimizer"));
    const std::string cores = share_cores(world, input.parallel.threads);
    const ModelConfig config = read_model(input.model, place.at("model"));
    config.check(place.at("model"), input.parallel.tensor);
    const Device device = choose_device(world, input.device);
    ParallelGrid grid(world.communicator(), input.parallel.tensor);
    const int lanes = input.batch.lanes > 0 ? static_cast<int>(input.batch.lanes) : grid.data->size();
    std::unique_ptr<Corpus> corpus;
    std::unique_ptr<SampleStream> stream;
    const bool real = !(input.corpus.is_string() && input.corpus.as_string().empty());
    if (real) {
        corpus = std::make_unique<Corpus>(input.corpus, place.at("corpus"));
        if (corpus->vocab_size() > config.vocab_size) fail_usage(place.at("model.vocab_size"), ": less than the corpus' ", corpus->vocab_size());
        stream = std::make_unique<SampleStream>(SampleStream{.corpus = *corpus, .sequences = input.batch.sequences,
                                                             .max_length = input.batch.max_length, .lanes = lanes, .vocab_size = config.vocab_size});
    }
    const Dtype dtype = resolve_dtype(input.dtype, place);
    MlmModel model(config, grid, {.device = device, .dtype = dtype, .training = true, .graphs = input.parallel.graphs,
                                  .max_length = input.batch.max_length, .seed = 1});
    model.initialise();
    MlmTrainer trainer(model, grid, input.optimizer, lanes);
    std::vector<double> wall, processor, forward, backward, lane_sums, communicate, optimize, tokens, flops;
    constexpr std::int64_t warm_up = 2;
    for (std::int64_t i = 1; i <= warm_up + input.steps; ++i) {
        const auto batches = real ? stream->lanes_of(i, trainer.first_lane(), trainer.lane_count())
                                  : dense_lanes(input.batch, config.vocab_size, lanes, trainer.first_lane(), trainer.lane_count(), i);
        world.communicator().barrier();
        const double begin = seconds();
        const std::clock_t begin_processor = std::clock();
        const UpdateStats stats = trainer.update(batches, i, 1e-4, 1);
        world.communicator().barrier();
        if (i <= warm_up) continue;
        wall.push_back(seconds() - begin);
        processor.push_back(static_cast<double>(std::clock() - begin_processor) / CLOCKS_PER_SEC);
        forward.push_back(trainer.times().forward);
        backward.push_back(trainer.times().backward);
        lane_sums.push_back(trainer.times().lane_sums);
        communicate.push_back(trainer.times().communicate);
        optimize.push_back(trainer.times().optimize);
        tokens.push_back(static_cast<double>(stats.tokens) / wall.back());
        flops.push_back(stats.flops / wall.back());
    }
    const double peak = product_rate(config, dtype, input.batch.sequences * input.batch.max_length / grid.data->size()) * grid.world.size();
    const double step = median(wall), rate = median(flops);
    if (world.communicator().rank() != 0) return 0;
    log::info(cpu_description(), "; ", cores, "; ", name_of(dtype), "; ", config.parameter_count(), " parameters, ", input.batch.sequences, " x ",
              real ? "<= " : "", input.batch.max_length, ", ", lanes, " lanes");
    char text[400];
    std::snprintf(text, sizeof text,
                  "update %.4f s (median of %lld): forward %.4f, backward %.4f, lane sums %.4f, communication %.4f, optimizer %.4f\n"
                  "%.0f tokens/s  %.2f sequences/s  %.1f GFLOP/s, %.0f %% of the %.1f GFLOP/s of its matrix products alone",
                  step, static_cast<long long>(input.steps), median(forward), median(backward), median(lane_sums), median(communicate), median(optimize), median(tokens),
                  static_cast<double>(input.batch.sequences) / step, rate * 1e-9, 100 * rate / peak, peak * 1e-9);
    log::info(text);
    {
        const auto hold = h5::lock();
        h5::File file = h5::create_file(input.output + ".partial");
        h5::set_attribute(file, schema::kind, schema::kind_bench);
        h5::set_attribute(file, schema::version, std::int64_t{1});
        h5::set_attribute(file, "processor", cpu_description());
        h5::set_attribute(file, "dtype", std::string(name_of(dtype)));
        h5::set_attribute(file, "input", json::pretty(json::write(input)));
        const h5::Group table = h5::create_group(file, "bench");
        const auto column = [&](const char* name, double value, const char* units, const char* what) {
            h5::write_vector(table, name, std::vector<double>{value}, {units, what});
        };
        column("ranks", grid.world.size(), "1", "MPI ranks");
        column("tensor", grid.tensor->size(), "1", "tensor ranks");
        column("sequences", static_cast<double>(input.batch.sequences), "1", "sequences of an update");
        column("length", static_cast<double>(input.batch.max_length), "tokens", "longest sequence");
        column("seconds_per_step", step, "s", "median wall time of an update");
        column("processor_seconds_per_step", median(processor), "s", "median processor time of rank 0, all threads");
        column("tokens_per_second", median(tokens), "tokens/s", "real tokens");
        column("flops_per_second", rate, "FLOP/s", "model FLOPs, all ranks");
        column("peak_fraction", rate / peak, "1", "of the rate of the model's matrix products alone, same run");
        column("seconds_forward", median(forward), "s", "of the update");
        column("seconds_backward", median(backward), "s", "of the update");
        column("seconds_lane_sums", median(lane_sums), "s", "of the update: clearing gradients and adding this rank's lanes");
        column("seconds_communication", median(communicate), "s", "of the update");
        column("seconds_optimizer", median(optimize), "s", "of the update");
        h5::check(H5Fflush(file, H5F_SCOPE_LOCAL), input.output);
    }
    rename_durably(input.output + ".partial", input.output);
    return 0;
}

json::value bench_defaults() { return defaults_of<BenchInput>(); }

}  // namespace rf::app
