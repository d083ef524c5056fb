#include "train/plan.hpp"

#include "data/batch.hpp"
#include "model/footprint.hpp"
#include "model/mlm_head.hpp"
#include "optim/lane_tree.hpp"
#include "params/checkpoint.hpp"
#include "train/device_batch.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <numeric>
#include <optional>

namespace rf {

namespace {

constexpr double giga = 1e9, micro = 1e-6;
constexpr double gib = 1 << 30, mib = 1 << 20;

double real(std::int64_t n) { return static_cast<double>(n); }

/// Ranks as they lie on nodes: neighbours share one, and a tensor group is neighbours.
struct Placement {
    std::int64_t local;         ///< ranks of a node
    std::int64_t data_local;    ///< of a data group
    bool tensor_inside;
    Placement(const RankSplit& split, const Machine& machine)
        : local(std::min(split.ranks(), machine.ranks_per_node)),
          data_local(std::max<std::int64_t>(1, std::min(split.data, local / split.tensor))),
          tensor_inside(split.tensor <= local && local % split.tensor == 0) {}
};

/// What the machine gives one rank.
struct Rates {
    double product, attention, row, memory, launch;
    Rates(const Job& job, const Placement& place, const Machine& m)
        : product(m.product_gflops.of(job.dtype) * giga), attention(m.attention_gflops.of(job.dtype) * giga), row(m.row_gb_per_s * giga),
          memory(m.memory_gb_per_s * giga), launch(m.launch_us * micro) {
        if (m.is_gpu()) return;
        const double share = real(m.cores_per_node) / real(place.local);
        const double threads = job.threads > 0 ? real(job.threads) : std::max(1.0, std::floor(share));
        const double cores = std::min(threads, share);
        product *= cores;
        attention *= cores;
        memory /= real(place.local);
        row = std::min(row * cores, memory);
    }
};

/// One lane, as this rank's device sees it: on a GPU padded to its bucket.
struct LaneSizes {
    double tokens, squares, targets;
    LaneSizes(const Job& job, bool gpu, double sequences) {
        const double fill = std::max(0.0, job.length - 2) * job.predicted;
        tokens = sequences * job.length;
        targets = sequences * fill;
        squares = sequences * job.length * job.length;
        if (!gpu) return;
        const BatchSizes rounded = BatchSizes{.tokens = std::llround(tokens), .sequences = std::llround(std::ceil(sequences)), .targets = std::llround(targets)}.bucket();
        tokens = real(rounded.tokens);
        targets = real(rounded.targets);
    }
};

double sequences_of_lane(const Job& job) { return real(job.sequences) / real(job.micro_steps) / real(job.lanes); }

Pass pass_of(const Job& job, const RankSplit& split, const Machine& machine, double sequences) {
    const LaneSizes sizes(job, machine.is_gpu(), std::ceil(sequences));
    const int tensor = static_cast<int>(split.tensor);
    // The last tensor rank has the larger parts.
    return {.model = job.model, .tensor_rank = tensor - 1, .tensor_size = tensor, .device = machine.is_gpu() ? Device::cuda : Device::cpu,
            .dtype = job.dtype, .tokens = std::llround(std::ceil(sizes.tokens)), .targets = std::llround(std::ceil(sizes.targets))};
}

/// The share of the data rank that holds most.
LaneShare largest_share(const Job& job, const RankSplit& split) {
    const int lanes = static_cast<int>(job.lanes), ranks = static_cast<int>(split.data);
    const LaneShare first(lanes, ranks, 0);
    const auto buffers = [&](int r) { return static_cast<int>(first.held[static_cast<std::size_t>(r)].size()) + first.depth(r); };
    int most = 0;
    for (int r = 1; r < ranks; ++r)
        if (buffers(r) > buffers(most)) most = r;
    return {lanes, ranks, most};
}

std::int64_t arena_bytes(const Job& job, const RankSplit& split, const Machine& machine) {
    ArenaCount arena;
    // Twice each: what the first one leaves scattered is joined before the second.
    for (int i = 0; i < 2; ++i) count_training(arena, pass_of(job, split, machine, sequences_of_lane(job)));
    if (job.evaluated > 0)
        for (int i = 0; i < 2; ++i) count_evaluation(arena, pass_of(job, split, machine, real(job.evaluated)));
    return arena.held_bytes();
}

MemoryNeed memory_of(const Job& job, const RankSplit& split, const Machine& machine, const ParamLayout& layout, const Shards& shards) {
    const bool gpu = machine.is_gpu();
    const Dtype wide = accumulator_of(job.dtype);
    const StateBytes state = state_bytes(shards, job.dtype, true);
    const LaneShare share = largest_share(job, split);
    const GradientBytes gradients = gradient_bytes(share, shards, wide);
    const std::int64_t shard = shards.shard_size() * size_of(wide), total = job.mixes ? shard : 0;
    const Pass pass = pass_of(job, split, machine, sequences_of_lane(job));

    MemoryNeed need{.weights = state.weights, .gradients = gradients.flat + gradients.shard + total * (job.keeps ? 1 + job.micro_steps : 1),
                    .optimizer = state.master + 2 * state.moment, .activations = arena_bytes(job, split, machine)};
    constexpr std::int64_t segment_bytes = static_cast<std::int64_t>(sizeof(Segment)) + sum_columns * 8;  // optim/tensor_sums.hpp
    const auto segments = static_cast<std::int64_t>(layout.segments().size());
    const std::int64_t lists = 2 * (segments * sum_columns * 8 + segments / split.data * segment_bytes);
    const std::int64_t rotary = job.max_length * job.model.head_size() * size_of(wide);
    constexpr std::int64_t lists_of_token = 4, updates_at_hand = 3;  // ids, positions, samples, order by id; i32
    const std::int64_t batches = gpu ? pass.tokens * lists_of_token * 4 : updates_at_hand * share.count * job.micro_steps * pass.tokens * lists_of_token * 4;
    constexpr std::int64_t product_workspace = 32 << 20;  // of cuBLASLt
    need.workspaces = lists + rotary + batches + (gpu ? product_workspace : 0);
    need.communication = gradients.recv;
    // MPI has no bf16: activations are summed in f32.
    if (!gpu && split.tensor > 1 && job.dtype == Dtype::bf16) need.communication += pass.tokens * job.model.hidden_size * 4;
    if (!gpu && job.checkpoints) need.checkpoint = checkpoint_copy_bytes(layout, shards, wide);
    need.program = std::llround(machine.program_mib * mib);
    return need;
}

/// Adds up what a rank does in an update.
class Clock {
public:
    explicit Clock(const Rates& rates) : rates_(rates) {}

    /// `times` products [m, k] [k, n]: bound by the multiplications or by the operands, whichever takes longer.
    void product(double m, double n, double k, double item, double out_item, double times) {
        const double work = 2 * m * n * k / rates_.product, move = ((m * k + k * n) * item + m * n * out_item) / rates_.memory;
        (work >= move ? compute_ : memory_) += times * std::max(work, move);
        launches_ += times;
    }
    void attention(double flops, double times) {
        compute_ += flops / rates_.attention;
        launches_ += times;
    }
    void rows(double bytes, double times) {
        memory_ += bytes / rates_.row;
        launches_ += times;
    }
    void stream(double bytes, double times) {
        memory_ += bytes / rates_.memory;
        launches_ += times;
    }
    double seconds() const { return compute_ + memory_ + launches_ * rates_.launch; }
    StepTime time() const { return {.compute = compute_, .memory = memory_, .latency = launches_ * rates_.launch}; }

private:
    const Rates& rates_;
    double compute_ = 0, memory_ = 0, launches_ = 0;
};

/// Forward and backward of `lanes` lanes on one rank.
void add_lanes(Clock& clock, const Job& job, const LaneSizes& lane, const Pass& pass, double lanes) {
    const ModelConfig& m = job.model;
    const double item = real(size_of(job.dtype)), sum = 4;
    const double t = lane.tokens, c = real(m.hidden_size), width = real(pass.heads() * m.head_size()), f = real(pass.inner()), v = real(pass.vocabulary());
    const double layers = lanes * real(m.num_hidden_layers);
    // A weight's three products over `rows` of each lane: forward, its own gradient, the input's.
    const auto weight = [&](double rows, double out, double in, double times) {
        clock.product(rows, out, in, item, item, times);
        clock.product(out, in, rows, item, sum, times);
        clock.product(rows, in, out, item, item, times);
    };
    weight(t, 3 * width, c, layers);
    // Behind its attention the last layer has the rows alone that are predicted.
    for (const auto& [rows, times] : {std::pair(t, layers - lanes), std::pair(lane.targets, lanes)}) {
        weight(rows, c, width, times);
        weight(rows, f, c, times);
        weight(rows, c, f, times);
    }
    const double read = layers * t - lanes * (t - lane.targets);  // rows behind attention
    clock.attention(12 * width * lane.squares * layers, 2 * layers);
    clock.rows(read * c * item * (2 * 3 + 2 * 4 + 2 * 3), 6 * layers);     // norms forward and backward, sums of branches
    clock.rows(lanes * (t + lane.targets * 2) * (c + width) * item, 4 * lanes);  // rows taken and put back
    clock.rows(lanes * t * c * item * 8, 4 * lanes);                         // embedding and its gradient, its norm twice
    // What other families have beside: gains, biases and an activation of its own, each a pass or two over its rows.
    const BlockStyle style = m.style();
    if (style.norm_gain) clock.rows(read * c * item * (2 * 1 + 2 * 2), 2 * layers);
    if (style.biases) clock.rows((layers * t * 3 * width + read * 2 * c) * item * 3, 6 * layers);
    if (!style.fused_relu()) clock.rows(read * f * item * (3 + 3 + 1), 3 * layers);
    if (style.learned_positions) clock.rows(lanes * t * c * item * 4, 2 * lanes);
    if (style.head_transform) {
        for (int i = 0; i < 3; ++i) clock.product(lane.targets, c, c, item, item, lanes);
        clock.rows(lanes * (lane.targets * c * item * 12 + lane.targets * v * sum * 3), 8 * lanes);
    }
    const double chunks = lanes * std::ceil(lane.targets / real(MlmHead::chunk_rows));
    const double rows = std::min(lane.targets, real(MlmHead::chunk_rows)), whole = lane.targets > 0 ? lanes * lane.targets / rows : 0;
    clock.product(rows, v, c, item, sum, whole);
    clock.product(rows, c, v, item, item, whole);
    clock.product(v, c, rows, item, 2 * sum, whole);
    clock.rows(lanes * (lane.targets * v * (2 * sum + item) + lane.targets * c * item * 3), 5 * chunks + 2 * lanes);
}

/// What is done to whole arrays: clearing and adding gradients, the optimizer, new weights.
void add_arrays(Clock& clock, const Job& job, const RankSplit& split, const LaneShare& share, const Shards& shards, std::int64_t cleared, bool separate_masters) {
    const double padded = real(shards.padded_size()), shard = real(shards.shard_size()), steps = real(job.micro_steps);
    const double own = real(static_cast<std::int64_t>(share.own().size())), leaves = real(static_cast<std::int64_t>(share.leaves.size()));
    clock.stream(steps * real(share.count) * real(cleared) * 4, steps * real(share.count));
    clock.stream(steps * (real(share.count) - own) * padded * 12, steps * (real(share.count) - own));
    if (split.data > 1) clock.stream(steps * ((leaves - 1) * shard * 12 + shard * 8), steps * leaves * real(shards.buckets()));
    if (job.mixes) clock.stream(steps * shard * 16, 4 * steps);
    clock.stream(shard * 44, 6);  // sums, moments, weights: kernels/README.md
    if (separate_masters) clock.stream(shard * (4 + real(size_of(job.dtype))), real(shards.buckets()));
}

struct Messages {
    Traffic sent;
    double seconds = 0, gradient_seconds = 0, latency = 0;
};

Messages messages_of(const Job& job, const RankSplit& split, const Placement& place, const Machine& machine, const ParamLayout& layout, const Shards& shards,
                     const LaneShare& share, const LaneSizes& lane) {
    Messages out;
    const double n = real(split.tensor), d = real(split.data), steps = real(job.micro_steps), lanes = steps * real(share.count);
    if (split.tensor > 1) {
        const double item = machine.is_gpu() ? real(size_of(job.dtype)) : 4;  // MPI sums in f32
        // One of the embedding, four of a layer: of the last one three are of the predicted rows alone, and so is the head's.
        const double reduces = 1 + 4 * real(job.model.num_hidden_layers), narrow = 3, c = real(job.model.hidden_size);
        const double chunks = std::ceil(lane.targets / real(MlmHead::chunk_rows));
        out.sent.tensor_all_reduce = lanes * ((reduces - narrow) * lane.tokens + (narrow + 1) * lane.targets) * c * item * 2 * (n - 1) / n;
        out.sent.tensor_all_gather = lanes * lane.targets * 4 * 4 * (n - 1);
        const Link& link = place.tensor_inside ? machine.inside : machine.between;
        out.seconds += (out.sent.tensor_all_reduce + out.sent.tensor_all_gather) / (link.gb_per_s * giga);
        out.latency += lanes * (reduces + 1 + chunks) * link.latency_us * micro;
    }
    if (split.data > 1) {
        const double local = real(place.data_local), padded = real(shards.padded_size());
        std::size_t rounds = 0;
        for (const auto& nodes : share.held) rounds = std::max(rounds, nodes.size());
        out.sent.gradients = steps * real(static_cast<std::int64_t>(share.own().size())) * padded * 4 * (d - 1) / d;
        out.sent.weights = padded * real(size_of(job.dtype)) * (d - 1) / d;
        out.sent.sums = 2 * real(static_cast<std::int64_t>(layout.segments().size())) * real(sum_columns) * 8 * 2 * (d - 1) / d;
        const bool one_node = split.data == place.data_local;
        const Link& far = one_node ? machine.inside : machine.between;
        // To every other rank alike; rings pass each node once.
        const double away = one_node ? 0 : (d - local) / (d - 1), inside = machine.inside.gb_per_s * giga, between = machine.between.gb_per_s * giga;
        out.gradient_seconds = std::max(out.sent.gradients * (1 - away) / inside, out.sent.gradients * away / between);
        const double rings = out.sent.weights + out.sent.sums;
        out.seconds += std::max(rings / inside, one_node ? 0 : rings / local / between);
        out.latency += (real(shards.buckets()) * (steps * real(static_cast<std::int64_t>(rounds)) + 1) + 4) * far.latency_us * micro;
    }
    return out;
}

}  // namespace

std::string StepTime::bound() const {
    const std::pair<double, const char*> kinds[] = {{compute, "compute"}, {memory, "memory"}, {network, "network"}, {latency, "latency"}};
    return std::max_element(std::begin(kinds), std::end(kinds), [](const auto& a, const auto& b) { return a.first < b.first; })->second;
}

std::string obstacle(const Job& job, const RankSplit& split) {
    const ModelConfig& m = job.model;
    if (m.num_attention_heads % split.tensor != 0) return message(m.num_attention_heads, " heads do not divide over ", split.tensor, " tensor ranks");
    if (std::min(m.intermediate_size, m.vocab_size) < split.tensor) return message("less than one unit for each of ", split.tensor, " tensor ranks");
    if (job.lanes % split.data != 0) return message("batch.lanes = ", job.lanes, " does not divide over ", split.data, " data ranks");
    if (job.lanes * job.micro_steps > job.sequences) return message(job.lanes, " lanes for ", job.sequences / job.micro_steps, " sequences");
    return {};
}

Plan make_plan(const Job& job, const RankSplit& split, const Machine& machine) {
    const Placement place(split, machine);
    const Rates rates(job, place, machine);
    ParamLayout layout(static_cast<int>(split.tensor) - 1, static_cast<int>(split.tensor));
    const Encoder encoder(job.model, layout);
    const MlmHead head(job.model, encoder, layout);
    const Shards shards(layout.size(), static_cast<int>(split.data));
    std::int64_t cleared = shards.padded_size();  // of a lane's gradient
    for (const ParamId id : encoder.overwritten()) cleared -= layout[id].local.count();
    const LaneShare share = largest_share(job, split);
    const LaneSizes lane(job, machine.is_gpu(), sequences_of_lane(job));
    const Pass pass = pass_of(job, split, machine, sequences_of_lane(job));

    Plan plan{.parameters = job.model.parameter_count(), .tokens = real(job.sequences) * job.length};
    const double targets = real(job.sequences) * std::max(0.0, job.length - 2) * job.predicted;
    plan.flops = job.model.training_flops(plan.tokens, plan.tokens * job.length, targets);
    plan.memory = memory_of(job, split, machine, layout, shards);
    plan.memory_limit = std::llround(machine.memory_gib * gib / (machine.is_gpu() ? 1 : real(place.local)));

    Clock one(rates), clock(rates);
    add_lanes(one, job, lane, pass, 1);
    add_lanes(clock, job, lane, pass, real(job.micro_steps * share.count));
    add_arrays(clock, job, split, share, shards, cleared, state_bytes(shards, job.dtype, true).master > 0);
    plan.seconds = clock.time();

    const Messages messages = messages_of(job, split, place, machine, layout, shards, share, lane);
    plan.sent = messages.sent;
    // Trainer::overlaps. Two thirds of a lane are its backward; the last bucket to be complete has nothing left to hide behind.
    if (machine.is_gpu() && split.data > 1 && split.tensor == 1) {
        const double buckets = real(shards.buckets());
        plan.seconds.hidden = std::min(messages.gradient_seconds * (buckets - 1) / buckets, real(job.micro_steps) * one.seconds() * 2 / 3);
    }
    plan.seconds.network = messages.seconds + messages.gradient_seconds - plan.seconds.hidden;
    plan.seconds.latency += messages.latency;

    const double bytes = 3.0 * 4 * real(plan.parameters), nodes = std::ceil(real(split.ranks()) / real(machine.ranks_per_node));
    plan.checkpoints = checkpoint_rhythm(bytes, job.checkpoint_seconds > 0 ? job.checkpoint_seconds : bytes * 1e-9 / machine.storage_gb_per_s,
                                         machine.node_mtbf_hours * 3600 / nodes, plan.seconds.total());
    return plan;
}

CheckpointRhythm checkpoint_rhythm(double bytes, double write_seconds, double mtbf_seconds, double update_seconds) {
    const double interval = std::max(std::sqrt(2 * write_seconds * mtbf_seconds), write_seconds);
    return {.bytes = bytes, .write_seconds = write_seconds, .mtbf_seconds = mtbf_seconds, .interval = interval,
            .updates = std::max(1.0, std::round(interval / update_seconds)), .lost = write_seconds / interval + interval / (2 * mtbf_seconds)};
}

std::vector<RankSplit> splits_of(std::int64_t ranks) {
    std::vector<RankSplit> splits;
    for (std::int64_t tensor = 1; tensor <= ranks; ++tensor)
        if (ranks % tensor == 0) splits.push_back({tensor, ranks / tensor});
    return splits;
}

namespace {

/// A run that differs from the one asked for.
struct Changed {
    Job job;
    RankSplit split;
    std::string settings;
    void set(const std::string& text) { settings += (settings.empty() ? "" : " ") + text; }
};
/// One setting's possible changes, the smallest first.
using Changes = std::vector<std::function<void(Changed&)>>;

std::vector<Changes> changes_of(const Job& job, const RankSplit& split, const Machine& machine) {
    constexpr std::int64_t most_ranks = 1024;
    std::vector<Changes> all(5);
    for (std::int64_t ranks = split.ranks() * 2; ranks <= most_ranks; ranks *= 2)
        all[0].push_back([ranks](Changed& c) { c.split.data = ranks / c.split.tensor, c.set(message("plan.ranks=", ranks)); });
    for (std::int64_t tensor = split.tensor + 1; tensor <= job.model.num_attention_heads; ++tensor)
        if (job.model.num_attention_heads % tensor == 0)
            all[1].push_back([tensor](Changed& c) {
                const std::int64_t ranks = c.split.ranks();
                c.split = {tensor, ranks % tensor == 0 ? ranks / tensor : 0};
                c.set(message("parallel.tensor=", tensor));
            });
    for (std::int64_t lanes = std::lcm(job.lanes, split.data); lanes <= job.sequences / job.micro_steps; lanes *= 2)
        if (lanes > job.lanes) all[2].push_back([lanes](Changed& c) { c.job.lanes = lanes, c.set(message("batch.lanes=", lanes)); });
    for (std::int64_t group = job.evaluated / 2; group >= 1; group /= 2)
        all[3].push_back([group](Changed& c) { c.job.evaluated = group, c.set(message("evaluation.group=", group)); });
    if (job.dtype == Dtype::f32 && machine.product_gflops.bf16 > 0)
        all[4].push_back([](Changed& c) { c.job.dtype = Dtype::bf16, c.set("dtype=bf16"); });
    return all;
}

}  // namespace

std::vector<Remedy> find_remedies(const Job& job, const RankSplit& split, const Machine& machine) {
    const std::vector<Changes> all = changes_of(job, split, machine);
    std::vector<Remedy> found;
    for (int many = 1; many <= 3 && found.empty(); ++many)
        for (unsigned mask = 1; mask < 1U << all.size(); ++mask) {
            if (std::popcount(mask) != many) continue;
            // Every combination of the changes of these settings, those nearest to the given ones first.
            std::vector<std::vector<std::size_t>> picks{{}};
            for (std::size_t s = 0; s < all.size(); ++s) {
                std::vector<std::vector<std::size_t>> longer;
                for (const auto& pick : picks)
                    for (std::size_t i = 0; i < ((mask >> s & 1U) ? all[s].size() : 1); ++i) {
                        longer.push_back(pick);
                        longer.back().push_back(i);
                    }
                picks = std::move(longer);
            }
            std::stable_sort(picks.begin(), picks.end(), [](const auto& a, const auto& b) {
                return std::accumulate(a.begin(), a.end(), std::size_t{0}) < std::accumulate(b.begin(), b.end(), std::size_t{0});
            });
            for (const auto& pick : picks) {
                Changed changed{job, split, ""};
                for (std::size_t s = 0; s < all.size(); ++s)
                    if (mask >> s & 1U) all[s][pick[s]](changed);
                if (changed.split.data < 1 || !obstacle(changed.job, changed.split).empty()) continue;
                const Plan plan = make_plan(changed.job, changed.split, machine);
                if (!plan.fits()) continue;
                found.push_back({changed.settings, plan});
                break;
            }
        }
    return found;
}

}  // namespace rf
