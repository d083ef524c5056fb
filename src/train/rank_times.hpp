#pragma once
/// How long updates take each rank, and how much of that it works itself: a slow rank is one that all others wait for.

#include "comm/communicator.hpp"
#include "train/results.hpp"

#include <string>
#include <vector>

namespace rf {

/// Where each rank runs: "host, process number". Collective.
std::vector<std::string> places_of(Communicator& world);

class RankTimes {
public:
    /// The columns of results.h5's table `ranks`.
    static const std::vector<Column>& columns();
    /// One update of this rank: wall time, and what of it was not spent in collectives.
    void note(double wall, double own) { walls_.push_back(wall), own_.push_back(own); }
    /// Rows of `ranks` (where `results` is there) of the updates since the last call, and a word about a rank that works more than a quarter longer than their
    /// median. Collective; of one rank nothing.
    void compare(Communicator& world, const std::vector<std::string>& places, Results* results, std::int64_t step);

private:
    std::vector<double> walls_, own_;  ///< seconds
};

}  // namespace rf
