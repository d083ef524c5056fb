#include "app/bench_ops.hpp"
#include "app/command.hpp"
#include "comm/device_choice.hpp"
#include "core/build.hpp"
#include "core/cpu.hpp"
#include "core/device_memory.hpp"
#include "core/log.hpp"
#include "io/files.hpp"
#include "io/hdf5.hpp"
#include "io/schema.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/gemm.hpp"
#include "train/pretrain.hpp"

#include <algorithm>
#include <chrono>
#include <ctime>
#include <memory>

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
    std::int64_t steps = 7;   ///< measured updates, after some of warming up
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

/// Uniform in [-0.5, 0.5): a GPU multiplies zeros faster than numbers, since they cost it less power.
Buffer random_matrix(Stream& stream, std::int64_t n, Dtype dtype) {
    const Buffer host(n * size_of(Dtype::f32)), wide(n * size_of(Dtype::f32), stream.device());
    Buffer result(n * size_of(dtype), stream.device());
    auto* values = reinterpret_cast<float*>(host.data());
    for (std::int64_t i = 0; i < n; ++i) values[i] = static_cast<float>(uniform(philox({static_cast<std::uint32_t>(i)}, {3, 4})[0])) - 0.5F;
    upload(stream, host.data(), wide.tensor({n}, Dtype::f32));
    cast(stream, {.x = wide.tensor({n}, Dtype::f32), .y = result.tensor({n}, dtype)});
    stream.synchronise();
    return result;
}

/// FLOP/s of the model's own matrix products alone, on one rank: [n, C] x [F, C]ᵀ.
double product_rate(const ModelConfig& model, Device device, Dtype dtype, std::int64_t tokens) {
    const std::int64_t n = std::max<std::int64_t>(tokens, 1), c = model.hidden_size, f = model.intermediate_size;
    const Buffer out(n * f * size_of(dtype), device);
    Stream stream(device);
    const Buffer a = random_matrix(stream, n * c, dtype), b = random_matrix(stream, f * c, dtype);
    std::vector<double> times;
    const int together = device == Device::cpu ? 1 : 50;  // on a GPU many at a time: one is short beside its launch and the wait
    for (int i = 0; i < 8; ++i) {
        const double begin = seconds();
        for (int k = 0; k < together; ++k)
            gemm(stream, {.a = a.tensor({n, c}, dtype), .b = b.tensor({f, c}, dtype), .trans_b = true, .c = out.tensor({n, f}, dtype)});
        stream.synchronise();
        if (i > 1) times.push_back((seconds() - begin) / together);
    }
    return 2.0 * static_cast<double>(n * c * f) / median(times);
}

/// Columns of measured updates.
struct Measured {
    std::vector<double> wall, processor, tokens, flops;
    std::vector<double> forward, backward, lane_sums, communicate, optimize;
    std::vector<LoggedOp> ops;  ///< of all measured updates

    void add_phases(const Trainer::Times& times) {
        forward.push_back(times.forward);
        backward.push_back(times.backward);
        lane_sums.push_back(times.lane_sums);
        communicate.push_back(times.communicate);
        optimize.push_back(times.optimize);
    }
};

using Updates = std::vector<std::vector<PackedBatch>>;  ///< this rank's lanes of each update

/// How many updates come before those that are measured. On a GPU phases are told apart by waiting after each, and a bucket of
/// sizes is run once as it is and captured the second time.
struct WarmUp {
    std::int64_t phases, rest;
    explicit WarmUp(Device device) : phases(device == Device::cpu ? 0 : 4), rest(device == Device::cpu ? 2 : 10) {}
    std::int64_t count() const { return phases + rest; }
};

/// Updates one after another as pretraining makes them: a GPU has the next one before it has done the last.
Measured measure(Trainer& trainer, Communicator& world, const Updates& updates, const WarmUp& warm_up) {
    Measured result;
    const auto count = static_cast<std::int64_t>(updates.size());
    world.barrier();
    double last = seconds();
    std::clock_t last_processor = std::clock();
    std::unique_ptr<OpLog> log;
    for (std::int64_t i = 1; i <= count; ++i) {
        if (i == warm_up.count() + 1) log = std::make_unique<OpLog>();
        trainer.measure_phases(i <= warm_up.phases);
        trainer.launch(updates[static_cast<std::size_t>(i - 1)], i, 1e-4, 1);
        if (warm_up.phases > 0 ? i > 1 && i <= warm_up.phases : i > warm_up.rest) result.add_phases(trainer.times());
        while (trainer.in_flight() > (i <= warm_up.phases || i == count ? 0 : trainer.depth())) {
            const UpdateStats stats = trainer.wait();
            world.barrier();
            const double now = seconds(), wall = now - last;
            const std::clock_t processor = std::clock();
            if (stats.update > warm_up.count()) {
                result.wall.push_back(wall);
                result.processor.push_back(static_cast<double>(processor - last_processor) / CLOCKS_PER_SEC);
                result.tokens.push_back(static_cast<double>(stats.tokens) / wall);
                result.flops.push_back(stats.flops / wall);
            }
            last = now;
            last_processor = processor;
        }
    }
    result.ops = std::move(log->ops);
    return result;
}

}  // namespace

int run_bench(const Invocation& invocation, World& world) {
    json::Place place;
    BenchInput input = resolve<BenchInput>(invocation, place);
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
    EncoderModel model(config, grid, {.device = device, .dtype = dtype, .training = true, .graphs = input.parallel.graphs,
                                  .max_length = input.batch.max_length, .seed = 1});
    model.initialise();
    Trainer trainer(model, grid, input.optimizer, {.lanes = lanes});
    const WarmUp warm_up(device);
    Updates updates;
    for (std::int64_t i = 1; i <= warm_up.count() + input.steps; ++i)
        updates.push_back(real ? stream->lanes_of(i, trainer.first_lane(), trainer.lane_count())
                               : dense_lanes(input.batch, config.vocab_size, lanes, trainer.first_lane(), trainer.lane_count(), i));
    const Measured measured = measure(trainer, world.communicator(), updates, warm_up);
    const double peak = product_rate(config, device, dtype, input.batch.sequences * input.batch.max_length / grid.data->size()) * grid.world.size();
    const double step = median(measured.wall), rate = median(measured.flops);
    if (world.communicator().rank() != 0) return 0;
    std::string processor_name = cpu_description();
    if constexpr (has_cuda)
        if (device == Device::cuda) processor_name = cuda::device_description() + "; " + processor_name;
    log::info(processor_name, "; ", cores, "; ", name_of(dtype), "; ", config.parameter_count(), " parameters, ", input.batch.sequences, " x ",
              real ? "<= " : "", input.batch.max_length, ", ", lanes, " lanes");
    char text[400];
    std::snprintf(text, sizeof text,
                  "update %.4f s (median of %lld): %sforward %.4f, backward %.4f, lane sums %.4f, communication %.4f, optimizer %.4f\n"
                  "%.0f tokens/s  %.2f sequences/s  %.1f GFLOP/s, %.0f %% of the %.1f GFLOP/s of its matrix products alone",
                  step, static_cast<long long>(input.steps), device == Device::cpu ? "" : "waiting after each phase ", median(measured.forward), median(measured.backward), median(measured.lane_sums),
                  median(measured.communicate), median(measured.optimize), median(measured.tokens),
                  static_cast<double>(input.batch.sequences) / step, rate * 1e-9, 100 * rate / peak, peak * 1e-9);
    log::info(text);
    const std::vector<OpSum> ops = sums_of(measured.ops, input.steps);
    const double copy_peak = copy_rate();
    if (device == Device::cpu) print_ops(ops, step, peak / grid.world.size(), copy_peak);
    {
        const auto hold = h5::lock();
        h5::File file = h5::create_file(input.output + ".partial");
        h5::set_attribute(file, schema::kind, schema::kind_bench);
        h5::set_attribute(file, schema::version, std::int64_t{1});
        h5::set_attribute(file, "processor", processor_name);
        h5::set_attribute(file, "device", std::string(device == Device::cpu ? "cpu" : "cuda"));
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
        column("processor_seconds_per_step", median(measured.processor), "s", "median processor time of rank 0, all threads");
        column("tokens_per_second", median(measured.tokens), "tokens/s", "real tokens");
        column("flops_per_second", rate, "FLOP/s", "model FLOPs, all ranks");
        column("peak_fraction", rate / peak, "1", "of the rate of the model's matrix products alone, same run");
        column("seconds_forward", median(measured.forward), "s", "of the update; phases on a GPU: of updates that wait after each");
        column("seconds_backward", median(measured.backward), "s", "of the update");
        column("seconds_lane_sums", median(measured.lane_sums), "s", "of the update: clearing gradients and adding this rank's lanes");
        column("seconds_communication", median(measured.communicate), "s", "of the update");
        column("seconds_optimizer", median(measured.optimize), "s", "of the update");
        h5::check(H5Fflush(file, H5F_SCOPE_LOCAL), input.output);
    }
    rename_durably(input.output + ".partial", input.output);
    return 0;
}

json::value bench_defaults() { return defaults_of<BenchInput>(); }

}  // namespace rf::app
