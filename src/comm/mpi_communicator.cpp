#include "comm/communicator.hpp"

#include "comm/nccl_communicator.hpp"
#include "comm/progress.hpp"
#include "core/build.hpp"
#include "core/cpu.hpp"
#include "core/op_log.hpp"

#include <mpi.h>
#include <sched.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <thread>
#include <utility>

namespace rf {

namespace {

void check_mpi(int code, const char* what) {
    if (code == MPI_SUCCESS) return;
    char text[MPI_MAX_ERROR_STRING];
    int length = 0;
    MPI_Error_string(code, text, &length);
    fail(what, ": ", std::string(text, static_cast<std::size_t>(length)));
}

// MPI counts are ints: larger transfers go in pieces of at most this many elements.
constexpr std::int64_t max_count = 1 << 28;

MPI_Datatype mpi_type(Dtype dtype) {
    switch (dtype) {
        case Dtype::f32: return MPI_FLOAT;
        case Dtype::f64: return MPI_DOUBLE;
        case Dtype::i32: return MPI_INT32_T;
        default: fail("no MPI reduction for ", name_of(dtype));
    }
}

MPI_Op mpi_op(ReduceOp op) {
    switch (op) {
        case ReduceOp::sum: return MPI_SUM;
        case ReduceOp::max: return MPI_MAX;
        case ReduceOp::min: return MPI_MIN;
    }
    return MPI_OP_NULL;
}

class MpiCommunicator final : public Communicator {
public:
    MpiCommunicator(MPI_Comm comm, bool owned, std::shared_ptr<Progress> progress) : comm_(comm), owned_(owned), progress_(std::move(progress)) {
        MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN);
        MPI_Comm_rank(comm_, &rank_);
        MPI_Comm_size(comm_, &size_);
        group_ = progress_->add_group(ranks_of_world());
    }
    ~MpiCommunicator() override {
        int finalised = 0;  // whoever started MPI may have ended it before a static owner dies
        MPI_Finalized(&finalised);
        if (owned_ && !finalised) MPI_Comm_free(&comm_);
    }

    MPI_Comm handle() const { return comm_; }
    int rank() const override { return rank_; }
    int size() const override { return size_; }
    void barrier() override {
        const CollectiveScope noted = note("barrier", 0);
        check_mpi(MPI_Barrier(comm_), "MPI_Barrier");
    }

    void all_reduce(Stream& stream, const Tensor& t, ReduceOp op) override {
        require_host(stream);
        const OpScope scope(stream, {.name = "all_reduce", .kind = LoggedOp::Kind::communication, .bytes = bytes_of(t)});
        if (size_ == 1) return;
        if (t.dtype == Dtype::bf16) return all_reduce_bf16(t, op);
        const CollectiveScope noted = note("all_reduce", bytes_of(t));
        auto* data = static_cast<char*>(t.data);
        for (std::int64_t at = 0; at < t.count(); at += max_count) {
            const int n = static_cast<int>(std::min(max_count, t.count() - at));
            check_mpi(MPI_Allreduce(MPI_IN_PLACE, data + at * size_of(t.dtype), n, mpi_type(t.dtype), mpi_op(op), comm_),
                      "MPI_Allreduce");
        }
    }

    void all_gather(Stream& stream, const ConstTensor& in, const Tensor& out) override {
        require_host(stream);
        const OpScope scope(stream, {.name = "all_gather", .kind = LoggedOp::Kind::communication, .bytes = bytes_of(out)});
        RF_REQUIRE(out.bytes() == in.bytes() * size_, "all_gather of ", in.shape, " into ", out.shape);
        const std::int64_t bytes = in.bytes();
        const CollectiveScope noted = note("all_gather", bytes_of(out));
        // Whole pieces at once where they fit an int; otherwise one broadcast a rank, in pieces.
        auto* to = static_cast<char*>(out.data);
        if (bytes <= max_count) {
            const void* from = in.data == to + rank_ * bytes ? MPI_IN_PLACE : in.data;
            check_mpi(MPI_Allgather(from, static_cast<int>(bytes), MPI_BYTE, to, static_cast<int>(bytes), MPI_BYTE, comm_),
                      "MPI_Allgather");
            return;
        }
        std::memmove(to + rank_ * bytes, in.data, static_cast<std::size_t>(bytes));
        for (int r = 0; r < size_; ++r) broadcast_bytes(to + r * bytes, bytes, r);
    }

    void broadcast(Stream& stream, const Tensor& t, int root) override {
        require_host(stream);
        const OpScope scope(stream, {.name = "broadcast", .kind = LoggedOp::Kind::communication, .bytes = bytes_of(t)});
        const CollectiveScope noted = note("broadcast", bytes_of(t));
        broadcast_bytes(static_cast<char*>(t.data), t.bytes(), root);
    }

    void all_to_all(Stream& stream, const void* send, std::span<const std::int64_t> send_begin, void* recv,
                    std::span<const std::int64_t> recv_begin) override {
        require_host(stream);
        const OpScope scope(stream, {.name = "all_to_all", .kind = LoggedOp::Kind::communication, .bytes = static_cast<double>(send_begin.back())});
        const CollectiveScope noted = note("all_to_all", static_cast<double>(send_begin.back()));
        // Pairwise exchange by distance: bounded counts, no deadlock, any sizes.
        const auto* from = static_cast<const char*>(send);
        auto* to = static_cast<char*>(recv);
        for (int distance = 0; distance < size_; ++distance) {
            const auto dst = static_cast<std::size_t>((rank_ + distance) % size_);
            const auto src = static_cast<std::size_t>((rank_ - distance + size_) % size_);
            std::int64_t out_at = send_begin[dst], in_at = recv_begin[src];
            if (distance == 0) {
                if (send_begin[dst + 1] > out_at) std::memmove(to + in_at, from + out_at, static_cast<std::size_t>(send_begin[dst + 1] - out_at));
                continue;
            }
            // Empty transfers are not made: the other side would not know of them.
            std::vector<MPI_Request> requests;
            for (; in_at < recv_begin[src + 1]; in_at += max_count)
                check_mpi(MPI_Irecv(to + in_at, static_cast<int>(std::min(max_count, recv_begin[src + 1] - in_at)), MPI_BYTE, static_cast<int>(src), 0,
                                    comm_, &requests.emplace_back()),
                          "MPI_Irecv");
            for (; out_at < send_begin[dst + 1]; out_at += max_count)
                check_mpi(MPI_Isend(from + out_at, static_cast<int>(std::min(max_count, send_begin[dst + 1] - out_at)), MPI_BYTE, static_cast<int>(dst), 0,
                                    comm_, &requests.emplace_back()),
                          "MPI_Isend");
            check_mpi(MPI_Waitall(static_cast<int>(requests.size()), requests.data(), MPI_STATUSES_IGNORE), "MPI_Waitall");
        }
    }

    std::unique_ptr<Communicator> split(int color) override {
        MPI_Comm part = MPI_COMM_NULL;
        check_mpi(MPI_Comm_split(comm_, color, rank_, &part), "MPI_Comm_split");
        return std::make_unique<MpiCommunicator>(part, true, progress_);
    }

private:
    CollectiveScope note(const char* name, double bytes) const { return {*progress_, group_, name, bytes}; }

    std::vector<int> ranks_of_world() const {
        MPI_Group here = MPI_GROUP_NULL, world = MPI_GROUP_NULL;
        check_mpi(MPI_Comm_group(comm_, &here), "MPI_Comm_group");
        check_mpi(MPI_Comm_group(MPI_COMM_WORLD, &world), "MPI_Comm_group");
        std::vector<int> numbers(static_cast<std::size_t>(size_)), result(numbers.size());
        std::iota(numbers.begin(), numbers.end(), 0);
        check_mpi(MPI_Group_translate_ranks(here, size_, numbers.data(), world, result.data()), "MPI_Group_translate_ranks");
        MPI_Group_free(&here);
        MPI_Group_free(&world);
        return result;
    }

    // MPI is not asked to read device memory.
    static void require_host(const Stream& stream) { RF_REQUIRE(stream.device() == Device::cpu, "MPI works on host memory"); }

    void broadcast_bytes(char* data, std::int64_t bytes, int root) {
        for (std::int64_t at = 0; at < bytes; at += max_count)
            check_mpi(MPI_Bcast(data + at, static_cast<int>(std::min(max_count, bytes - at)), MPI_BYTE, root, comm_), "MPI_Bcast");
    }

    void all_reduce_bf16(const Tensor& t, ReduceOp op) {
        const std::int64_t n = t.count();
        std::vector<float> wide(static_cast<std::size_t>(n));
        auto* data = t.as<bfloat16>();
        for (std::int64_t i = 0; i < n; ++i) wide[static_cast<std::size_t>(i)] = static_cast<float>(data[i]);
        Stream stream;
        all_reduce(stream, view(wide.data(), {n}), op);
        for (std::int64_t i = 0; i < n; ++i) data[i] = bfloat16(wide[static_cast<std::size_t>(i)]);
    }

    MPI_Comm comm_;
    bool owned_;
    std::shared_ptr<Progress> progress_;
    int group_ = 0;
    int rank_ = 0;
    int size_ = 1;
};

bool launched_by_mpi() {
    for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK"})
        if (std::getenv(name)) return true;
    return false;
}

}  // namespace

World::World(int& argc, char**& argv) : progress_(std::make_shared<Progress>()) {
    if (!launched_by_mpi()) {
        all_ = make_self_communicator();
        local_cores_ = cpu_count();
        return;
    }
    int initialised = 0, provided = 0;
    MPI_Initialized(&initialised);
    if (!initialised) {
        check_mpi(MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided), "MPI_Init_thread");
        started_ = true;
    }
    MPI_Comm host = MPI_COMM_NULL;
    MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &host);
    MPI_Comm_rank(host, &local_rank_);
    MPI_Comm_size(host, &local_size_);
    const std::vector<int> mine = cpu_list();
    std::vector<int> users(CPU_SETSIZE);
    for (const int core : mine) ++users[static_cast<std::size_t>(core)];
    check_mpi(MPI_Allreduce(MPI_IN_PLACE, users.data(), CPU_SETSIZE, MPI_INT, MPI_SUM, host), "MPI_Allreduce");
    local_cores_ = fair_cores(mine, users);
    MPI_Comm_free(&host);
    all_ = std::make_unique<MpiCommunicator>(MPI_COMM_WORLD, false, progress_);
    meeting_ = all_->split(0);
}

void World::serve_gpu() {
    if constexpr (has_cuda)
        if (!std::exchange(serves_gpu_, true)) all_ = make_nccl_communicator(std::move(all_));
}

World::~World() {
    meeting_.reset();
    all_.reset();
    if (started_) MPI_Finalize();
}

bool World::all_arrive(double seconds, std::string& text) {
    if (!meeting_) return true;
    using Clock = std::chrono::steady_clock;
    MPI_Request request = MPI_REQUEST_NULL;
    if (MPI_Ibarrier(static_cast<const MpiCommunicator&>(*meeting_).handle(), &request) != MPI_SUCCESS) return false;
    for (const auto end = Clock::now() + std::chrono::duration<double>(seconds); Clock::now() < end;) {
        int there = 0;
        if (MPI_Test(&request, &there, MPI_STATUS_IGNORE) != MPI_SUCCESS) return false;
        if (there) {
            meeting_->broadcast(text, 0);
            return true;
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    return false;
}

void World::abort(int code) {
    int initialised = 0, finalised = 0;
    MPI_Initialized(&initialised);
    MPI_Finalized(&finalised);
    if (initialised && !finalised) MPI_Abort(MPI_COMM_WORLD, code);
    std::_Exit(code);
}

}  // namespace rf
