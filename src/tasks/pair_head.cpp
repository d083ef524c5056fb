#include "tasks/pair_head.hpp"

#include "kernels/elementwise.hpp"
#include "kernels/gemm.hpp"

#include <algorithm>
#include <cmath>

namespace rf::tasks {

namespace {
/// [S+1] where sequences begin, on the host. Waits.
std::vector<std::int32_t> bounds_of(const StepContext& step) {
    std::vector<std::int32_t> cu(static_cast<std::size_t>(step.batch.cu_seqlens.count()));
    download(step.stream, step.batch.cu_seqlens, cu.data());
    return cu;
}
}  // namespace

PairHead::PairHead(const ModelConfig& model, const Spec& spec, ParamLayout& layout) : spec_(spec) {
    RF_REQUIRE(spec.types > 0 && spec.ordered >= 0 && spec.ordered <= spec.types, "task ", spec.task, ": ", spec.ordered, " ordered types of ", spec.types);
    RF_REQUIRE(spec.size > 0 && spec.size % 2 == 0, "task ", spec.task, ": a head of size ", spec.size, "; it must be even, since channels are turned in pairs");
    const std::int64_t width = 2 * spec.size;
    dense_ = layout.add({.name = head_parameter(spec.task, "dense"), .shape = {groups() * width, model.hidden_size}, .fan = model.hidden_size});
    if (spec.efficient) bias_dense_ = layout.add({.name = head_parameter(spec.task, "bias_dense"), .shape = {2 * spec.types, width}, .fan = width});
}

PairHead::Forward PairHead::forward(const StepContext& step, const ParamView& weights, const ConstTensor& x, const HeadLabels& labels) const {
    const std::int64_t t = x.shape[0], width = groups() * 2 * spec_.size;
    const Dtype wide = accumulator_of(x.dtype);
    const Tensor q = step.arena.tensor({groups(), t, spec_.size}, wide), k = step.arena.tensor_like(q), dense = step.arena.tensor({t, width}, wide);
    RF_REQUIRE(labels.rotary && labels.rotary.shape[0] >= step.batch.longest, "task ", spec_.task, ": angles for ", labels.rotary ? labels.rotary.shape[0] : 0,
               " positions; the longest sequence has ", step.batch.longest);
    gemm(step.stream, {.a = x, .b = weights[dense_], .trans_b = true, .c = dense});
    token_pair_vectors(step.stream, {.x = dense, .position = step.batch.origin.position, .rotary = labels.rotary, .interleaved = spec_.efficient, .q = q, .k = k});
    Forward out{.narrow = {},
                .pairs = {.q = q, .k = k, .bias = {}, .cu_seqlens = step.batch.cu_seqlens, .visible = labels.visible, .first_is_visible = spec_.first_is_visible,
                          .types = spec_.types, .ordered = spec_.ordered, .longest = step.batch.longest, .kind = spec_.kind, .cells = labels.cells,
                          .cell_begin = labels.cell_begin}};
    if (!spec_.efficient) return out;
    out.narrow = dense;
    if (x.dtype != wide) {
        out.narrow = step.arena.tensor(dense.shape, x.dtype);
        cast(step.stream, {.x = dense, .y = out.narrow});
    }
    const Tensor bias = step.arena.tensor({t, 2 * spec_.types}, wide);
    gemm(step.stream, {.a = out.narrow, .b = weights[bias_dense_], .trans_b = true, .c = bias});
    out.pairs.bias = bias;
    return out;
}

Tensor PairHead::loss(const StepContext& step, const TokenPairs& pairs, const Tensor& sums) const {
    const std::int64_t t = pairs.q.shape[1], s = pairs.cu_seqlens.shape[0] - 1;
    const Tensor stats = step.arena.tensor({4, spec_.types, s}, pairs.q.dtype);
    const ArenaScope scratch(step.arena);
    const Tensor rows = step.stream.device() == Device::cuda ? step.arena.tensor({4, spec_.types, t}, pairs.q.dtype) : Tensor();
    token_pair_loss(step.stream, {.pairs = pairs, .stats = stats, .rows = rows, .sums = sums});
    return stats;
}

void PairHead::run(const StepContext& step, const ParamView& weights, const ParamView* grads, const ConstTensor& x, const HeadLabels& labels,
                   const Scalar& factor, const Tensor& dx, const Tensor& sums) const {
    const ArenaScope scratch(step.arena);
    const Forward saved = forward(step, weights, x, labels);
    const Tensor stats = loss(step, saved.pairs, sums);
    if (!grads) return;
    const Timed timed(step.backward, step.stream);
    backward(step, weights, *grads, x, labels, saved, stats, factor, dx);
}

void PairHead::backward(const StepContext& step, const ParamView& weights, const ParamView& grads, const ConstTensor& x, const HeadLabels& labels,
                        const Forward& saved, const Tensor& stats, const Scalar& factor, const Tensor& dx) const {
    const TokenPairs& pairs = saved.pairs;
    const std::int64_t t = x.shape[0];
    const Dtype wide = pairs.q.dtype;
    const auto narrowed = [&](const Tensor& y) {
        if (x.dtype == wide) return y;
        const Tensor z = step.arena.tensor(y.shape, x.dtype);
        cast(step.stream, {.x = y, .y = z});
        return z;
    };
    const Tensor dq = step.arena.tensor(pairs.q.shape, wide), dk = step.arena.tensor_like(dq), d_dense = step.arena.tensor({t, groups() * 2 * spec_.size}, wide);
    const Tensor d_bias = spec_.efficient ? step.arena.tensor(pairs.bias.shape, wide) : Tensor();
    token_pair_backward(step.stream, {.pairs = pairs, .stats = stats, .factor = factor, .dq = dq, .dk = dk, .d_bias = d_bias});
    token_pair_vectors_backward(step.stream, {.dq = dq, .dk = dk, .position = step.batch.origin.position, .rotary = labels.rotary, .interleaved = spec_.efficient, .dx = d_dense});
    if (spec_.efficient) {
        const Tensor d = narrowed(d_bias);
        gemm(step.stream, {.a = d, .trans_a = true, .b = saved.narrow, .c = grads[bias_dense_], .beta = 1});
        gemm(step.stream, {.a = d, .b = weights[bias_dense_], .c = d_dense, .beta = 1});
    }
    const Tensor d = narrowed(d_dense);
    gemm(step.stream, {.a = d, .trans_a = true, .b = x, .c = grads[dense_], .beta = 1});
    gemm(step.stream, {.a = d, .b = weights[dense_], .c = dx});
}

Tensor PairHead::stats(const StepContext& step, const ParamView& weights, const ConstTensor& x, const HeadLabels& labels, bool first_is_visible) const {
    RF_REQUIRE(spec_.kind == TokenPairKind::softmax, "task ", spec_.task, ": there is a best cell where one is right; this head finds any number");
    const Tensor result = step.arena.tensor({4, spec_.types, step.batch.cu_seqlens.shape[0] - 1}, accumulator_of(x.dtype));
    const ArenaScope scratch(step.arena);
    TokenPairs pairs = forward(step, weights, x, labels).pairs;
    pairs.first_is_visible = first_is_visible;
    pairs.cells = pairs.cell_begin = {};
    copy(step.stream, loss(step, pairs, {}), result);
    return result;
}

Outputs PairHead::outputs(const StepContext& step, const ParamView& weights, const ConstTensor& x, const HeadLabels& labels) const {
    if (spec_.kind == TokenPairKind::softmax) return best_answers(step, weights, x, labels);
    std::vector<std::int64_t> begin;
    const std::vector<FoundCell> all = found(step, weights, x, labels, begin);
    const std::vector<std::int32_t> cu = bounds_of(step);
    Outputs out;
    for (std::size_t s = 0; s + 1 < cu.size(); ++s) {
        auto from = all.begin() + begin[s];
        const auto end = all.begin() + begin[s + 1];
        while (from != end) {
            const auto next = std::find_if(from, end, [&](const FoundCell& cell) { return cell.type != from->type; });
            std::vector<FoundCell> cells(from, next);
            keep_best(cells, static_cast<std::size_t>(cu[s + 1] - cu[s]));
            out.cells.insert(out.cells.end(), cells.begin(), cells.end());
            from = next;
        }
        out.cell_begin.push_back(static_cast<std::int64_t>(out.cells.size()));
    }
    return out;
}

Outputs PairHead::best_answers(const StepContext& step, const ParamView& weights, const ConstTensor& x, const HeadLabels& labels) const {
    RF_REQUIRE(spec_.types == 1, "task ", spec_.task, ": one answer a sequence, of one type");
    const std::int64_t sequences = step.batch.cu_seqlens.shape[0] - 1;
    const auto host = [&](const Tensor& t) {
        std::vector<double> values(static_cast<std::size_t>(t.count()));
        if (t.dtype == Dtype::f64) {
            download(step.stream, t, values.data());
        } else {
            std::vector<float> narrow(values.size());
            download(step.stream, t, narrow.data());
            std::copy(narrow.begin(), narrow.end(), values.begin());
        }
        return values;
    };
    const std::vector<double> answers = host(best(step, weights, x, labels));
    const std::vector<double> all = spec_.first_is_visible ? host(stats(step, weights, x, labels, true)) : answers;
    const std::vector<std::int32_t> cu = bounds_of(step);
    Outputs out;
    const auto s = static_cast<std::size_t>(sequences);
    for (std::size_t i = 0; i < s; ++i) {
        const double log_sum = answers[i], score = answers[2 * s + i];
        const auto cell = static_cast<std::int64_t>(answers[3 * s + i]);
        const std::int64_t n = cu[i + 1] - cu[i];
        if (cell < 0) out.cells.push_back({});  // nothing to cut an answer from
        else out.cells.push_back({0, static_cast<std::int32_t>(cell / n), static_cast<std::int32_t>(cell % n), score});
        out.cell_begin.push_back(static_cast<std::int64_t>(i) + 1);
        out.probability.push_back(cell < 0 ? 0.0F : static_cast<float>(std::exp(score - log_sum)));
        out.no_answer.push_back(cell < 0 || (spec_.first_is_visible && all[3 * s + i] == 0));
    }
    return out;
}

std::vector<FoundCell> PairHead::found(const StepContext& step, const ParamView& weights, const ConstTensor& x, const HeadLabels& labels,
                                       std::vector<std::int64_t>& begin) const {
    const ArenaScope scratch(step.arena);
    const TokenPairs pairs = forward(step, weights, x, labels).pairs;
    const std::int64_t t = x.shape[0];
    const Tensor counts = step.arena.tensor({spec_.types, t}, Dtype::i32), places = step.arena.tensor_like(counts);
    token_pair_cells(step.stream, {.pairs = pairs, .counts = counts});
    std::vector<std::int32_t> count(static_cast<std::size_t>(counts.count())), place(count.size());
    download(step.stream, counts, count.data());
    const std::vector<std::int32_t> cu = bounds_of(step);
    std::int64_t total = 0;
    begin.assign(1, 0);
    for (std::size_t s = 0; s + 1 < cu.size(); ++s) {
        for (std::int64_t type = 0; type < spec_.types; ++type)
            for (std::int64_t i = cu[s]; i < cu[s + 1]; ++i) {
                const auto at = static_cast<std::size_t>(type * t + i);
                place[at] = static_cast<std::int32_t>(total);
                total += count[at];
                RF_REQUIRE(total < std::int64_t{1} << 31, "task ", spec_.task, ": more than 2^31 cells with a score above 0 in one batch");
            }
        begin.push_back(total);
    }
    upload(step.stream, place.data(), places);
    const Tensor cells = step.arena.tensor({total, 3}, Dtype::i32), scores = step.arena.tensor({total}, pairs.q.dtype);
    if (total == 0) return {};
    token_pair_cells(step.stream, {.pairs = pairs, .begin = places, .found = cells, .scores = scores});
    std::vector<std::int32_t> cell(static_cast<std::size_t>(3 * total));
    download(step.stream, cells, cell.data());
    std::vector<FoundCell> out(static_cast<std::size_t>(total));
    const auto fill = [&](auto type) {
        std::vector<decltype(type)> score(out.size());
        download(step.stream, scores, score.data());
        for (std::size_t i = 0; i < out.size(); ++i) out[i] = {cell[3 * i], cell[3 * i + 1], cell[3 * i + 2], static_cast<double>(score[i])};
    };
    if (scores.dtype == Dtype::f64) fill(double{});
    else fill(float{});
    return out;
}

}  // namespace rf::tasks
