#include "app/bench_ops.hpp"

#include "core/buffer.hpp"
#include "core/log.hpp"
#include "kernels/elementwise.hpp"

#include <algorithm>
#include <cstdio>
#include <map>
#include <utility>

namespace rf::app {

std::vector<OpSum> sums_of(const std::vector<LoggedOp>& ops, std::int64_t updates) {
    std::map<std::pair<std::string, std::array<std::int64_t, 3>>, OpSum> found;
    for (const LoggedOp& op : ops) {
        OpSum& sum = found[{op.name, op.shape}];
        const auto& [m, n, k] = op.shape;
        if (sum.calls == 0) sum.name = m > 0 ? message(op.name, ' ', m, " x ", n, " x ", k) : op.name;
        const double each = 1 / static_cast<double>(updates);
        sum.calls += each, sum.seconds += op.seconds() * each, sum.flops += op.flops * each, sum.bytes += op.bytes * each;
    }
    std::vector<OpSum> result;
    for (const auto& [key, sum] : found) result.push_back(sum);
    std::stable_sort(result.begin(), result.end(), [](const OpSum& a, const OpSum& b) { return a.seconds > b.seconds; });
    return result;
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
