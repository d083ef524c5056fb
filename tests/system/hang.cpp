/// Ranks of which one stops coming to their collectives; hang_test.py starts it under mpirun. Arguments: a folder, the collective, the
/// rank that stops, and how: "stopped" (SIGSTOP) or "busy" (it sleeps elsewhere).

#include "comm/communicator.hpp"
#include "core/log.hpp"
#include "train/watchdog.hpp"

#include <chrono>
#include <csignal>
#include <string>
#include <thread>
#include <vector>

using namespace rf;

namespace {

void meet(Communicator& all, const std::string& kind) {
    Stream stream;
    const std::int64_t ranks = all.size(), n = 3000;
    std::vector<float> one(static_cast<std::size_t>(n)), many(one.size() * static_cast<std::size_t>(ranks));
    std::vector<std::int64_t> begin;
    for (std::int64_t r = 0; r <= ranks; ++r) begin.push_back(r * n * 4);
    if (kind == "barrier") all.barrier();
    else if (kind == "all_reduce") all.all_reduce(stream, view(one.data(), {n}), ReduceOp::sum);
    else if (kind == "all_gather") all.all_gather(stream, view(std::as_const(one).data(), {n}), view(many.data(), {ranks * n}));
    else if (kind == "broadcast") all.broadcast(stream, view(one.data(), {n}), 0), all.barrier();
    else if (kind == "all_to_all") {
        std::vector<float> other(many.size());
        all.all_to_all(stream, many.data(), begin, other.data(), begin);
    } else fail("no collective ", kind);
}

}  // namespace

int main(int argc, char** argv) {
    World world(argc, argv);
    Communicator& all = world.communicator();
    log::set_rank(all.rank(), all.size());
    const std::string folder = argv[1], kind = argv[2], how = argv[4];
    const int gone = std::stoi(argv[3]);
    std::vector<std::string> places;
    for (int r = 0; r < all.size(); ++r) places.push_back(message("place ", r));
    Watchdog watchdog({.seconds = 2, .factor = 20, .abort = true}, folder, "this run", all.rank(), places, world.progress());
    for (int update = 1; update <= 20; ++update) {
        watchdog.begin_update(update);
        if (update == 10 && all.rank() == gone) {
            if (how == "stopped") std::raise(SIGSTOP);
            else std::this_thread::sleep_for(std::chrono::minutes(1));
        }
        meet(all, kind);
        watchdog.note_update(0.001);
    }
    log::all("done");
    return 0;
}
