#pragma once
/// The table of ops that `bench` prints and keeps.

#include "core/op_log.hpp"

#include <string>
#include <vector>

namespace rf::app {

/// All ops of one name, an update; products that differ in their number of rows alone are one.
struct OpSum {
    std::string name;
    LoggedOp::Kind kind = LoggedOp::Kind::compute;
    double calls = 0, seconds = 0, flops = 0, bytes = 0;
};

/// Of the steady clock.
double seconds();
double median(std::vector<double> list);

/// Sums of the ops of so many updates, those that took longest first. A product is named by its shape m x n x k; the axis of tokens or
/// targets (k of a TN product, else m), which differs between batches, is a mean then: "gemm NT ~160 x 12000 x 384".
std::vector<OpSum> sums_of(const std::vector<LoggedOp>& ops, std::int64_t updates);
/// Seconds of an update in collectives.
double seconds_in_collectives(const std::vector<OpSum>& ops);
/// Bytes read and written a second by a copy that no cache holds; best of five.
double copy_rate();
/// What an update would take if every op ran at its bound, FLOP/s of products or bytes/s of copies, or as fast as it did where cache let it run faster.
double least_seconds(const std::vector<OpSum>& ops, double product_peak, double copy_peak);
/// Where the `step` seconds of the mean update go, and how far each op is from what bounds it: FLOP/s of products or bytes/s of copies.
void print_ops(const std::vector<OpSum>& ops, double step, double product_peak, double copy_peak);

}  // namespace rf::app
