#include "app/bench_ops.hpp"

#include "core/buffer.hpp"
#include "core/log.hpp"
#include "kernels/elementwise.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <map>
#include <string_view>
#include <utility>

namespace rf::app {

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

double median(std::vector<double> list) {
    std::sort(list.begin(), list.end());
    return list.empty() ? 0 : list[list.size() / 2];
}

namespace {

/// Ops summed, and of products the axis that differs between batches.
struct Group {
    OpSum sum;
    std::array<std::int64_t, 3> shape{};
    std::size_t axis = 0;
    std::int64_t least = 0, most = 0;
    double calls = 0, total = 0;

    std::string name(const char* op) const {
        if (shape[0] == 0) return op;
        std::array<std::string, 3> text;
        for (std::size_t i = 0; i < 3; ++i) text[i] = message(shape[i]);
        text[axis] = message(least < most ? "~" : "", static_cast<std::int64_t>(std::llround(total / calls)));
        return message(op, ' ', text[0], " x ", text[1], " x ", text[2]);
    }
};

}  // namespace

std::vector<OpSum> sums_of(const std::vector<LoggedOp>& ops, std::int64_t updates) {
    std::map<std::pair<std::string, std::array<std::int64_t, 3>>, Group> found;
    const double each = 1 / static_cast<double>(updates);
    for (const LoggedOp& op : ops) {
        const std::size_t axis = std::string_view(op.name).ends_with(" TN") ? 2 : 0;
        auto key = op.shape;
        key[axis] = 0;
        Group& group = found[{op.name, key}];
        const std::int64_t length = op.shape[axis];
        group.shape = op.shape, group.axis = axis;
        group.least = group.calls == 0 ? length : std::min(group.least, length);
        group.most = std::max(group.most, length);
        group.calls += 1, group.total += static_cast<double>(length);
        OpSum& sum = group.sum;
        sum.kind = op.kind;
        sum.calls += each, sum.seconds += op.seconds() * each, sum.flops += op.flops * each, sum.bytes += op.bytes * each;
    }
    std::vector<OpSum> result;
    for (auto& [key, group] : found) {
        group.sum.name = group.name(key.first.c_str());
        result.push_back(group.sum);
    }
    std::stable_sort(result.begin(), result.end(), [](const OpSum& a, const OpSum& b) { return a.seconds > b.seconds; });
    return result;
}

double seconds_in_collectives(const std::vector<OpSum>& ops) {
    double sum = 0;
    for (const OpSum& op : ops) sum += op.kind == LoggedOp::Kind::communication ? op.seconds : 0;
    return sum;
}

double copy_rate() {
    constexpr std::int64_t n = 64 << 20;
    const Buffer from(n), to(n);
    Stream stream;
    double best = 0;
    for (int i = 0; i < 5; ++i) {
        OpLog log;
        copy(stream, from.tensor({n / 4}, Dtype::f32), to.tensor({n / 4}, Dtype::f32));
        best = std::max(best, 2.0 * static_cast<double>(n) / log.ops.front().seconds());
    }
    return best;
}

double least_seconds(const std::vector<OpSum>& ops, double product_peak, double copy_peak) {
    double sum = 0;
    for (const OpSum& op : ops) sum += std::min(op.seconds, std::max(op.flops / product_peak, op.bytes / copy_peak));
    return sum;
}

void print_ops(const std::vector<OpSum>& ops, double step, double product_peak, double copy_peak) {
    log::info("op                                    calls   ms/update  share  GFLOP/s   GB/s  of peak");
    double rest = step;
    char text[200];
    for (const OpSum& op : ops) {
        rest -= op.seconds;
        const double bound = std::max(op.flops / product_peak, op.bytes / copy_peak);
        std::snprintf(text, sizeof text, "%-36s %6.0f  %10.3f %5.1f %%  %7.1f %6.1f   %4.0f %%", op.name.c_str(), op.calls, 1e3 * op.seconds, 100 * op.seconds / step,
                      1e-9 * op.flops / op.seconds, 1e-9 * op.bytes / op.seconds, 100 * bound / op.seconds);
        log::info(text);
    }
    std::snprintf(text, sizeof text, "%-36s %6s  %10.3f %5.1f %%", "between ops", "", 1e3 * rest, 100 * rest / step);
    log::info(text);
}

}  // namespace rf::app
