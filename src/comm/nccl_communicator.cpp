#include "comm/nccl_communicator.hpp"

#include "comm/lifeline.hpp"
#include "core/cuda.hpp"
#include "core/device_memory.hpp"

#include <nccl.h>

#include <chrono>
#include <cstdlib>
#include <exception>
#include <thread>

namespace rf {

namespace {

using Clock = std::chrono::steady_clock;

class NcclCommunicator;

/// What all groups of a world share: who is alive, and the groups that fail together.
struct Groups {
    explicit Groups(Communicator& world) : lifeline(world) {}

    Lifeline lifeline;
    std::vector<NcclCommunicator*> members;
    bool failed = false;
};

ncclDataType_t nccl_type(Dtype dtype) {
    switch (dtype) {
        case Dtype::f32: return ncclFloat32;
        case Dtype::f64: return ncclFloat64;
        case Dtype::i32: return ncclInt32;
        case Dtype::bf16: return ncclBfloat16;
        default: fail("no NCCL reduction for ", name_of(dtype));
    }
}

ncclRedOp_t nccl_op(ReduceOp op) { return op == ReduceOp::sum ? ncclSum : op == ReduceOp::max ? ncclMax : ncclMin; }

/// Gives the core away while something else has to happen first: at once at the start, in short sleeps later.
class Patience {
public:
    void rest() {
        if (++rests_ < 1000)
            std::this_thread::yield();
        else
            std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
    double seconds() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }

private:
    int rests_ = 0;
    Clock::time_point start_ = Clock::now();
};

class NcclCommunicator final : public Communicator {
public:
    NcclCommunicator(std::unique_ptr<Communicator> host, std::shared_ptr<Groups> groups)
        : host_(std::move(host)), self_(make_self_communicator()), groups_(std::move(groups)) {
        groups_->members.push_back(this);
    }
    ~NcclCommunicator() override {
        std::erase(groups_->members, this);
        close();
    }

    int rank() const override { return host_->rank(); }
    int size() const override { return host_->size(); }
    void barrier() override { host_->barrier(); }

    void all_reduce(Stream& stream, const Tensor& t, ReduceOp op) override {
        if (Communicator* other = instead(stream)) return other->all_reduce(stream, t, op);
        if (t.count() == 0) return;
        const auto n = static_cast<std::size_t>(t.count());
        put(ncclAllReduce(t.data, t.data, n, nccl_type(t.dtype), nccl_op(op), connected(), stream.handle()), "ncclAllReduce");
    }

    void all_gather(Stream& stream, const ConstTensor& in, const Tensor& out) override {
        if (Communicator* other = instead(stream)) return other->all_gather(stream, in, out);
        RF_REQUIRE(out.bytes() == in.bytes() * size(), "all_gather of ", in.shape, " into ", out.shape);
        if (in.bytes() == 0) return;
        put(ncclAllGather(in.data, out.data, static_cast<std::size_t>(in.bytes()), ncclUint8, connected(), stream.handle()), "ncclAllGather");
    }

    void broadcast(Stream& stream, const Tensor& t, int root) override {
        if (Communicator* other = instead(stream)) return other->broadcast(stream, t, root);
        if (t.bytes() == 0) return;
        put(ncclBroadcast(t.data, t.data, static_cast<std::size_t>(t.bytes()), ncclUint8, root, connected(), stream.handle()), "ncclBroadcast");
    }

    void all_to_all(Stream& stream, const void* send, std::span<const std::int64_t> send_begin, void* recv,
                    std::span<const std::int64_t> recv_begin) override {
        if (Communicator* other = instead(stream)) return other->all_to_all(stream, send, send_begin, recv, recv_begin);
        const auto me = static_cast<std::size_t>(rank());
        const auto* from = static_cast<const char*>(send);
        auto* to = static_cast<char*>(recv);
        cuda::copy(stream.handle(), from + send_begin[me], to + recv_begin[me], send_begin[me + 1] - send_begin[me]);
        const ncclComm_t comm = connected();
        // Grouped, so that all of them proceed together. Inside a group NCCL only notes the calls.
        check(ncclGroupStart(), "ncclGroupStart");
        for (std::size_t r = 0; r < static_cast<std::size_t>(size()); ++r) {
            if (r == me) continue;
            const std::int64_t out = send_begin[r + 1] - send_begin[r], in = recv_begin[r + 1] - recv_begin[r];
            if (out > 0)
                note(ncclSend(from + send_begin[r], static_cast<std::size_t>(out), ncclUint8, static_cast<int>(r), comm, stream.handle()), "ncclSend");
            if (in > 0) note(ncclRecv(to + recv_begin[r], static_cast<std::size_t>(in), ncclUint8, static_cast<int>(r), comm, stream.handle()), "ncclRecv");
        }
        put(ncclGroupEnd(), "ncclGroupEnd");
    }

    void wait(Stream& stream) override {
        if (stream.device() == Device::cpu) return;
        Patience patience;
        for (cudaError_t code; (code = cudaStreamQuery(stream.handle())) != cudaSuccess; patience.rest()) {
            if (code != cudaErrorNotReady) rf::check(code, "cudaStreamQuery");
            require_health();
        }
    }

    void require_health() override {
        for (NcclCommunicator* group : groups_->members)
            if (group->comm_) group->in_progress("NCCL");
    }

    std::unique_ptr<Communicator> split(int color) override {
        auto part = std::make_unique<NcclCommunicator>(host_->split(color), groups_);
        if (part->size() > 1) part->connected();
        return part;
    }

private:
    /// Who serves the stream when it is not NCCL.
    Communicator* instead(const Stream& stream) {
        if (stream.device() == Device::cpu) return host_.get();
        return size() == 1 ? self_.get() : nullptr;
    }

    /// The NCCL communicator, made at the first call. Not blocking: calls return and are waited for here, where a lost rank
    /// is noticed.
    ncclComm_t connected() {
        if (comm_) return comm_;
        RF_REQUIRE(!groups_->failed, "this communicator has failed");
        ncclUniqueId id{};
        if (rank() == 0) check(ncclGetUniqueId(&id), "ncclGetUniqueId");
        Stream host;
        host_->broadcast(host, {&id, {sizeof id}, Dtype::u8}, 0);
        ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
        config.blocking = 0;
        put(ncclCommInitRankConfig(&comm_, size(), id, rank(), &config), "ncclCommInitRankConfig");
        return comm_;
    }

    /// A call that starts work is finished when NCCL has put it on the stream.
    void put(ncclResult_t result, const char* what) {
        note(result, what);
        for (Patience patience; in_progress(what); patience.rest()) {
        }
    }

    void note(ncclResult_t result, const char* what) {
        if (result != ncclInProgress) check(result, what);
    }

    /// NCCL's state: busy or not. Failures, also of other ranks, end here.
    bool in_progress(const char* what) {
        ncclResult_t state = ncclSuccess;
        check(ncclCommGetAsyncError(comm_, &state), "ncclCommGetAsyncError");
        if (const int lost = groups_->lifeline.lost(); lost >= 0) fail_lost(lost);
        note(state, what);
        return state == ncclInProgress;
    }

    void check(ncclResult_t result, const char* what) {
        if (result == ncclSuccess) return;
        std::string text = message(what, ": ", ncclGetErrorString(result));
        if (const char* detail = ncclGetLastError(comm_); detail && *detail) text += message(" (", detail, ")");
        abort_all();
        // A rank that ended is the likely cause, and the better message.
        const Patience patience;
        while (result == ncclRemoteError && groups_->lifeline.lost() < 0 && patience.seconds() < 2) std::this_thread::sleep_for(std::chrono::milliseconds(20));
        if (const int lost = groups_->lifeline.lost(); lost >= 0) fail_lost(lost);
        fail(text, " on rank ", rank(), " of a group of ", size());
    }

    /// The launcher of the job usually ends all ranks now, after the lost one has said why: one message is enough.
    [[noreturn]] void fail_lost(int lost) {
        abort_all();
        std::this_thread::sleep_for(std::chrono::seconds(1));
        fail("rank ", lost, " is lost (its process or host has ended)");
    }

    /// Kernels of NCCL that wait for a rank which will not come are stopped.
    void abort_all() {
        groups_->failed = true;
        for (NcclCommunicator* group : groups_->members) group->drop();
    }
    void drop() {
        if (comm_) ncclCommAbort(comm_);
        comm_ = nullptr;
    }

    /// In order: finalised with the other ranks, then destroyed. While an exception passes the others may never come to that.
    void close() noexcept {
        if (!comm_) return;
        if (std::uncaught_exceptions() > 0 || !finalised()) return drop();
        ncclCommDestroy(comm_);
        comm_ = nullptr;
    }
    bool finalised() {
        ncclResult_t state = ncclCommFinalize(comm_);
        for (Patience patience; state == ncclInProgress && patience.seconds() < 10 && groups_->lifeline.lost() < 0; patience.rest())
            if (ncclCommGetAsyncError(comm_, &state) != ncclSuccess) return false;
        return state == ncclSuccess;
    }

    std::unique_ptr<Communicator> host_;
    std::unique_ptr<Communicator> self_;
    std::shared_ptr<Groups> groups_;
    ncclComm_t comm_ = nullptr;
};

}  // namespace

std::string gpu_identity() {
    int device = 0;
    check(cudaGetDevice(&device), "cudaGetDevice");
    cudaDeviceProp p{};
    check(cudaGetDeviceProperties(&p, device), "cudaGetDeviceProperties");
    return {p.uuid.bytes, sizeof p.uuid.bytes};
}

std::unique_ptr<Communicator> make_nccl_communicator(std::unique_ptr<Communicator> host) {
    // Sums inside the switch (NVLS) have no fixed order; rings and trees have.
    ::setenv("NCCL_NVLS_ENABLE", "0", 1);
    auto groups = std::make_shared<Groups>(*host);
    return std::make_unique<NcclCommunicator>(std::move(host), std::move(groups));
}

}  // namespace rf
