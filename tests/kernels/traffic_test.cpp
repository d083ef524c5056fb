/// What kernels move, by the emulator's counters: bytes asked for against bytes that must move, sectors touched against bytes asked
/// for, passes over shared memory against the fewest. Rows of 768 in bf16 and f32, at the sizes of a short batch.

#include "emulator/machine.hpp"
#include "kernels/activation.hpp"
#include "kernels/add_norm.hpp"
#include "kernels/attention.hpp"
#include "kernels/cross_entropy.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/embedding.hpp"
#include "kernels/gather.hpp"
#include "kernels/layer_norm.hpp"
#include "kernels/optimizer.hpp"
#include "kernels/position.hpp"
#include "kernels/relu_mask.hpp"
#include "tests/kernels/device_case.hpp"
#include "tests/kernels/gradient_check.hpp"
#include "tests/kernels/rotary_table.hpp"

#include <functional>
#include <map>

using namespace rf;
using namespace rf::test;

namespace {

/// The aims: at most 3 % more bytes than must move, at least 95 % of what touched sectors hold.
constexpr double most_bytes = 1.03, least_use = 0.95;

using Counters = std::map<std::string, emulator::Counters>;

Counters counters_of(const DeviceCase& on, const std::function<void()>& body) {
    on.stream().synchronise();
    emulator::reset_counters();
    emulator::count(true);
    body();
    on.stream().synchronise();
    emulator::count(false);
    return emulator::counters();
}

void check_shared(const std::string& kernel, const emulator::Counters& c) {
    std::string where;
    for (const auto& [line, extra] : c.conflicts) where += message(' ', line, ": ", extra);
    BOOST_TEST(c.shared_wavefronts == c.shared_ideal, kernel << " has bank conflicts:" << where);
}

/// `needed`: bytes of all operands and results, each as often as the kernel's split of the work makes it.
void check_traffic(const DeviceCase& on, const Counters& counters, const std::string& kernel, std::int64_t needed, double bytes = most_bytes, double use = least_use) {
    const emulator::Counters& c = counters.at(kernel);
    const double asked = static_cast<double>(c.global_bytes) / static_cast<double>(needed);
    const double used = static_cast<double>(c.global_bytes) / (32 * static_cast<double>(c.global_sectors));
    BOOST_TEST_MESSAGE(on.name() << ' ' << kernel << ": asked / needed " << asked << ", sector use " << used);
    BOOST_TEST(asked >= 0.999, kernel << " in " << on.name() << " asks for " << asked << " of what must move: the test's count is wrong");
    BOOST_TEST(asked <= bytes, kernel << " in " << on.name() << " asks for " << asked << " times the bytes that must move");
    BOOST_TEST(used >= use, kernel << " in " << on.name() << " uses " << used << " of the sectors it touches");
    check_shared(kernel, c);
}

std::vector<DeviceCase> gpu_cases() { return {{Device::cuda, Dtype::f32}, {Device::cuda, Dtype::bf16}}; }

std::vector<double> counted(std::int64_t n, const std::function<double(std::int64_t)>& value) {
    std::vector<double> all;
    for (std::int64_t i = 0; i < n; ++i) all.push_back(value(i));
    return all;
}

constexpr std::int64_t tokens = 64, width = 768;

/// Rows of numbers on the GPU.
DeviceTensor rows(const DeviceCase& on, std::int64_t n, std::int64_t c = width) { return on.put({n, c}, numbers(n * c, 1)); }

}  // namespace

BOOST_AUTO_TEST_CASE(norms_and_sums_of_rows) {
    for (const DeviceCase& on : gpu_cases()) {
        const std::int64_t row = width * size_of(on.dtype);
        const DeviceTensor x = rows(on, tokens), f = rows(on, tokens), y = rows(on, tokens), dx = rows(on, tokens), df = rows(on, tokens), inv = on.zeros_wide({tokens});
        const DeviceTensor sample = on.put_list(std::vector<double>(tokens, 3)), position = on.put_list(counted(tokens, [](auto t) { return t; }));
        const Dropout dropout{.rate = 0.1, .seed = 1, .detail = 2};
        const TokenOrigin origin{.sample = sample, .position = position};
        const Counters c = counters_of(on, [&] {
            add_norm(on.stream(), {.x = x, .f = f, .y = y, .inv_rms = inv, .alpha = 0.5, .dropout = dropout, .origin = origin});
            add_norm_backward(on.stream(), {.dy = x, .y = y, .inv_rms = inv, .dx = dx, .df = df, .alpha = 0.5, .dropout = dropout, .origin = origin});
            add(on.stream(), {.x = x, .y = y});
        });
        check_traffic(on, c, "add_norm", tokens * (3 * row + 4 + 8));
        check_traffic(on, c, "add_norm_backward", tokens * (4 * row + 4 + 8));
        check_traffic(on, c, "add", 3 * tokens * row);
        const DeviceTensor gain = on.put({width}, numbers(width, 3)), bias = on.put({width}, numbers(width, 4)), normalised = rows(on, tokens);
        const Counters n = counters_of(on, [&] {
            layer_norm(on.stream(), {.x = x, .f = f, .gain = gain, .bias = bias, .normalised = normalised, .y = y, .inv_std = inv, .alpha = 0.5, .dropout = dropout, .origin = origin});
            layer_norm_backward(on.stream(), {.dy = x, .normalised = normalised, .inv_std = inv, .gain = gain, .dx = dx, .df = df, .alpha = 0.5, .dropout = dropout, .origin = origin});
        });
        // Gain and bias are read for every token, from a cache.
        check_traffic(on, n, "layer_norm", tokens * (6 * row + 4 + 8));
        check_traffic(on, n, "layer_norm_backward", tokens * (5 * row + 4 + 8));
        const Counters a = counters_of(on, [&] {
            bias_activation(on.stream(), {.bias = bias, .x = x, .y = y, .activation = Activation::gelu});
            activation_backward(on.stream(), {.x = x, .dy = y, .dx = y, .activation = Activation::gelu});
            add_position(on.stream(), {.position = position, .table = f, .y = y});
        });
        check_traffic(on, a, "bias_activation", tokens * 4 * row);  // the bias from a cache
        check_traffic(on, a, "activation_backward", tokens * 3 * row);
        check_traffic(on, a, "add_position", tokens * (3 * row + 4));
        const Dtype other = on.dtype == Dtype::f32 ? Dtype::bf16 : Dtype::f32;
        const DeviceTensor z(on.device, {tokens, width}, other);
        const Counters casts = counters_of(on, [&] { cast(on.stream(), {.x = x, .y = z}); });
        check_traffic(on, casts, "cast", tokens * width * (size_of(on.dtype) + size_of(other)));
    }
}

/// Every other token has an id of its own, the rest share a hundred: some in runs longer than a piece of 32.
BOOST_AUTO_TEST_CASE(embeddings) {
    constexpr std::int64_t count = 512, vocabulary = 400, types = 2;
    for (const DeviceCase& on : gpu_cases()) {
        const std::int64_t row = width * size_of(on.dtype);
        std::vector<std::int32_t> ids;
        for (std::int32_t t = 0; t < count; ++t) ids.push_back(t % 2 ? 100 + t / 2 : t % 8 == 0 ? 7 : t * 37 % 100);
        const IdGroups groups = group_by_id(ids);
        const auto list = [&](const std::vector<std::int32_t>& n) { return on.put_list({n.begin(), n.end()}); };
        const DeviceTensor id = list(ids), order = list(groups.tokens), begin = list(groups.begin);
        const DeviceTensor word = rows(on, vocabulary), segment = rows(on, types), y = rows(on, count), d_word = on.zeros_wide({vocabulary, width}), d_segment = on.zeros_wide({types, width});
        const std::int64_t scratch_rows = embedding_scratch_rows(count, types);
        const DeviceTensor scratch = on.scratch({scratch_rows, width});
        const Counters c = counters_of(on, [&] {
            embedding(on.stream(), {.ids = id, .word = word, .segment = segment, .y = y});
            embedding_backward(on.stream(), {.ids = id, .tokens = order, .begin = begin, .dy = y, .d_word = d_word, .d_segment = d_segment, .scratch = scratch});
        });
        const std::int64_t touched = static_cast<std::int64_t>(groups.begin.size()) - 1;  // rows of the table
        std::int64_t later = 0;                                                             // pieces behind the first
        for (std::size_t g = 0; g + 1 < groups.begin.size(); ++g) later += (groups.begin[g + 1] - groups.begin[g] - 1) / 32;
        BOOST_TEST(later > 0);
        const std::int64_t wide_row = width * 4, lists = 4 * (2 * count + touched);
        check_traffic(on, c, "embedding", count * (3 * row + 4));  // a token's row of the segment table, from a cache
        check_traffic(on, c, "embedding_pieces", count * row + (2 * touched + later) * wide_row + lists);
        const std::int64_t blocks = (count + embedding_segment_tokens - 1) / embedding_segment_tokens;
        check_traffic(on, c, "segment_blocks", count * row + blocks * types * wide_row);
        check_traffic(on, c, "segment_join", (blocks + 2) * types * wide_row);
    }
}

BOOST_AUTO_TEST_CASE(rows_taken_and_given_back) {
    constexpr std::int64_t count = 512, taken = 77;
    for (const DeviceCase& on : gpu_cases()) {
        const std::int64_t row = width * size_of(on.dtype);
        const DeviceTensor x = rows(on, count), y = rows(on, taken), which = on.put_list(counted(taken, [](auto i) { return i * 13 / 2; }));
        const Counters c = counters_of(on, [&] {
            gather(on.stream(), {.x = x, .rows = which, .y = y});
            gather_backward(on.stream(), {.dy = y, .rows = which, .dx = x});
        });
        check_traffic(on, c, "gather", taken * (2 * row + 4));
        check_traffic(on, c, "gather_backward", count * row + taken * (row + 4));
    }
}

BOOST_AUTO_TEST_CASE(softmax_over_a_vocabulary) {
    constexpr std::int64_t m = 16, v = 12000, parts = 2, many = 512;
    for (const DeviceCase& on : gpu_cases()) {
        const DeviceTensor logits = on.put_wide({m, v}, numbers(m * v, 2)), targets = on.put_list(counted(m, [](auto i) { return 701 * i; }));
        const DeviceTensor stats = on.zeros_wide({4, m}), d = on.zeros({m, v});
        const DeviceTensor of_ranks = on.put_wide({parts, 4, many}, counted(parts * 4 * many, [](auto i) { return 1 + i % 7; })), whole = on.zeros_wide({4, many});
        const DeviceTensor many_targets = on.put_list(counted(many, [](auto i) { return i; })), sums(on.device, {2}, Dtype::f64);
        const Counters c = counters_of(on, [&] {
            softmax_stats(on.stream(), {.logits = logits, .targets = targets, .stats = stats});
            cross_entropy_backward(on.stream(), {.logits = logits, .targets = targets, .whole_stats = stats, .d_logits = d});
            join_softmax_stats(on.stream(), {.parts = of_ranks, .whole = whole});
            cross_entropy_sums(on.stream(), {.whole_stats = whole, .targets = many_targets, .sums = sums});
        });
        check_traffic(on, c, "softmax_stats", m * (4 * v + 4 + 4 + 16));  // the target's logit is read again
        check_traffic(on, c, "cross_entropy_backward", m * (v * (4 + size_of(on.dtype)) + 4 + 8));
        check_traffic(on, c, "join_softmax_stats", 16 * many * (parts + 1));
        check_traffic(on, c, "cross_entropy_sums", 20 * many);
    }
}

BOOST_AUTO_TEST_CASE(an_update) {
    constexpr std::int64_t n = 3 * 4096, segment_count = 3;
    const DeviceCase on{Device::cuda, Dtype::f32};
    std::vector<double> bytes;
    for (std::int64_t i = 0; i < segment_count; ++i) {
        const Segment s{i * 4096, (i + 1) * 4096, i};
        const auto* raw = reinterpret_cast<const std::uint8_t*>(&s);
        bytes.insert(bytes.end(), raw, raw + sizeof s);
    }
    const DeviceTensor segments = to_device(on.device, {segment_count, sizeof(Segment)}, Dtype::u8, bytes);
    const DeviceTensor weight = rows(on, 1, n), m = rows(on, 1, n), v = on.put({1, n}, counted(n, [](auto) { return 0.5; })), g = rows(on, 1, n);
    const auto doubles = [&](Shape shape, double x) { return to_device(on.device, shape, Dtype::f64, std::vector<double>(static_cast<std::size_t>(shape.count()), x)); };
    const DeviceTensor sums = doubles({segment_count, sum_columns}, 0), control = doubles({control_slots}, 1), rates = doubles({segment_count}, 0.01);
    const OptimizerShard shard{.weight = weight, .m = m, .v = v, .gradient = g, .segments = segments};
    const Counters c = counters_of(on, [&] {
        gradient_sums(on.stream(), shard, sums);
        update_moments(on.stream(), shard, {}, control, sums);
        apply_update(on.stream(), shard, {}, control, rates);
    });
    const std::int64_t row = segment_count * (sum_columns * 8);
    check_traffic(on, c, "gradient_sums", 4 * n + row);
    check_traffic(on, c, "update_moments", 24 * n + row);
    check_traffic(on, c, "apply_update", 16 * n);
}

/// Where the library has no fused epilogue. In f32 a thread's eight columns are two accesses to one sector, the second of which is met in L1.
BOOST_AUTO_TEST_CASE(relu_by_its_mask) {
    constexpr std::int64_t m = 16, n = 1024;
    for (const DeviceCase& on : gpu_cases()) {
        const DeviceTensor c = rows(on, m, n), mask(on.device, {m, relu_mask_bytes(n)}, Dtype::u8);
        const Counters counters = counters_of(on, [&] {
            cuda::relu_to_mask(on.stream(), c, mask);
            cuda::relu_by_mask(on.stream(), c, mask);
        });
        for (const char* kernel : {"relu_to_mask", "relu_by_mask"})
            check_traffic(on, counters, kernel, m * (2 * n * size_of(on.dtype) + relu_mask_bytes(n)), most_bytes, on.dtype == Dtype::f32 ? 0.5 : least_use);
    }
}

BOOST_AUTO_TEST_CASE(attention_meets_no_bank_twice) {
    for (const DeviceCase& on : gpu_cases()) {
        const std::int64_t head = 64, t = 204;
        const DeviceTensor qkv = on.put({t, 3, 1, head}, numbers(t * 3 * head, 1)), bounds = on.put_list({0, 3, 67, 204}), sample = on.put_list({1, 2, 3});
        const DeviceTensor context = on.zeros({t, 1, head}), log_sum = on.zeros_wide({1, t}), d_context = on.put({t, 1, head}, numbers(t * head, 2));
        const DeviceTensor d_qkv = on.zeros({t, 3, 1, head}), scratch = on.scratch({1, t}), table = table_for(on, 137, head);
        const Dropout dropout{.rate = 0.1, .seed = 1, .detail = 2};
        const Counters c = counters_of(on, [&] {
            attention(on.stream(), {.qkv = qkv, .rotary = table, .cu_seqlens = bounds, .sample = sample, .context = context, .log_sum = log_sum, .scale = 0.125,
                                    .longest = 137, .dropout = dropout});
            attention_backward(on.stream(), {.qkv = qkv, .rotary = table, .cu_seqlens = bounds, .sample = sample, .context = context, .log_sum = log_sum,
                                             .d_context = d_context, .d_qkv = d_qkv, .scratch = scratch, .scale = 0.125, .longest = 137, .dropout = dropout});
        });
        BOOST_TEST(c.size() == 3);
        for (const auto& [kernel, counts] : c) {
            BOOST_TEST(counts.shared_accesses > 0);
            check_shared(on.name() + ' ' + kernel, counts);
        }
    }
}
