#include "comm/communicator.hpp"

#include "core/build.hpp"
#include "core/device_memory.hpp"

#include <algorithm>
#include <cstring>

namespace rf {

namespace {

void copy_bytes(Stream& stream, const void* from, void* to, std::int64_t bytes) {
    if (from == to || bytes == 0) return;
    if constexpr (has_cuda)
        if (stream.device() == Device::cuda) return cuda::copy(stream.handle(), from, to, bytes);
    std::memmove(to, from, static_cast<std::size_t>(bytes));
}

class SelfCommunicator final : public Communicator {
public:
    int rank() const override { return 0; }
    int size() const override { return 1; }
    void barrier() override {}
    void all_reduce(Stream&, const Tensor&, ReduceOp) override {}
    void all_gather(Stream& stream, const ConstTensor& in, const Tensor& out) override {
        RF_REQUIRE(out.bytes() == in.bytes(), "all_gather of ", in.shape, " into ", out.shape);
        copy_bytes(stream, in.data, out.data, in.bytes());
    }
    void broadcast(Stream&, const Tensor&, int) override {}
    void all_to_all(Stream& stream, const void* send, std::span<const std::int64_t> send_begin, void* recv,
                    std::span<const std::int64_t> recv_begin) override {
        copy_bytes(stream, static_cast<const char*>(send) + send_begin[0], static_cast<char*>(recv) + recv_begin[0], send_begin[1] - send_begin[0]);
    }
    std::unique_ptr<Communicator> split(int) override { return make_self_communicator(); }
};

double reduce_one(Communicator& comm, double value, ReduceOp op) {
    Stream stream;
    comm.all_reduce(stream, view(&value, {1}), op);
    return value;
}

}  // namespace

std::unique_ptr<Communicator> make_self_communicator() { return std::make_unique<SelfCommunicator>(); }

double Communicator::sum(double value) { return reduce_one(*this, value, ReduceOp::sum); }
double Communicator::max(double value) { return reduce_one(*this, value, ReduceOp::max); }
double Communicator::min(double value) { return reduce_one(*this, value, ReduceOp::min); }

std::vector<std::int64_t> Communicator::gather(std::int64_t value) {
    std::vector<std::int64_t> all(static_cast<std::size_t>(size()));
    Stream stream;
    all_gather(stream, {&value, {8}, Dtype::u8}, {all.data(), {8 * size()}, Dtype::u8});
    return all;
}

void Communicator::broadcast(std::string& text, int root) {
    Stream stream;
    std::int64_t length = static_cast<std::int64_t>(text.size());
    broadcast(stream, {&length, {8}, Dtype::u8}, root);
    text.resize(static_cast<std::size_t>(length));
    if (length > 0) broadcast(stream, {text.data(), {length}, Dtype::u8}, root);
}

std::string Communicator::first_text(std::string text) {
    const std::vector<std::int64_t> speaks = gather(!text.empty());
    const auto first = std::find(speaks.begin(), speaks.end(), 1);
    if (first == speaks.end()) return {};
    broadcast(text, static_cast<int>(first - speaks.begin()));
    return text;
}

}  // namespace rf
