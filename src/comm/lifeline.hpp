#pragma once
/// Knows within a moment when the process of another rank has ended, whatever this rank is doing: rank 0 holds a socket to
/// every other rank, and a socket of a process that ends is closed by its system (of a host that vanishes: after 17 s of
/// silence). A collective on a GPU would wait for ever.

#include "comm/communicator.hpp"

#include <atomic>
#include <thread>
#include <vector>

namespace rf {

class Lifeline {
public:
    /// All ranks call it together.
    explicit Lifeline(Communicator& host);
    /// An orderly end: the others are told that this is no loss.
    ~Lifeline();
    Lifeline(const Lifeline&) = delete;
    Lifeline& operator=(const Lifeline&) = delete;

    /// The rank that is lost, or -1. A rank that learns of a loss has `grace_seconds` to end in order; then its process is
    /// ended, so that no rank outlives another wherever it waits.
    int lost() const { return lost_; }
    static constexpr int grace_seconds = 10;

private:
    struct Peer {
        int socket = -1;
        int rank = -1;
        bool open = false;
    };
    void accept_all(int listener, std::uint64_t secret);
    void connect_to_root(const std::string& addresses, std::uint64_t secret);
    void watch();
    void note(int rank);
    void tell(std::int32_t word);

    int rank_;
    int size_;
    std::vector<Peer> peers_;  ///< rank 0: all others; any other: rank 0
    std::atomic<int> lost_ = -1;
    int wake_[2] = {-1, -1};   ///< a pipe that ends the thread
    std::thread thread_;
};

}  // namespace rf
