#include "app/bench_file.hpp"
#include "app/bench_ops.hpp"
#include "app/bench_products.hpp"
#include "app/bench_trace.hpp"
#include "app/command.hpp"
#include "comm/device_choice.hpp"
#include "core/build.hpp"
#include "core/cpu.hpp"
#include "core/device_memory.hpp"
#include "core/log.hpp"
#include "train/pretrain.hpp"

#include <algorithm>
#include <cmath>
#include <ctime>
#include <limits>
#include <memory>
#include <numeric>

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
    std::string label;        ///< what the measurement is called in its row
    std::string output = "bench.h5";  ///< rows are added to it
};
BOOST_DESCRIBE_STRUCT(BenchInput, (), (model, corpus, batch, steps, device, dtype, optimizer, parallel, label, output))

void check_input(const BenchInput& in, const json::Place& place) {
    const json::Requirements require{place};
    require(in.steps >= 1, "steps", "expected at least 1, found ", in.steps);
    require(in.batch.sequences >= 1, "batch.sequences", "expected at least 1, found ", in.batch.sequences);
    require(in.batch.max_length >= 3 && in.batch.max_length <= 65536, "batch.max_length", "expected 3 to 65536, found ", in.batch.max_length);
    require(in.batch.lanes >= 0 && in.batch.lanes <= in.batch.sequences, "batch.lanes", "expected 0 (one for each data rank) to batch.sequences = ",
            in.batch.sequences, ", found ", in.batch.lanes);
    require(in.parallel.threads >= 0, "parallel.threads", "expected 0 (share the cores) or a number of threads, found ", in.parallel.threads);
    in.optimizer.check(place.at("optimizer"));
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

/// Columns of measured updates.
struct Measured {
    std::vector<double> wall, processor, tokens, tokens_per_second, flops;
    std::vector<double> forward, backward, lane_sums, communicate, optimize;
    double model_flops = 0;     ///< of all measured updates together
    std::vector<LoggedOp> ops;  ///< likewise

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
                result.tokens.push_back(static_cast<double>(stats.tokens));
                result.tokens_per_second.push_back(static_cast<double>(stats.tokens) / wall);
                result.flops.push_back(stats.flops / wall);
                result.model_flops += stats.flops;
            }
            last = now;
            last_processor = processor;
        }
    }
    result.ops = std::move(log->ops);
    return result;
}

/// The batches of all updates, drawn before the clock runs.
Updates draw_all(const Draw& draw, std::int64_t count) {
    Updates updates;
    for (std::int64_t i = 1; i <= count; ++i) updates.push_back(draw(i));
    return updates;
}

constexpr std::int64_t most_traced = 3;  // updates: enough to see them repeat, and files that can be opened

/// Where batches come from: the corpus, or random ids.
class Batches {
public:
    Batches(const BenchInput& in, const json::Place& place, const ModelConfig& model, Communicator& world, int lanes) : in_(in), vocab_(model.vocab_size), lanes_(lanes) {
        if (in.corpus.is_string() && in.corpus.as_string().empty()) return;
        check_corpus(in.corpus, place.at("corpus"), world);
        corpus_ = std::make_unique<Corpus>(in.corpus, place.at("corpus"), Corpus::Check::none);
        if (corpus_->vocab_size() > vocab_) fail_usage(place.at("model.vocab_size"), ": ", vocab_, " is less than the corpus' ", corpus_->vocab_size());
        stream_ = std::make_unique<SampleStream>(SampleStream{.corpus = *corpus_, .sequences = in.batch.sequences,
                                                              .max_length = in.batch.max_length, .lanes = lanes, .vocab_size = vocab_});
    }
    bool real() const { return corpus_ != nullptr; }
    std::vector<PackedBatch> draw(std::int64_t update, int first, int count) const {
        return real() ? stream_->lanes_of(update, first, count) : dense_lanes(in_.batch, vocab_, lanes_, first, count, update);
    }

private:
    const BenchInput& in_;
    std::int64_t vocab_;
    int lanes_;
    std::unique_ptr<Corpus> corpus_;
    std::unique_ptr<SampleStream> stream_;
};

/// What the measurement comes to, all ranks together.
struct Findings {
    double step, rate;         ///< medians: seconds of an update, model FLOP/s
    double mean_step;          ///< seconds; what the ops' sums are of
    double peak, own_peak;     ///< FLOP/s of products alone: all ranks, this one
    double copy_peak = 0;      ///< bytes/s of a copy, this rank beside the others; on a CPU
    double collectives;        ///< seconds of an update, mean over ranks
    double computed;           ///< FLOPs of all ops over model FLOPs: of the last layer the rows alone that are read, of attention one product more
    std::vector<OpSum> ops;    ///< of this rank
    std::string processor;
};

Findings findings_of(const Measured& measured, const BenchInput& in, const ModelConfig& config, ParallelGrid& grid, Device device, Dtype dtype, int lanes) {
    const double sum = std::accumulate(measured.wall.begin(), measured.wall.end(), 0.0);
    Findings found{.step = median(measured.wall),
                   .rate = median(measured.flops),
                   .mean_step = sum / static_cast<double>(in.steps),
                   .ops = sums_of(measured.ops, in.steps),
                   .processor = cpu_description()};
    const std::int64_t tokens = device == Device::cpu ? std::llround(median(measured.tokens) / lanes) : in.batch.sequences * in.batch.max_length / grid.data->size();
    found.own_peak = product_rate(config, grid, device, dtype, tokens);
    found.peak = grid.world.sum(found.own_peak);
    if (device == Device::cpu) found.copy_peak = copy_rate();
    found.collectives = grid.world.sum(seconds_in_collectives(found.ops)) / grid.world.size();
    found.computed = 0;
    for (const OpSum& op : found.ops) found.computed += op.flops * static_cast<double>(in.steps);
    found.computed = grid.world.sum(found.computed) / measured.model_flops;
    // On a GPU ops and collectives are not logged.
    if (device != Device::cpu) found.collectives = found.computed = std::numeric_limits<double>::quiet_NaN();
    if constexpr (has_cuda)
        if (device == Device::cuda) found.processor = cuda::device_description() + "; " + found.processor;
    return found;
}

void print(const Measured& measured, const Findings& found, const BenchInput& in, Device device) {
    char text[700];
    // Those of tensor ranks are within forward and backward.
    std::string collectives;
    if (found.collectives > 0) {
        std::snprintf(text, sizeof text, "; in all collectives %.4f", found.collectives);
        collectives = text;
    }
    std::snprintf(text, sizeof text,
                  "update %.4f s (median of %lld): %sforward %.4f, backward %.4f, lane sums %.4f, communication %.4f, optimizer %.4f%s\n"
                  "%.0f tokens/s  %.2f sequences/s  %.1f GFLOP/s, %.0f %% of the %.1f GFLOP/s %s",
                  found.step, static_cast<long long>(in.steps), device == Device::cpu ? "" : "waiting after each phase ", median(measured.forward), median(measured.backward),
                  median(measured.lane_sums), median(measured.communicate), median(measured.optimize), collectives.c_str(), median(measured.tokens_per_second),
                  static_cast<double>(in.batch.sequences) / found.step, found.rate * 1e-9, 100 * found.rate / found.peak, found.peak * 1e-9,
                  device == Device::cpu ? "that oneDNN makes of a layer's products, forward and backward, whole and alone" : "of its matrix products alone");
    log::info(text);
    if (device != Device::cpu) return;
    const double least = least_seconds(found.ops, found.own_peak, found.copy_peak);
    std::snprintf(text, sizeof text, "every op at that rate or at the %.1f GB/s of a copy: %.4f s, %.0f %% of it; %.1f %% of the model's FLOPs are computed",
                  found.copy_peak * 1e-9, least, 100 * found.rate / found.peak * found.step / least, 100 * found.computed);
    log::info(text);
    print_ops(found.ops, found.mean_step, found.own_peak, found.copy_peak);
}

BenchRow row_of(const Measured& measured, const Findings& found, const BenchInput& in, const ModelConfig& config, const ParallelGrid& grid, Device device, Dtype dtype, int lanes) {
    BenchRow row{.ops = found.ops};
    const auto say = [&](const char* name, const std::string& value, const char* what) { row.texts.push_back({name, value, what}); };
    say("label", in.label, "key label of the input");
    say("program", message("roformer ", program_version), "program and version");
    say("processor", found.processor, "of rank 0");
    say("device", device == Device::cpu ? "cpu" : "cuda", "cpu or cuda");
    say("dtype", std::string(name_of(dtype)), "compute type");
    say("model", json::line(json::write(config)), "JSON, every key");
    say("input", json::line(json::write(in)), "JSON, as resolved");
    const auto column = [&](const char* name, double value, const char* units, const char* what) { row.numbers.push_back({name, value, units, what}); };
    column("ranks", grid.world.size(), "1", "MPI ranks");
    column("tensor", grid.tensor->size(), "1", "tensor ranks");
    column("threads", thread_count(), "1", "threads of a rank");
    column("lanes", lanes, "1", "gradient lanes of an update");
    column("sequences", static_cast<double>(in.batch.sequences), "1", "sequences of an update");
    column("length", static_cast<double>(in.batch.max_length), "tokens", "longest sequence");
    column("steps", static_cast<double>(in.steps), "1", "updates measured");
    column("parameters", static_cast<double>(config.parameter_count()), "1", "of the model");
    column("seconds_per_step", found.step, "s", "median wall time of an update");
    column("processor_seconds_per_step", median(measured.processor), "s", "median processor time of rank 0, all threads");
    column("tokens_per_second", median(measured.tokens_per_second), "tokens/s", "real tokens");
    column("flops_per_second", found.rate, "FLOP/s", "model FLOPs, all ranks");
    column("computed_fraction", found.computed, "1", "FLOPs computed over model FLOPs: the last layer has the rows alone that are read, attention multiplies once more backward; NaN on a GPU");
    column("peak_fraction", found.rate / found.peak, "1",
           device == Device::cpu ? "of oneDNN's own rate for a layer's products, forward and backward, in the same run" : "of the rate of the model's matrix products alone, same run");
    column("product_flops_per_second", found.peak, "FLOP/s", "that rate, all ranks");
    column("seconds_forward", median(measured.forward), "s", "of the update; phases on a GPU: of updates that wait after each");
    column("seconds_backward", median(measured.backward), "s", "of the update");
    column("seconds_lane_sums", median(measured.lane_sums), "s", "of the update: clearing gradients and adding this rank's lanes");
    column("seconds_communication", median(measured.communicate), "s", "of the update: gradients and weights");
    column("seconds_collectives", found.collectives, "s", "of the update: in all collectives, tensor ranks' too, waiting for other ranks included; mean over ranks; NaN on a GPU");
    column("seconds_optimizer", median(measured.optimize), "s", "of the update");
    return row;
}

/// Everything that can be wrong with the places to write to, before any work.
std::string check_places(const Invocation& invocation, const BenchInput& in, const json::Place& place, Communicator& world) {
    const std::string trouble = trouble_on_rank_0(world, [&] { return bench_file_trouble(in.output); });
    if (!trouble.empty()) fail_usage(place.at("output"), ": ", trouble);
    if (!invocation.options.contains("trace")) return {};
    const std::string& path = invocation.need("trace");
    const std::string wrong = trouble_on_rank_0(world, [&] { return trace_trouble(path); });
    if (!wrong.empty()) fail_usage("--trace: ", wrong);
    return path;
}

}  // namespace

int run_bench(const Invocation& invocation, World& world) {
    json::Place place;
    const BenchInput input = resolve<BenchInput>(invocation, place);
    check_input(input, place);
    const std::string trace = check_places(invocation, input, place, world.communicator());
    const std::string cores = share_cores(world, input.parallel.threads);
    const ModelConfig config = read_model(input.model, place.at("model"));
    config.check(place.at("model"), input.parallel.tensor);
    const Device device = choose_device(world, input.device);
    const Dtype dtype = resolve_dtype(input.dtype, place);
    ParallelGrid grid(world.communicator(), input.parallel.tensor);
    const int lanes = input.batch.lanes > 0 ? static_cast<int>(input.batch.lanes) : grid.data->size();
    if (lanes > input.batch.sequences)
        fail_usage(place.at("batch.sequences"), ": expected at least ", lanes, ", one for each data rank, found ", input.batch.sequences);
    const Batches batches(input, place, config, grid.world, lanes);
    EncoderModel model(config, grid, {.device = device, .dtype = dtype, .training = true, .graphs = input.parallel.graphs,
                                  .max_length = input.batch.max_length, .seed = 1});
    model.initialise();
    Trainer trainer(model, grid, input.optimizer, {.lanes = lanes});
    const WarmUp warm_up(device);
    const std::int64_t count = warm_up.count() + input.steps;
    const Draw draw = [&](std::int64_t update) { return batches.draw(update, trainer.first_lane(), trainer.lane_count()); };
    const Measured measured = measure(trainer, grid.world, draw_all(draw, count), warm_up);
    const Findings found = findings_of(measured, input, config, grid, device, dtype, lanes);
    if (!trace.empty()) trace_updates(trainer, model, grid, draw, count + 1, std::min(input.steps, most_traced), trace);
    log::info(found.processor, "; ", cores, "; ", name_of(dtype), "; ", config.parameter_count(), " parameters, ", input.batch.sequences, " x ",
              batches.real() ? "<= " : "", input.batch.max_length, ", ", lanes, " lanes");
    if (grid.world.rank() == 0) print(measured, found, input, device);
    const std::string trouble = trouble_on_rank_0(grid.world, [&] {
        const std::int64_t number = append_to_bench_file(input.output, row_of(measured, found, input, config, grid, device, dtype, lanes));
        log::info("row ", number, " of ", input.output);
        return std::string();
    });
    if (!trouble.empty()) fail(trouble);
    return 0;
}

json::value bench_defaults() { return defaults_of<BenchInput>(); }

}  // namespace rf::app
