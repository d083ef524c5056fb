/// Collectives on GPU streams; under the emulator in a random order of streams. Skipped where ranks have no GPU each.

#include "comm/device_choice.hpp"
#include "comm/parallel_grid.hpp"
#include "core/buffer.hpp"
#include "core/device_memory.hpp"

#include <boost/test/unit_test.hpp>
#include <mpi.h>

#include <cmath>
#include <cstdlib>
#include <optional>

using namespace rf;

namespace {

std::optional<World> the_world;
World& world() { return *the_world; }
Communicator& ranks() { return world().communicator(); }

/// The world of all tests; it ends before MPI does.
struct NeedsGpus {
    NeedsGpus() {
        int argc = 0;
        char** argv = nullptr;
        the_world.emplace(argc, argv);
        if (cuda::device_count() < world().local_size()) {
            int started = 0;
            MPI_Initialized(&started);
            the_world.reset();
            if (started) MPI_Finalize();
            std::_Exit(77);
        }
        BOOST_TEST((choose_device(world(), "cuda") == Device::cuda));
    }
    ~NeedsGpus() { the_world.reset(); }
};
BOOST_TEST_GLOBAL_FIXTURE(NeedsGpus);

/// Numbers on the GPU.
template <class T>
struct OnGpu {
    Buffer memory;
    std::int64_t n;

    explicit OnGpu(std::int64_t count) : memory(std::max<std::int64_t>(count, 1) * size_of(dtype_of<T>), Device::cuda), n(count) {}
    OnGpu(const Stream& stream, const std::vector<T>& values) : OnGpu(static_cast<std::int64_t>(values.size())) { upload(stream, values.data(), tensor()); }
    Tensor tensor() const { return memory.tensor({n}, dtype_of<T>); }
    std::vector<T> read(const Stream& stream) const {
        std::vector<T> out(static_cast<std::size_t>(n));
        download(stream, tensor(), out.data());
        return out;
    }
};

double value_of(double x) { return x; }
double value_of(bfloat16 x) { return static_cast<float>(x); }

/// Small whole numbers: every sum is exact in every dtype.
template <class T>
void check_all_reduce() {
    const int n = ranks().size();
    for (const std::int64_t count : {0, 1, 5, 1000})
        for (const ReduceOp op : {ReduceOp::sum, ReduceOp::max, ReduceOp::min}) {
            Stream stream(Device::cuda);
            std::vector<T> values;
            for (std::int64_t i = 0; i < count; ++i) values.push_back(T(static_cast<float>((ranks().rank() + 1) * (i % 11 - 5))));
            const OnGpu<T> x(stream, values);
            ranks().all_reduce(stream, x.tensor(), op);
            ranks().wait(stream);
            values = x.read(stream);
            for (std::int64_t i = 0; i < count; ++i) {
                const double one = static_cast<double>(i % 11 - 5);
                const double expected = op == ReduceOp::sum ? one * n * (n + 1) / 2 : op == ReduceOp::max ? std::max(one, n * one) : std::min(one, n * one);
                BOOST_TEST(value_of(values[static_cast<std::size_t>(i)]) == expected);
            }
        }
}

}  // namespace

BOOST_AUTO_TEST_CASE(all_reduce_gives_sums_and_extremes_in_every_dtype) {
    check_all_reduce<float>();
    check_all_reduce<double>();
    check_all_reduce<std::int32_t>();
    check_all_reduce<bfloat16>();
}

BOOST_AUTO_TEST_CASE(rounded_sums_repeat_their_bits_on_every_rank) {
    const std::int64_t count = 4099;
    std::vector<std::vector<float>> results;
    for (int time = 0; time < 2; ++time) {
        Stream stream(Device::cuda), host;
        std::vector<float> values;
        for (std::int64_t i = 0; i < count; ++i) values.push_back(std::sin(static_cast<float>(i + 1) * (1.0F + static_cast<float>(ranks().rank()))));
        const OnGpu<float> x(stream, values);
        ranks().all_reduce(stream, x.tensor(), ReduceOp::sum);
        results.push_back(x.read(stream));
        std::vector<float> root = results.back();
        ranks().broadcast(host, view(root.data(), {count}), 0);
        BOOST_TEST((root == results.back()));
    }
    BOOST_TEST((results[0] == results[1]));
}

BOOST_AUTO_TEST_CASE(all_gather_lays_the_ranks_one_after_another) {
    const int n = ranks().size(), me = ranks().rank();
    for (const std::int64_t count : {0, 1, 7})
        for (const bool in_place : {false, true}) {
            Stream stream(Device::cuda);
            std::vector<double> own(static_cast<std::size_t>(count)), whole(static_cast<std::size_t>(count * n), -1);
            for (std::int64_t i = 0; i < count; ++i) own[static_cast<std::size_t>(i)] = 100.0 * me + static_cast<double>(i);
            if (in_place) std::copy(own.begin(), own.end(), whole.begin() + me * count);
            const OnGpu<double> x(stream, own), all(stream, whole);
            ranks().all_gather(stream, in_place ? all.tensor().part(me * count, {count}) : x.tensor(), all.tensor());
            const std::vector<double> result = all.read(stream);
            for (int r = 0; r < n; ++r)
                for (std::int64_t i = 0; i < count; ++i) BOOST_TEST(result[static_cast<std::size_t>(r * count + i)] == 100.0 * r + static_cast<double>(i));
        }
}

BOOST_AUTO_TEST_CASE(any_rank_can_broadcast) {
    for (int root = 0; root < ranks().size(); ++root) {
        Stream stream(Device::cuda);
        const OnGpu<std::int32_t> x(stream, std::vector<std::int32_t>(5, ranks().rank()));
        ranks().broadcast(stream, x.tensor(), root);
        BOOST_TEST((x.read(stream) == std::vector<std::int32_t>(5, root)));
    }
}

BOOST_AUTO_TEST_CASE(all_to_all_moves_empty_and_uneven_pieces) {
    const int n = ranks().size(), me = ranks().rank();
    const auto length = [](int s, int r) { return (s + 2 * r) % 4; };
    std::vector<std::int64_t> send_begin{0}, recv_begin{0};
    for (int r = 0; r < n; ++r) send_begin.push_back(send_begin.back() + 4 * length(me, r)), recv_begin.push_back(recv_begin.back() + 4 * length(r, me));
    std::vector<std::int32_t> send;
    for (int r = 0; r < n; ++r)
        for (int i = 0; i < length(me, r); ++i) send.push_back(16 * me + 4 * r + i);
    Stream stream(Device::cuda);
    const OnGpu<std::int32_t> from(stream, send), to(recv_begin.back() / 4);
    for (int time = 0; time < 3; ++time) ranks().all_to_all(stream, from.tensor().data, send_begin, to.tensor().data, recv_begin);
    std::vector<std::int32_t> expected;
    for (int s = 0; s < n; ++s)
        for (int i = 0; i < length(s, me); ++i) expected.push_back(16 * s + 4 * me + i);
    BOOST_TEST((to.read(stream) == expected));
    const std::vector<std::int64_t> nothing(static_cast<std::size_t>(n) + 1, 0);
    ranks().all_to_all(stream, from.tensor().data, nothing, to.tensor().data, nothing);
    ranks().wait(stream);
}

/// Two groups of a rank work on two streams at once, in whatever order the streams run.
BOOST_AUTO_TEST_CASE(groups_on_different_streams_do_not_wait_for_each_other) {
    const int tensor_size = ranks().size() % 2 == 0 ? 2 : 1;
    {
        const ParallelGrid grid(ranks(), tensor_size);
        Stream first(Device::cuda), second(Device::cuda);
        const OnGpu<float> x(first, {1.0F}), y(second, {1.0F});
        for (int i = 0; i < 6; ++i) {
            grid.tensor->all_reduce(first, x.tensor(), ReduceOp::sum);
            grid.data->all_reduce(second, y.tensor(), ReduceOp::sum);
        }
        grid.data->wait(second);
        grid.tensor->wait(first);
        BOOST_TEST(x.read(first)[0] == std::pow(grid.tensor->size(), 6));
        BOOST_TEST(y.read(second)[0] == std::pow(grid.data->size(), 6));
    }
    ranks().barrier();
}

BOOST_AUTO_TEST_CASE(what_is_waited_for_is_done) {
    const std::unique_ptr<Communicator> self = make_self_communicator();
    for (Communicator* group : {&ranks(), self.get()}) {
        Stream stream(Device::cuda);
        const OnGpu<float> x(stream, std::vector<float>(100, 1));
        const Buffer host = Buffer::staging(x.memory.size(), Device::cuda);
        for (int round = 1; round < 4; ++round) {
            group->all_reduce(stream, x.tensor(), ReduceOp::sum);
            cuda::copy(stream.handle(), x.memory.data(), host.data(), host.size());
            group->wait(stream);
            BOOST_TEST(*reinterpret_cast<const float*>(host.data()) == std::pow(group->size(), round));
        }
    }
}

BOOST_AUTO_TEST_CASE(host_tensors_go_by_mpi) {
    Stream host;
    double x = 1;
    ranks().all_reduce(host, view(&x, {1}), ReduceOp::sum);
    BOOST_TEST(x == ranks().size());
    const auto part = ranks().split(ranks().rank() % 2);
    BOOST_TEST(part->sum(1) == part->size());
    ranks().wait(host);
    ranks().require_health();
}

BOOST_AUTO_TEST_CASE(what_cannot_be_reduced_is_refused) {
    if (ranks().size() == 1) return;  // a group of one adds nothing
    Stream stream(Device::cuda);
    const Buffer x(16, Device::cuda);
    BOOST_CHECK_THROW(ranks().all_reduce(stream, x.tensor({16}, Dtype::u8), ReduceOp::sum), Error);
}

BOOST_AUTO_TEST_CASE(devices_have_three_names) {
    BOOST_TEST((choose_device(world(), "cpu") == Device::cpu));
    BOOST_CHECK_THROW(choose_device(world(), "gpu"), UsageError);
}
