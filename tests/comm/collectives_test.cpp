/// Every collective on any number of ranks; alone without mpirun the group of one answers the same questions.

#include "comm/communicator.hpp"

#include "core/buffer.hpp"
#include "tests/kernels/check_close.hpp"

#include <numeric>

using namespace rf;
using namespace rf::test;

namespace {

/// The world of the whole program, closed before MPI is.
Communicator& world() {
    static int argc = 0;
    static char** argv = nullptr;
    static World all(argc, argv);
    return all.communicator();
}

template <class T>
std::vector<T> numbers_of(int rank, std::int64_t n) {
    std::vector<T> out;
    for (std::int64_t i = 0; i < n; ++i) out.push_back(T(static_cast<float>((rank + 1) * (i % 11 - 5))));
    return out;
}
double value_of(double x) { return x; }
double value_of(bfloat16 x) { return static_cast<float>(x); }

/// Small whole numbers: every sum is exact in every dtype.
template <class T>
void check_all_reduce() {
    Communicator& comm = world();
    const int n = comm.size();
    for (const std::int64_t count : {0, 1, 5, 1000}) {
        for (const ReduceOp op : {ReduceOp::sum, ReduceOp::max, ReduceOp::min}) {
            std::vector<T> x = numbers_of<T>(comm.rank(), count);
            x.reserve(1);  // an address even where there is nothing
            Stream stream;
            comm.all_reduce(stream, view(x.data(), {count}), op);
            for (std::int64_t i = 0; i < count; ++i) {
                const double one = static_cast<double>(i % 11 - 5);
                const double largest = std::max(one, n * one), smallest = std::min(one, n * one);
                const double expected = op == ReduceOp::sum ? one * n * (n + 1) / 2 : op == ReduceOp::max ? largest : smallest;
                BOOST_TEST(value_of(x[static_cast<std::size_t>(i)]) == expected);
            }
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

BOOST_AUTO_TEST_CASE(bf16_is_summed_in_f32_and_rounded_once) {
    Communicator& comm = world();
    // 256 + 1 + 1 + 1: in bf16 steps each 1 would be lost.
    std::vector<bfloat16> x{bfloat16(comm.rank() == 0 ? 256.0F : 1.0F)};
    Stream stream;
    comm.all_reduce(stream, view(x.data(), {1}), ReduceOp::sum);
    BOOST_TEST(x[0].bits == bfloat16(255.0F + static_cast<float>(comm.size())).bits);
}

BOOST_AUTO_TEST_CASE(rounded_sums_have_the_same_bits_on_every_rank_and_every_time) {
    Communicator& comm = world();
    for (const std::int64_t count : {1, 1000, 1 << 20}) {  // MPI changes its algorithm with the length
        std::vector<std::vector<float>> results;
        for (int time = 0; time < 2; ++time) {
            std::vector<float> x;
            for (std::int64_t i = 0; i < count; ++i) x.push_back(std::sin(static_cast<float>(i + 1) * (1.0F + static_cast<float>(comm.rank()))));
            Stream stream;
            comm.all_reduce(stream, view(x.data(), {count}), ReduceOp::sum);
            results.push_back(x);
        }
        BOOST_TEST((results[0] == results[1]));
        std::vector<float> all(static_cast<std::size_t>(count * comm.size()));
        Stream stream;
        comm.all_gather(stream, view(results[0].data(), {count}), view(all.data(), {count * comm.size()}));
        for (int r = 0; r < comm.size(); ++r)
            BOOST_TEST(std::equal(results[0].begin(), results[0].end(), all.begin() + r * count), "rank " << r << " has another sum of " << count);
        for (std::int64_t i = 0; i < count; i += 1 + count / 7) {
            double sum = 0;
            for (int r = 0; r < comm.size(); ++r) sum += std::sin(static_cast<float>(i + 1) * (1.0F + static_cast<float>(r)));
            check_close(results[0][static_cast<std::size_t>(i)], sum, tolerance(Dtype::f32, comm.size()));
        }
    }
}

BOOST_AUTO_TEST_CASE(an_integer_that_cannot_be_reduced_is_refused) {
    if (world().size() == 1) return;  // a group of one adds nothing
    std::vector<std::uint8_t> x(3);
    Stream stream;
    BOOST_CHECK_THROW(world().all_reduce(stream, {x.data(), {3}, Dtype::u8}, ReduceOp::sum), Error);
}

BOOST_AUTO_TEST_CASE(all_gather_lays_the_ranks_one_after_another) {
    Communicator& comm = world();
    for (const std::int64_t n : {0, 1, 7}) {
        for (const bool in_place : {false, true}) {
            std::vector<double> all(static_cast<std::size_t>(n * comm.size()) + 1, -1), own;
            for (std::int64_t i = 0; i < n; ++i) own.push_back(100 * comm.rank() + static_cast<double>(i));
            own.reserve(1);
            double* mine = all.data() + n * comm.rank();
            if (in_place) std::copy(own.begin(), own.end(), mine);
            Stream stream;
            comm.all_gather(stream, view(in_place ? mine : own.data(), {n}), view(all.data(), {n * comm.size()}));
            for (int r = 0; r < comm.size(); ++r)
                for (std::int64_t i = 0; i < n; ++i) BOOST_TEST(all[static_cast<std::size_t>(r * n + i)] == 100 * r + static_cast<double>(i));
            BOOST_TEST(all.back() == -1);
        }
    }
    double one = 0;
    std::vector<double> wrong(static_cast<std::size_t>(comm.size()) + 1);
    Stream stream;
    BOOST_CHECK_THROW(comm.all_gather(stream, view(&one, {1}), view(wrong.data(), {comm.size() + 1})), Error);
}

BOOST_AUTO_TEST_CASE(any_rank_can_broadcast) {
    Communicator& comm = world();
    for (int root = 0; root < comm.size(); ++root) {
        std::vector<std::int32_t> x(5, comm.rank());
        Stream stream;
        comm.broadcast(stream, view(x.data(), {5}), root);
        BOOST_TEST((x == std::vector<std::int32_t>(5, root)));
        for (const std::size_t length : {0, 1, 100000}) {
            std::string text(comm.rank() == root ? length : 7, static_cast<char>('a' + comm.rank()));
            comm.broadcast(text, root);
            BOOST_TEST((text == std::string(length, static_cast<char>('a' + root))));
        }
    }
}

BOOST_AUTO_TEST_CASE(all_to_all_moves_empty_and_uneven_pieces) {
    Communicator& comm = world();
    const int n = comm.size(), me = comm.rank();
    // Rank s sends (s + 2 r) % 4 bytes to rank r: some of them none, 0 to itself on rank 0. Byte b is 16 s + 4 r + b.
    const auto length = [](int s, int r) { return (s + 2 * r) % 4; };
    std::vector<std::int64_t> send_begin{0}, recv_begin{0};
    for (int r = 0; r < n; ++r) send_begin.push_back(send_begin.back() + length(me, r)), recv_begin.push_back(recv_begin.back() + length(r, me));
    std::vector<std::uint8_t> send(static_cast<std::size_t>(send_begin.back()) + 1), recv(static_cast<std::size_t>(recv_begin.back()) + 1, 255);
    for (int r = 0; r < n; ++r)
        for (int b = 0; b < length(me, r); ++b) send[static_cast<std::size_t>(send_begin[static_cast<std::size_t>(r)] + b)] = static_cast<std::uint8_t>(16 * me + 4 * r + b);
    Stream stream;
    comm.all_to_all(stream, send.data(), send_begin, recv.data(), recv_begin);
    for (int s = 0; s < n; ++s)
        for (int b = 0; b < length(s, me); ++b) BOOST_TEST(recv[static_cast<std::size_t>(recv_begin[static_cast<std::size_t>(s)] + b)] == 16 * s + 4 * me + b);
    BOOST_TEST(recv.back() == 255);
    const std::vector<std::int64_t> nothing(static_cast<std::size_t>(n) + 1, 0);
    comm.all_to_all(stream, send.data(), nothing, recv.data(), nothing);
}

BOOST_AUTO_TEST_CASE(transfers_larger_than_one_piece_arrive_whole) {
    Communicator& comm = world();
    if (comm.size() != 2) return;  // two ranks are enough, and 1 GiB in all
    const std::int64_t bytes = (1 << 28) + 3;  // the implementation sends at most 2^28 elements at once
    const Buffer from(comm.rank() == 0 ? bytes : 1), to(comm.rank() == 1 ? bytes : 1);
    const auto pattern = [](std::int64_t i) { return static_cast<std::byte>(i * 7 + (i >> 20)); };
    if (comm.rank() == 0)
        for (std::int64_t i = 0; i < bytes; ++i) from.data()[i] = pattern(i);
    const bool first = comm.rank() == 0;
    const std::int64_t send_begin[] = {0, 0, first ? bytes : 0}, recv_begin[] = {0, first ? 0 : bytes, first ? 0 : bytes};
    Stream stream;
    comm.all_to_all(stream, from.data(), send_begin, to.data(), recv_begin);
    std::int64_t wrong = 0;
    if (!first)
        for (std::int64_t i = 0; i < bytes; ++i) wrong += to.data()[i] != pattern(i), to.data()[i] = std::byte{0};
    BOOST_TEST(wrong == 0);
    comm.broadcast(stream, {first ? from.data() : to.data(), {bytes}, Dtype::u8}, 0);
    if (!first)
        for (std::int64_t i = 0; i < bytes; ++i) wrong += to.data()[i] != pattern(i);
    BOOST_TEST(wrong == 0);
}

BOOST_AUTO_TEST_CASE(small_values_are_reduced_and_gathered) {
    Communicator& comm = world();
    const int n = comm.size();
    BOOST_TEST(comm.sum(comm.rank() + 0.5) == n * (n - 1) / 2 + 0.5 * n);
    BOOST_TEST(comm.max(-comm.rank()) == 0);
    BOOST_TEST(comm.min(-comm.rank()) == 1 - n);
    const std::vector<std::int64_t> all = comm.gather((std::int64_t{1} << 60) + comm.rank());
    for (int r = 0; r < n; ++r) BOOST_TEST(all[static_cast<std::size_t>(r)] == (std::int64_t{1} << 60) + r);
    // The first rank that has something to say.
    for (int first = 0; first <= comm.size(); ++first) {
        const std::string mine = comm.rank() >= first ? "rank " + std::to_string(comm.rank()) : "";
        BOOST_TEST(comm.first_text(mine) == (first < comm.size() ? "rank " + std::to_string(first) : ""));
    }
}

BOOST_AUTO_TEST_CASE(split_groups_keep_the_order_of_ranks) {
    Communicator& comm = world();
    const auto parity = comm.split(comm.rank() % 2);
    BOOST_TEST(parity->rank() == comm.rank() / 2);
    BOOST_TEST(parity->size() == (comm.size() + 1 - comm.rank() % 2) / 2);
    double sum = 0;
    for (int r = comm.rank() % 2; r < comm.size(); r += 2) sum += r;
    BOOST_TEST(parity->sum(comm.rank()) == sum);
    const auto alone = comm.split(comm.rank());
    BOOST_TEST(alone->size() == 1);
    BOOST_TEST(alone->sum(3) == 3);
    comm.barrier();
}

BOOST_AUTO_TEST_CASE(a_group_of_one_copies) {
    const auto self = make_self_communicator();
    std::vector<std::int32_t> in{1, 2, 3}, out(3);
    Stream stream;
    self->all_gather(stream, view(in.data(), {3}), view(out.data(), {3}));
    BOOST_TEST((in == out));
    const std::int64_t send_begin[] = {4, 12}, recv_begin[] = {0, 8};
    self->all_to_all(stream, in.data(), send_begin, out.data(), recv_begin);
    BOOST_TEST((out == std::vector<std::int32_t>{2, 3, 3}));
    self->all_reduce(stream, view(in.data(), {3}), ReduceOp::sum);
    BOOST_TEST((in == std::vector<std::int32_t>{1, 2, 3}));
    BOOST_TEST(self->split(9)->size() == 1);
}
