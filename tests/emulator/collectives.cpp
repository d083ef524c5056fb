/// NCCL as far as the program uses it, over MPI, by its documentation. Communicators are not blocking: a call is finished,
/// and its operation on the stream, only when ncclCommGetAsyncError has said so. A communicator runs its operations one
/// after the other. Ranks that do not agree on an operation, memory that is not a device's and communicators that are not
/// ready are reported. Groups of one, which the program does not make, are not emulated.
///
/// RF_EMULATOR_LOST_RANK=r,after=n: the process of rank r ends when its n-th operation begins.

#include "emulator/machine.hpp"
#include "emulator/races.hpp"
#include "emulator/runtime.hpp"

#include <mpi.h>
#include <nccl.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

namespace rf::emulator {

namespace {

struct Group;
/// A send or receive of a group, or a collective, as the program asked for it.
struct Call {
    const char* name;
    const void* send;
    void* recv;
    std::size_t count;
    ncclDataType_t type;
    int detail;  ///< reduction, root or peer
};

}  // namespace

}  // namespace rf::emulator

/// A communicator of the program; `state` outlives it in operations that are under way.
struct ncclComm {
    std::shared_ptr<rf::emulator::Group> state;
};

namespace rf::emulator {

namespace {

struct Group {
    int rank = 0, size = 1;
    MPI_Comm mpi = MPI_COMM_NULL;
    int polls_left = 0;                ///< until the last call is finished
    std::function<void()> unfinished;  ///< what finishing it does
    bool busy = false, finalised = false, aborted = false;
    std::uint64_t issued = 0, turn = 0;  ///< numbers of operations: the next one to put on a stream, the one that may run
};

std::size_t size_of(ncclDataType_t type) {
    switch (type) {
        case ncclUint8: return 1;
        case ncclBfloat16: return 2;
        case ncclInt32:
        case ncclFloat32: return 4;
        case ncclFloat64: return 8;
        default: report("NCCL: data type " + std::to_string(type) + " is not emulated");
    }
}

void check_mpi(int code) {
    if (code != MPI_SUCCESS) report("NCCL over MPI: MPI call failed with code " + std::to_string(code));
}

int int_of(std::size_t bytes) {
    if (bytes > 1U << 30) report("NCCL: transfers beyond 1 GiB are not emulated");
    return static_cast<int>(bytes);
}

/// The end of a rank, for tests.
void maybe_lose_this_rank() {
    static const auto [rank, after] = [] {
        int r = -1, n = 0;
        if (const char* text = std::getenv("RF_EMULATOR_LOST_RANK"); text && std::sscanf(text, "%d,after=%d", &r, &n) != 2)
            report("RF_EMULATOR_LOST_RANK is \"r,after=n\"");
        return std::pair(r, n);
    }();
    static int begun = 0;
    if (rank < 0) return;
    int me = 0;
    MPI_Comm_rank(MPI_COMM_WORLD, &me);
    if (me == rank && ++begun == after) std::_Exit(1);
}

// --- operations: made when the stream reaches them, polled until they are done ---

class Operation {
public:
    explicit Operation(std::shared_ptr<Group> group) : group_(std::move(group)), number_(group_->issued++) { maybe_lose_this_rank(); }
    virtual ~Operation() = default;
    Operation(const Operation&) = delete;
    Operation& operator=(const Operation&) = delete;

    bool poll() {
        if (group_->aborted) return true;
        if (group_->turn != number_) return false;
        // MPI fills an operation's own buffers on whatever thread calls it next: only the program's memory is seen.
        const races::Quiet quiet;
        if (!begun_) begin();
        begun_ = true;
        if (!pending_.empty()) {
            int done = 0;
            check_mpi(MPI_Testall(static_cast<int>(pending_.size()), pending_.data(), &done, MPI_STATUSES_IGNORE));
            if (!done) return false;
            pending_.clear();
        }
        if (!advance()) return false;
        ++group_->turn;
        return true;
    }

protected:
    /// First transfers; then, whenever all transfers under way are done, more of them (false) or the end (true).
    virtual void begin() = 0;
    virtual bool advance() = 0;

    MPI_Request* next() { return &pending_.emplace_back(MPI_REQUEST_NULL); }
    const Group& group() const { return *group_; }
    static const std::byte* read_of(const void* memory, std::size_t bytes) {
        const races::Seen seen;
        note_read(memory, bytes);
        return static_cast<const std::byte*>(memory);
    }
    static std::byte* write_of(void* memory, std::size_t bytes) {
        const races::Seen seen;
        note_write(memory, bytes);
        return static_cast<std::byte*>(memory);
    }

private:
    std::shared_ptr<Group> group_;
    std::uint64_t number_;
    bool begun_ = false;
    std::vector<MPI_Request> pending_;
};

/// What all ranks must agree on.
struct Header {
    std::uint64_t kind, count, type, detail;
    friend bool operator==(const Header&, const Header&) = default;
};

enum Kind : std::uint64_t { reduce_kind, gather_kind, broadcast_kind };

std::string describe(const Header& h) {
    static const char* names[] = {"ncclAllReduce", "ncclAllGather", "ncclBroadcast"};
    return std::string(names[h.kind]) + " of " + std::to_string(h.count) + " elements of type " + std::to_string(h.type) + ", operation or root " +
           std::to_string(h.detail);
}

/// Every rank's bytes go to every rank (a broadcast: the root's), after their headers were compared.
class Collective : public Operation {
public:
    Collective(std::shared_ptr<Group> state, Kind kind, const Call& call)
        : Operation(std::move(state)), call_(call), header_{kind, call.count, static_cast<std::uint64_t>(call.type), static_cast<std::uint64_t>(call.detail)} {}

private:
    void begin() override {
        headers_.resize(static_cast<std::size_t>(group().size));
        check_mpi(MPI_Iallgather(&header_, sizeof header_, MPI_BYTE, headers_.data(), sizeof header_, MPI_BYTE, group().mpi, next()));
    }

    bool advance() override {
        if (!compared_) {
            compare();
            transfer();
            return false;
        }
        deliver();
        return true;
    }

    void compare() {
        compared_ = true;
        for (std::size_t r = 0; r < headers_.size(); ++r)
            if (headers_[r] != header_)
                report("NCCL: rank " + std::to_string(group().rank) + " of a group calls " + describe(header_) + ", rank " + std::to_string(r) + " " + describe(headers_[r]));
    }

    std::size_t bytes() const { return call_.count * size_of(call_.type); }

    void transfer() {
        const int n = int_of(bytes());
        if (header_.kind == broadcast_kind) {
            all_.resize(bytes());
            if (group().rank == call_.detail) std::copy_n(read_of(call_.send, bytes()), bytes(), all_.begin());
            check_mpi(MPI_Ibcast(all_.data(), n, MPI_BYTE, call_.detail, group().mpi, next()));
            return;
        }
        const std::byte* from = read_of(call_.send, bytes());
        own_.assign(from, from + bytes());
        all_.resize(bytes() * static_cast<std::size_t>(group().size));
        int_of(all_.size());
        check_mpi(MPI_Iallgather(own_.data(), n, MPI_BYTE, all_.data(), n, MPI_BYTE, group().mpi, next()));
    }

    void deliver() {
        if (header_.kind != reduce_kind) {
            std::copy(all_.begin(), all_.end(), write_of(call_.recv, all_.size()));
            return;
        }
        switch (call_.type) {
            case ncclFloat32: return reduce<float>();
            case ncclFloat64: return reduce<double>();
            case ncclInt32: return reduce<std::int32_t>();
            case ncclBfloat16: return reduce_bf16();
            default: report("NCCL: no reduction of type " + std::to_string(call_.type));
        }
    }

    template <class T>
    T join(T a, T b) const {
        if (call_.detail == ncclSum) return static_cast<T>(a + b);
        return (call_.detail == ncclMax) == (b > a) ? b : a;
    }

    /// In the order of ranks.
    template <class T>
    void reduce() {
        std::vector<T> terms(call_.count * static_cast<std::size_t>(group().size));
        std::memcpy(terms.data(), all_.data(), all_.size());
        std::byte* to = write_of(call_.recv, call_.count * sizeof(T));
        for (std::size_t i = 0; i < call_.count; ++i) {
            T sum = terms[i];
            for (std::size_t r = 1; r < static_cast<std::size_t>(group().size); ++r) sum = join(sum, terms[r * call_.count + i]);
            std::memcpy(to + i * sizeof(T), &sum, sizeof(T));
        }
    }

    /// Rounded at every rank, as a ring does.
    void reduce_bf16() {
        std::vector<std::uint16_t> terms(call_.count * static_cast<std::size_t>(group().size));
        std::memcpy(terms.data(), all_.data(), all_.size());
        const auto widen = [](std::uint16_t bits) { return std::bit_cast<float>(std::uint32_t{bits} << 16); };
        auto* to = reinterpret_cast<std::uint16_t*>(write_of(call_.recv, call_.count * sizeof(std::uint16_t)));
        for (std::size_t i = 0; i < call_.count; ++i) {
            std::uint16_t sum = terms[i];
            for (std::size_t r = 1; r < static_cast<std::size_t>(group().size); ++r) {
                const auto u = std::bit_cast<std::uint32_t>(join(widen(sum), widen(terms[r * call_.count + i])));
                sum = static_cast<std::uint16_t>((u & 0x7fffffffU) > 0x7f800000U ? (u >> 16) | 0x40U : (u + 0x7fffU + ((u >> 16) & 1U)) >> 16);
            }
            to[i] = sum;
        }
    }

    Call call_;
    Header header_;
    std::vector<Header> headers_;
    std::vector<std::byte> own_, all_;
    bool compared_ = false;
};

/// The sends and receives of a group, all under way at once. Lengths travel first: a receiver that expects another is an error.
/// The data follow when all lengths are known: a long send ends only with its receive, which must not wait for other sends.
class Exchange : public Operation {
public:
    Exchange(std::shared_ptr<Group> state, const std::vector<Call>& calls) : Operation(std::move(state)), calls_(calls) {}

private:
    static constexpr int length_tag = 1, data_tag = 2;

    void begin() override {
        lengths_.resize(calls_.size());
        data_.resize(calls_.size());
        for (std::size_t i = 0; i < calls_.size(); ++i) {
            const Call& c = calls_[i];
            if (!c.send) {
                check_mpi(MPI_Irecv(&lengths_[i], sizeof(std::uint64_t), MPI_BYTE, c.detail, length_tag, group().mpi, next()));
                continue;
            }
            lengths_[i] = c.count * size_of(c.type);
            const std::byte* from = read_of(c.send, lengths_[i]);
            data_[i].assign(from, from + lengths_[i]);
            check_mpi(MPI_Isend(&lengths_[i], sizeof(std::uint64_t), MPI_BYTE, c.detail, length_tag, group().mpi, next()));
        }
    }

    bool advance() override {
        if (received_) {
            for (std::size_t i = 0; i < calls_.size(); ++i)
                if (!calls_[i].send) std::copy(data_[i].begin(), data_[i].end(), write_of(calls_[i].recv, data_[i].size()));
            return true;
        }
        received_ = true;
        for (std::size_t i = 0; i < calls_.size(); ++i) {
            const Call& c = calls_[i];
            if (c.send) {
                check_mpi(MPI_Isend(data_[i].data(), int_of(lengths_[i]), MPI_BYTE, c.detail, data_tag, group().mpi, next()));
                continue;
            }
            const std::size_t wanted = c.count * size_of(c.type);
            if (lengths_[i] != wanted)
                report("NCCL: rank " + std::to_string(group().rank) + " of a group receives " + std::to_string(wanted) + " bytes from rank " +
                       std::to_string(c.detail) + ", which sends " + std::to_string(lengths_[i]));
            data_[i].resize(wanted);
            check_mpi(MPI_Irecv(data_[i].data(), int_of(wanted), MPI_BYTE, c.detail, data_tag, group().mpi, next()));
        }
        return false;
    }

    std::vector<Call> calls_;
    std::vector<std::uint64_t> lengths_;
    std::vector<std::vector<std::byte>> data_;
    bool received_ = false;
};

// --- communicators ---

std::set<ncclComm_t>& communicators() {
    static std::set<ncclComm_t> made;
    return made;
}

Group& at(ncclComm_t comm, const char* call) {
    if (!communicators().contains(comm)) report(std::string(call) + " on a communicator that does not exist (destroyed, or never made)");
    return *comm->state;
}

/// For calls that start something: the one before must be finished.
Group& ready(ncclComm_t comm, const char* call) {
    Group& group = at(comm, call);
    if (group.busy) report(std::string(call) + " on a communicator whose last call is not finished (poll ncclCommGetAsyncError)");
    if (group.finalised) report(std::string(call) + " on a communicator that was finalised");
    return group;
}

/// The call returns; `finish` happens at some later poll.
ncclResult_t later(Group& group, std::function<void()> finish) {
    group.busy = true;
    group.polls_left = static_cast<int>(random_below(3));
    group.unfinished = std::move(finish);
    return ncclInProgress;
}

bool have_mpi() {
    int started = 0;
    MPI_Initialized(&started);
    return started;
}

/// What an id holds: the rank of MPI's world that made it, and a number that tells its ids apart.
struct Id {
    std::int32_t root, number;
};

/// Ranks report to the maker of the id, which tells all of them who they are.
MPI_Comm meet(const Id& id, int rank, int size) {
    int me = 0;
    MPI_Comm_rank(MPI_COMM_WORLD, &me);
    const int tag = 20000 + id.number % 5000;
    std::vector<int> ranks(static_cast<std::size_t>(size));
    if (me == id.root) {
        ranks[static_cast<std::size_t>(rank)] = me;
        for (int i = 1; i < size; ++i) {
            int who[2];
            check_mpi(MPI_Recv(who, 2, MPI_INT, MPI_ANY_SOURCE, tag, MPI_COMM_WORLD, MPI_STATUS_IGNORE));
            ranks[static_cast<std::size_t>(who[0])] = who[1];
        }
        for (const int other : ranks)
            if (other != me) check_mpi(MPI_Send(ranks.data(), size, MPI_INT, other, tag, MPI_COMM_WORLD));
    } else {
        const int who[2] = {rank, me};
        check_mpi(MPI_Send(who, 2, MPI_INT, id.root, tag, MPI_COMM_WORLD));
        check_mpi(MPI_Recv(ranks.data(), size, MPI_INT, id.root, tag, MPI_COMM_WORLD, MPI_STATUS_IGNORE));
    }
    MPI_Group all = MPI_GROUP_NULL, some = MPI_GROUP_NULL;
    MPI_Comm made = MPI_COMM_NULL;
    check_mpi(MPI_Comm_group(MPI_COMM_WORLD, &all));
    check_mpi(MPI_Group_incl(all, size, ranks.data(), &some));
    check_mpi(MPI_Comm_create_group(MPI_COMM_WORLD, some, tag, &made));
    MPI_Group_free(&some);
    MPI_Group_free(&all);
    return made;
}

// --- groups of calls ---

struct Pending {
    ncclComm_t comm;
    cudaStream_t stream;
    std::vector<Call> calls;
};
int group_depth = 0;
std::vector<Pending> grouped;

void require_device(const char* call, const void* p, std::size_t bytes) {
    if (bytes > 0 && !is_device_range(p, bytes)) report(std::string(call) + ": " + std::to_string(bytes) + " bytes are not inside one allocation of device memory");
}

/// Puts the operation that `make` makes on the stream, when the call is finished.
ncclResult_t start(Group& group, cudaStream_t stream, const char* name, std::function<std::unique_ptr<Operation>()> make) {
    return later(group, [stream, name, make = std::move(make)] {
        enqueue_transfer(stream, name, [make] {
            std::shared_ptr<Operation> operation = make();
            return [operation] { return operation->poll(); };
        });
    });
}

ncclResult_t collective(Kind kind, const Call& call, ncclComm_t comm, cudaStream_t stream, std::size_t recv_count) {
    Group& group = ready(comm, call.name);
    if (group_depth > 0) report(std::string(call.name) + " inside a group is not emulated");
    const std::size_t item = size_of(call.type);
    require_device(call.name, call.send, call.count * item);
    require_device(call.name, call.recv, recv_count * item);
    const auto s = reinterpret_cast<std::uintptr_t>(call.send), r = reinterpret_cast<std::uintptr_t>(call.recv);
    const std::uintptr_t in_place = kind == gather_kind ? r + static_cast<std::size_t>(group.rank) * call.count * item : r;
    if (s != in_place && s < r + recv_count * item && r < s + call.count * item) report(std::string(call.name) + ": send and receive buffers overlap");
    return start(group, stream, call.name, [state = comm->state, kind, call] { return std::make_unique<Collective>(state, kind, call); });
}

ncclResult_t point_to_point(const Call& call, ncclComm_t comm, cudaStream_t stream) {
    Group& group = ready(comm, call.name);
    if (group_depth == 0) report(std::string(call.name) + " outside a group is not emulated");
    if (call.detail < 0 || call.detail >= group.size) return ncclInvalidArgument;
    if (call.detail == group.rank) report(std::string(call.name) + " to the own rank is not emulated");
    require_device(call.name, call.send ? call.send : call.recv, call.count * size_of(call.type));
    auto same = std::find_if(grouped.begin(), grouped.end(), [&](const Pending& p) { return p.comm == comm && p.stream == stream; });
    if (same == grouped.end()) same = grouped.insert(same, Pending{comm, stream, {}});
    same->calls.push_back(call);
    return ncclSuccess;
}

}  // namespace

}  // namespace rf::emulator

using namespace rf::emulator;

// --- the calls ---

const char* ncclGetErrorString(ncclResult_t result) {
    switch (result) {
        case ncclSuccess: return "no error";
        case ncclUnhandledCudaError: return "unhandled cuda error (run with NCCL_DEBUG=INFO for details)";
        case ncclInvalidArgument: return "invalid argument (run with NCCL_DEBUG=WARN for details)";
        case ncclInvalidUsage: return "invalid usage (run with NCCL_DEBUG=WARN for details)";
        case ncclRemoteError: return "remote process exited or there was a network error";
        case ncclInProgress: return "NCCL operation in progress";
        default: return "unknown result code";
    }
}
const char* ncclGetLastError(ncclComm_t) { return ""; }

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
    static std::int32_t made = 0;
    Id words{0, made++};
    if (have_mpi()) MPI_Comm_rank(MPI_COMM_WORLD, &words.root);
    *id = {};
    std::memcpy(id->internal, &words, sizeof words);
    return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t* comm, int size, ncclUniqueId id, int rank, ncclConfig_t* config) {
    if (!config || config->magic != 0xcafebeef || config->blocking != 0) report("NCCL: only communicators with config.blocking = 0 are emulated");
    if (rank < 0 || rank >= size) return ncclInvalidArgument;
    if (size < 2 || !have_mpi()) report("NCCL: a group of " + std::to_string(size) + " ranks, " + (have_mpi() ? "under" : "without") + " MPI, is not emulated");
    Id words;
    std::memcpy(&words, id.internal, sizeof words);
    auto state = std::make_shared<Group>();
    state->rank = rank;
    state->size = size;
    state->mpi = meet(words, rank, size);
    *comm = *communicators().insert(new ncclComm{state}).first;
    return later(*state, [] {});
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* state) {
    Group& group = at(comm, "ncclCommGetAsyncError");
    *state = ncclSuccess;
    if (!group.busy) return ncclSuccess;
    *state = ncclInProgress;
    if (group.polls_left-- > 0) return ncclSuccess;
    group.busy = false;
    *state = ncclSuccess;
    const std::function<void()> finish = std::move(group.unfinished);
    finish();
    return ncclSuccess;
}

ncclResult_t ncclCommFinalize(ncclComm_t comm) {
    Group& group = ready(comm, "ncclCommFinalize");
    group.finalised = true;
    return later(group, [&group] {
        if (group.turn != group.issued) report("ncclCommFinalize: operations are under way that no stream was waited for");
    });
}

ncclResult_t ncclCommDestroy(ncclComm_t comm) {
    Group& group = at(comm, "ncclCommDestroy");
    if (group.busy || !group.finalised) report("ncclCommDestroy of a communicator that was not finalised");
    MPI_Comm_free(&group.mpi);
    communicators().erase(comm);
    delete comm;
    return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t comm) {
    at(comm, "ncclCommAbort").aborted = true;
    communicators().erase(comm);
    delete comm;
    return ncclSuccess;
}

ncclResult_t ncclAllReduce(const void* send, void* recv, size_t count, ncclDataType_t type, ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream) {
    if (op != ncclSum && op != ncclMax && op != ncclMin) report("ncclAllReduce: reduction " + std::to_string(op) + " is not emulated");
    return collective(reduce_kind, {"ncclAllReduce", send, recv, count, type, op}, comm, stream, count);
}
ncclResult_t ncclAllGather(const void* send, void* recv, size_t count, ncclDataType_t type, ncclComm_t comm, cudaStream_t stream) {
    const auto size = static_cast<std::size_t>(at(comm, "ncclAllGather").size);
    return collective(gather_kind, {"ncclAllGather", send, recv, count, type, 0}, comm, stream, count * size);
}
ncclResult_t ncclBroadcast(const void* send, void* recv, size_t count, ncclDataType_t type, int root, ncclComm_t comm, cudaStream_t stream) {
    if (root < 0 || root >= at(comm, "ncclBroadcast").size) return ncclInvalidArgument;
    return collective(broadcast_kind, {"ncclBroadcast", send, recv, count, type, root}, comm, stream, count);
}
ncclResult_t ncclSend(const void* send, size_t count, ncclDataType_t type, int peer, ncclComm_t comm, cudaStream_t stream) {
    return point_to_point({"ncclSend", send, nullptr, count, type, peer}, comm, stream);
}
ncclResult_t ncclRecv(void* recv, size_t count, ncclDataType_t type, int peer, ncclComm_t comm, cudaStream_t stream) {
    return point_to_point({"ncclRecv", nullptr, recv, count, type, peer}, comm, stream);
}

ncclResult_t ncclGroupStart() {
    ++group_depth;
    return ncclSuccess;
}
ncclResult_t ncclGroupEnd() {
    if (group_depth == 0) return ncclInvalidUsage;
    if (--group_depth > 0) return ncclSuccess;
    ncclResult_t result = ncclSuccess;
    for (Pending& p : std::exchange(grouped, {})) {
        Group& group = ready(p.comm, "ncclGroupEnd");
        result = start(group, p.stream, "ncclGroupEnd", [state = p.comm->state, calls = p.calls] { return std::make_unique<Exchange>(state, calls); });
    }
    return result;
}
