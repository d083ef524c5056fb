#pragma once
/// The table of ops that `bench` prints.

#include "core/op_log.hpp"

#include <string>
#include <vector>

namespace rf::app {

/// All ops of one name and shape, an update.
struct OpSum {
    std::string name;
    double calls = 0, seconds = 0, flops = 0, bytes = 0;
};

/// Sums of the ops of so many updates, those that took longest first.
std::vector<OpSum> sums_of(const std::vector<LoggedOp>& ops, std::int64_t updates);
/// Bytes read and written a second by a copy that no cache holds; best of five.
double copy_rate();
/// Where the `step` seconds of an update go, and how far each op is from what bounds it: FLOP/s of products or bytes/s of copies.
void print_ops(const std::vector<OpSum>& ops, double step, double product_peak, double copy_peak);

}  // namespace rf::app
