#pragma once
/// bench.h5: `/bench`, a row a measurement, and `/kernels`, a row an op of one. Tables only grow: a measurement makes the file anew with
/// its rows behind those that are there, and a rename puts it in place of the old one. Programs that add at once wait for each other.

#include "app/bench_ops.hpp"
#include "comm/communicator.hpp"

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

/// Rank 0 does `work`, which says what is wrong, or nothing; that, or the error it meets, is returned on every rank, so that all end.
template <class Work>
std::string trouble_on_rank_0(Communicator& world, const Work& work) {
    std::string trouble;
    if (world.rank() == 0) {
        try {
            trouble = work();
        } catch (const std::exception& e) {
            trouble = e.what();
        }
    }
    world.broadcast(trouble, 0);
    return trouble;
}

/// Why no file can be written at this path, or empty: no folder, no permission, a folder in its place.
std::string place_trouble(const std::string& path);
/// The same of adding a row: also a file of another kind.
std::string bench_file_trouble(const std::string& path);
/// Adds a row and returns its number, from 0. Columns that only some rows have are NaN or empty in the others.
std::int64_t append_to_bench_file(const std::string& path, const BenchRow& row);

}  // namespace rf::app
