#pragma once
/// bench.h5: `/bench`, a row a measurement, and `/kernels`, a row an op of one. Tables only grow: a measurement makes the file anew with
/// its rows behind those that are there, and a rename puts it in place of the old one. Programs that add at once wait for each other.

#include "app/bench_ops.hpp"

#include <string>
#include <vector>

namespace rf::app {

/// One measurement: what was measured and what was found, as columns of `/bench`, and its ops. Text is an attribute of the file too, of its
/// last measurement.
struct BenchRow {
    struct Text {
        std::string name, value, description;
    };
    struct Number {
        std::string name;
        double value;
        std::string units, description;
    };
    std::vector<Text> texts;
    std::vector<Number> numbers;
    std::vector<OpSum> ops;
};

/// Why no row can be added to this path, or empty: as of place_trouble, or a file of another kind.
std::string bench_file_trouble(const std::string& path);
/// Adds a row and returns its number, from 0. Columns that only some rows have are NaN or empty in the others.
std::int64_t append_to_bench_file(const std::string& path, const BenchRow& row);

}  // namespace rf::app
