#pragma once
/// A head on given hidden states, on any device: operands and results are doubles on the host.

#include "kernels/gather.hpp"
#include "kernels/rotary.hpp"
#include "tasks/heads.hpp"
#include "tests/kernels/device_case.hpp"
#include "tests/kernels/gradient_check.hpp"

#include <algorithm>
#include <memory>
#include <vector>

namespace rf::test {

struct HeadResult {
    double loss = 0, correct = 0;
    std::vector<double> dx, grads;
};

/// Lists of one packed batch; those a head does not need are empty.
struct HeadBatch {
    std::vector<double> lengths, label, score, lists, cells, cell_begin, visible;
    std::int64_t padding = 0;            ///< tokens and
    std::int64_t padded_sequences = 0;   ///< sequences that do not count

    std::int64_t sequences() const { return static_cast<std::int64_t>(lengths.size()) + padded_sequences; }
    std::int64_t tokens() const { return static_cast<std::int64_t>(cu_seqlens().back()) + padding; }
    std::vector<double> cu_seqlens() const {
        std::vector<double> cu{0};
        for (const double n : lengths) cu.push_back(cu.back() + n);
        cu.resize(cu.size() + static_cast<std::size_t>(padded_sequences), cu.back());
        return cu;
    }
    std::vector<double> rows() const {
        std::vector<double> first = cu_seqlens();
        first.resize(lengths.size());
        first.resize(static_cast<std::size_t>(sequences()), -1);
        return first;
    }
    std::vector<double> position() const {
        std::vector<double> p;
        for (const double n : lengths)
            for (double t = 0; t < n; ++t) p.push_back(t);
        p.resize(static_cast<std::size_t>(tokens()), 0);
        return p;
    }
    std::int64_t longest() const {
        double most = 0;
        for (const double n : lengths) most = std::max(most, n);
        return static_cast<std::int64_t>(most);
    }
};

template <class Head>
class HeadCase {
public:
    static constexpr std::int64_t hidden = 8;

    explicit HeadCase(const typename Head::Spec& spec, std::int64_t rotary_size = 2) : head(config(), spec, layout), rotary_size_(rotary_size) {
        for (const Device device : devices()) arenas_.emplace_back(device);
    }

    static ModelConfig config() {
        ModelConfig c;
        c.hidden_size = hidden, c.num_attention_heads = 2, c.num_hidden_layers = 1, c.vocab_size = 12, c.intermediate_size = 16;
        return c;
    }
    /// Weights that let everything matter.
    std::vector<double> weights() const { return numbers(layout.size(), 11); }

    /// body(step, weights view, what the head reads of x, labels) on a device.
    template <class Body>
    void with(const DeviceCase& on, const HeadBatch& b, const std::vector<double>& w, const std::vector<double>& x, const Body& body) const {
        const ModelConfig model = config();
        Arena& arena = *std::find_if(arenas_.begin(), arenas_.end(), [&](const Arena& a) { return a.device() == on.device; });
        const ArenaScope scratch(arena);
        const auto comm = make_self_communicator();
        const auto list = [&](const std::vector<double>& v, std::int64_t width = 1) {
            const auto n = static_cast<std::int64_t>(v.size());
            return to_device(on.device, width == 1 ? Shape{n} : Shape{n / width, width}, Dtype::i32, v);
        };
        const DeviceTensor flat = on.put({layout.size()}, w), hidden_states = on.put({b.tokens(), hidden}, x), cu = list(b.cu_seqlens()), rows = list(b.rows()),
                           position = list(b.position()), label = list(b.label), lists = list(b.lists), cells = list(b.cells, 3), cell_begin = list(b.cell_begin),
                           visible = list(b.visible, 2), score = to_device(on.device, {static_cast<std::int64_t>(b.score.size())}, Dtype::f32, b.score);
        const DeviceTensor host(Device::cpu, {64, rotary_size_ / 2, 2}, accumulator_of(on.dtype));
        rotary_table(host);
        const DeviceTensor rotary = on.put_wide({64, rotary_size_ / 2, 2}, to_host(host));
        StepContext step{.model = model, .stream = on.stream(), .arena = arena, .tensor = *comm,
                               .batch = {.ids = position, .segments = {}, .cu_seqlens = cu, .sample = {}, .origin = {.sample = {}, .position = position}, .id_tokens = {},
                                         .id_begin = {}, .longest = b.longest()},
                               .rotary_table = {}};
        const tasks::HeadLabels labels{.label = label, .score = score, .list_begin = b.lists.empty() ? ConstTensor() : ConstTensor(lists),
                                       .cells = b.cell_begin.empty() ? ConstTensor() : ConstTensor(cells),
                                       .cell_begin = b.cell_begin.empty() ? ConstTensor() : ConstTensor(cell_begin), .visible = visible, .rotary = rotary};
        if (head.reads_every_token()) return body(step, ParamView(layout, flat), hidden_states, labels);
        step.batch.read = rows;
        const DeviceTensor first = on.put({b.sequences(), hidden}, std::vector<double>(static_cast<std::size_t>(b.sequences() * hidden)));
        gather(step.stream, {.x = hidden_states, .rows = rows, .y = first});
        body(step, ParamView(layout, flat), first, labels);
    }

    HeadResult run(const DeviceCase& on, const HeadBatch& b, const std::vector<double>& w, const std::vector<double>& x, double factor) const {
        HeadResult result;
        with(on, b, w, x, [&](const StepContext& step, const ParamView& weights, const DeviceTensor& read, const tasks::HeadLabels& labels) {
            // Gradients of parameters go on from 2, dx from what must not matter.
            const DeviceTensor grads = on.put_wide({layout.size()}, std::vector<double>(w.size(), 2)), dx = on.put({b.tokens(), hidden}, std::vector<double>(x.size(), 7));
            const ConstTensor rows = step.batch.read;
            const Tensor d_read = rows ? step.arena.tensor_like(read.tensor()) : Tensor(dx);
            const DeviceTensor sums = to_device(on.device, {2}, Dtype::f64, {10, 20}), evaluated = to_device(on.device, {2}, Dtype::f64, {10, 20});
            head.forward_backward(step, weights, ParamView(layout, grads), read, labels, factor, d_read, sums);
            if (rows) gather_backward(step.stream, {.dy = d_read, .rows = rows, .dx = dx});
            head.evaluate(step, weights, read, labels, evaluated);
            BOOST_TEST((to_host(sums) == to_host(evaluated)));
            const std::vector<double> total = to_host(sums);
            result = {total[0] - 10, total[1] - 20, to_host(dx), to_host(grads)};
            for (double& g : result.grads) g -= 2;
        });
        return result;
    }
    /// Parameters and x against central differences, relative to the largest element of each gradient.
    void check_gradients(const HeadBatch& b, double factor) const {
        const std::vector<double> w = weights(), x = numbers(b.tokens() * hidden, 12);
        const HeadResult exact = run(exact_case(), b, w, x, factor);
        const auto loss = [&](const std::vector<double>& weights, const std::vector<double>& states) {
            double total = 0;
            with(exact_case(), b, weights, states, [&](const StepContext& step, const ParamView& view, const DeviceTensor& read, const tasks::HeadLabels& labels) {
                const DeviceTensor sums = to_device(Device::cpu, {2}, Dtype::f64, {0, 0});
                head.evaluate(step, view, read, labels, sums);
                total = to_host(sums)[0];
            });
            return factor * total;
        };
        BOOST_TEST(worst_difference(x, exact.dx, [&](const auto& moved) { return loss(w, moved); }) < gradient_bound);
        BOOST_TEST(worst_difference(w, exact.grads, [&](const auto& moved) { return loss(moved, x); }) < gradient_bound);
    }
    /// Every device and dtype against f64 on the CPU, from operands as the dtype holds them. `depth`: additions on the longest way to a result.
    void check_devices(const HeadBatch& b, std::int64_t depth) const {
        for (const DeviceCase& on : device_cases()) {
            const std::vector<double> w = rounded(weights(), on.dtype), x = rounded(numbers(b.tokens() * hidden, 12), on.dtype);
            const HeadResult got = run(on, b, w, x, 0.25), expected = run(exact_case(), b, w, x, 0.25);
            check_close(got.loss, expected.loss, on.tolerance(depth));
            check_all(got.dx, expected.dx, on.tolerance(depth));
            check_all(got.grads, expected.grads, on.tolerance(depth));
        }
    }

    ParamLayout layout;
    Head head;

private:
    std::int64_t rotary_size_;
    mutable std::vector<Arena> arenas_;  ///< one a device, kept from run to run: a block of it is large
};

}  // namespace rf::test
