#include "train/rank_times.hpp"

#include "core/log.hpp"

#include <algorithm>
#include <cstdio>
#include <unistd.h>

namespace rf {

namespace {
/// The element at this share of the sorted list.
double quantile(std::vector<double> list, double share) {
    const auto at = list.begin() + static_cast<std::ptrdiff_t>(std::min(list.size() - 1, static_cast<std::size_t>(share * static_cast<double>(list.size()))));
    std::nth_element(list.begin(), at, list.end());
    return *at;
}
}  // namespace

std::vector<std::string> places_of(Communicator& world) {
    constexpr std::int64_t room = 80;
    std::string host(65, '\0');
    gethostname(host.data(), host.size() - 1);
    std::string mine = message(host.c_str(), ", process ", getpid());
    mine.resize(room, '\0');
    std::string all(static_cast<std::size_t>(room * world.size()), '\0');
    Stream stream;
    world.all_gather(stream, {mine.data(), {room}, Dtype::u8}, {all.data(), {room * world.size()}, Dtype::u8});
    std::vector<std::string> result;
    for (int r = 0; r < world.size(); ++r) result.emplace_back(all.c_str() + r * room);
    return result;
}

const std::vector<Column>& RankTimes::columns() {
    static const std::vector<Column> all = {
        {"step", "updates", "updates done"},
        {"rank", "1", "rank of the world"},
        {"updates", "1", "updates that the figures are of"},
        {"seconds_p50", "s", "median wall time of an update"},
        {"seconds_p90", "s", "ninth decile"},
        {"seconds_max", "s", "longest"},
        {"own_p50", "s", "median of the wall time less the time spent in collectives on host memory: what the rank itself needs"},
    };
    return all;
}

void RankTimes::compare(Communicator& world, const std::vector<std::string>& places, Results* results, std::int64_t step) {
    constexpr double slow = 1.25;
    const auto ranks = static_cast<std::size_t>(world.size());
    if (ranks == 1 || walls_.empty()) return;
    const double mine[4] = {quantile(walls_, 0.5), quantile(walls_, 0.9), quantile(walls_, 1), quantile(own_, 0.5)};
    std::vector<double> all(ranks * 4), own;
    Stream stream;
    world.all_gather(stream, {mine, {4}, Dtype::f64}, {all.data(), {static_cast<std::int64_t>(all.size())}, Dtype::f64});
    for (std::size_t r = 0; r < ranks; ++r) {
        const double* row = all.data() + r * 4;
        own.push_back(row[3]);
        if (results) results->append("ranks", {static_cast<double>(step), static_cast<double>(r), static_cast<double>(walls_.size()), row[0], row[1], row[2], row[3]});
    }
    const double usual = quantile(own, 0.5);
    const auto slowest = std::max_element(own.begin(), own.end());
    if (*slowest > slow * usual && *slowest > usual + 0.001) {
        char text[120];
        std::snprintf(text, sizeof text, "works %.3f s on an update, the ranks' median is %.3f s: all wait for it", *slowest, usual);
        const auto rank = static_cast<std::size_t>(slowest - own.begin());
        log::info("note: rank ", rank, " (", places[rank], ") ", text);
    }
    walls_.clear();
    own_.clear();
}

}  // namespace rf
