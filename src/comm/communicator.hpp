#pragma once
/// Collectives over one group of ranks. All ranks of a group call the same functions in the same order.
/// They act on memory of their stream's device: on the CPU they are done at the return (MPI), on a GPU they run in stream
/// order (NCCL). Only the main thread calls MPI. A group of one costs nothing, so callers never ask for the size first.

#include "core/stream.hpp"

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace rf {

enum class ReduceOp { sum, max, min };

class Communicator {
public:
    virtual ~Communicator() = default;
    virtual int rank() const = 0;
    virtual int size() const = 0;
    virtual void barrier() = 0;

    /// In place over all ranks; f32, f64 and i32, and bf16 (on the CPU summed in f32 and rounded once at the end; NCCL rounds
    /// the sums it passes on). The order of the sum is fixed for a number of ranks.
    virtual void all_reduce(Stream& stream, const Tensor& t, ReduceOp op) = 0;
    /// out = the ranks' `in` one after the other; out.count() == size * in.count().
    virtual void all_gather(Stream& stream, const ConstTensor& in, const Tensor& out) = 0;
    virtual void broadcast(Stream& stream, const Tensor& t, int root) = 0;
    /// Bytes [send_begin[r], send_begin[r+1]) of `send` go to rank r; what rank r sent lands at recv_begin[r].
    virtual void all_to_all(Stream& stream, const void* send, std::span<const std::int64_t> send_begin, void* recv,
                            std::span<const std::int64_t> recv_begin) = 0;
    /// Waits until everything on the stream is done; throws when a collective there has failed or a rank is lost.
    virtual void wait(Stream& stream) { stream.synchronise(); }
    /// The same look at the collectives under way, without waiting: for loops that wait for something else.
    virtual void require_health() {}
    /// The ranks of one `color`, ordered by their rank here.
    virtual std::unique_ptr<Communicator> split(int color) = 0;

    // Small host values, made of the above.
    double sum(double value);
    double max(double value);
    double min(double value);
    std::vector<std::int64_t> gather(std::int64_t value);
    void broadcast(std::string& text, int root);
    /// What the first rank that has something to say says, on every rank; empty where none has.
    std::string first_text(std::string text);
};

/// One rank: every call is a no-op or a copy.
std::unique_ptr<Communicator> make_self_communicator();

class Progress;

/// MPI for the length of the program. Under mpirun or srun it starts MPI, otherwise it is a world of one that never
/// loads it.
class World {
public:
    World(int& argc, char**& argv);
    ~World();
    World(const World&) = delete;
    World& operator=(const World&) = delete;

    Communicator& communicator() { return *all_; }
    /// From now on `communicator()`, and groups split from it later, also serve streams of this process's current GPU (CUDA
    /// builds; see choose_device). A reference taken before stays good for the host.
    void serve_gpu();
    /// Ranks that share this host, and this rank's number among them.
    int local_size() const { return local_size_; }
    int local_rank() const { return local_rank_; }
    /// Cores of this host that are for this rank, where ranks were bound to cores of their own and where they were not.
    int local_cores() const { return local_cores_; }
    /// True when every rank makes this call within the time; never waits longer. For ranks that may be alone in their trouble
    /// while the others wait for them in some exchange; may be called once. `text` becomes that of rank 0 when all came.
    bool all_arrive(double seconds, std::string& text);
    /// What this rank does in collectives on host memory.
    const Progress& progress() const { return *progress_; }
    /// Ends every rank at once with this exit code.
    [[noreturn]] void abort(int code);

private:
    bool started_ = false;
    bool serves_gpu_ = false;
    int local_size_ = 1;
    int local_rank_ = 0;
    int local_cores_ = 1;
    std::shared_ptr<Progress> progress_;
    std::unique_ptr<Communicator> all_;
    std::unique_ptr<Communicator> meeting_;  ///< of all ranks, for all_arrive alone: no other exchange can be pending in it
};

}  // namespace rf
