/// Kernels that break the rules of the machine, each caught and named; the race checker's are in races_test.cpp.

#include "emulator/check_report.hpp"
#include "emulator/wrong_kernels.hpp"

#include <bit>
#include <cmath>
#include <cstdint>
#include <source_location>
#include <tuple>

using namespace rf::emulator;
namespace wrong = rf::wrong;
using wrong::Mistake;

namespace {

void check_twice(Mistake mistake, std::initializer_list<const char*> words) {
    check_report(
        [&] {
            Sample p;
            wrong::twice(p.stream, p.x, p.y, Sample::blocks, mistake);
            cudaStreamSynchronize(p.stream);
        },
        words);
}

std::vector<float> run_staged(Mistake mistake) {
    Sample p;
    wrong::staged(p.stream, p.x, p.y, mistake);
    return p.download(p.y);
}

constexpr const char* culprit = "[kernel twice, block (0, 0, 0), thread (5, 0, 0)]";

}  // namespace

BOOST_AUTO_TEST_CASE(right_kernels_are_right_in_any_order) {
    for (int seed = 0; seed < seeds; ++seed) {
        set_seed(static_cast<std::uint64_t>(seed));
        Sample p;
        wrong::twice(p.stream, p.x, p.y, Sample::blocks);
        wrong::add(p.stream, p.y, Sample::n - 1, 1);
        const std::vector<float> y = p.download(p.y), staged = run_staged(Mistake::none);
        for (int i = 0; i < Sample::n; ++i) BOOST_TEST(y[static_cast<std::size_t>(i)] == 2 * (i + 1) + (i < Sample::n - 1));
        for (int i = 0; i < 64; ++i) BOOST_TEST(staged[static_cast<std::size_t>(i)] == 64 - i);
    }
}

BOOST_AUTO_TEST_CASE(matrix_fragments_lie_as_the_instruction_set_says) {
    // Small whole numbers: exact in bf16 and f32.
    std::vector<std::uint16_t> a(256), b(128);
    const auto number = [](int i) { return static_cast<float>(i % 13 - 6); };
    const auto bits = [](float x) { return static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(x) >> 16); };
    for (int i = 0; i < 256; ++i) a[static_cast<std::size_t>(i)] = bits(number(i));
    for (int i = 0; i < 128; ++i) b[static_cast<std::size_t>(i)] = bits(number(3 * i + 1));
    Sample p;
    auto* on_device = reinterpret_cast<std::uint16_t*>(p.x);
    require(cudaMemcpy(on_device, a.data(), 512, cudaMemcpyDefault));
    require(cudaMemcpy(on_device + 256, b.data(), 256, cudaMemcpyDefault));
    wrong::product(p.stream, on_device, on_device + 256, p.y);
    const std::vector<float> d = p.download(p.y);
    for (int m = 0; m < 16; ++m)
        for (int n = 0; n < 8; ++n) {
            float sum = 0;
            for (int k = 0; k < 16; ++k) sum += number(16 * m + k) * number(3 * (16 * n + k) + 1);
            BOOST_TEST(d[static_cast<std::size_t>(8 * m + n)] == sum);
        }
}

BOOST_AUTO_TEST_CASE(accesses_outside_of_memory) {
    check_twice(Mistake::write_far_past_end, {"device work touches", "257 bytes past the end of 768 bytes of device memory at wrong_kernels.cu:", culprit});
    check_twice(Mistake::read_before_begin, {"device work touches", "4100 bytes before 768 bytes of device memory", culprit});
    check_twice(Mistake::too_much_shared, {"the kernel uses 512 bytes of shared memory, the launch gives 256", culprit});
    check_twice(Mistake::deep_stack, {"a thread uses more stack", culprit});
}

#ifdef __SANITIZE_ADDRESS__
BOOST_AUTO_TEST_CASE(accesses_just_outside_of_memory_have_their_line) {
    check_twice(Mistake::shared_past_end, {culprit, "AddressSanitizer: heap-buffer-overflow", "wrong_kernels.cu"});
}
#endif

BOOST_AUTO_TEST_CASE(misaligned_accesses) {
    check_twice(Mistake::misaligned, {"misaligned access of 16 bytes at wrong_kernels.cu:", culprit});
    check_report([] { run_staged(Mistake::misaligned_copy); }, {"misaligned access of 16 bytes at wrong_kernels.cu:", "[kernel staged, block (0, 0, 0), thread (4, 0, 0)]"});
}

BOOST_AUTO_TEST_CASE(barriers_that_not_all_threads_reach_alike) {
    check_twice(Mistake::divergent_barrier, {"divergent barrier: thread (", "waits at wrong_kernels.cu:", "[kernel twice, block (0, 0, 0)"});
    check_twice(Mistake::barrier_after_exit, {"divergent barrier at wrong_kernels.cu:", "thread (5, 0, 0) has left the kernel"});
    check_twice(Mistake::divergent_exchange, {"divergent warp exchange: thread (", "waits at wrong_kernels.cu:", "[kernel twice, block (0, 0, 0)"});
    check_twice(Mistake::exchange_after_exit, {"divergent warp exchange at wrong_kernels.cu:", "thread (5, 0, 0) has left the kernel"});
}

BOOST_AUTO_TEST_CASE(asynchronous_copies_arrive_at_their_wait) {
    for (const float value : run_staged(Mistake::late_wait)) BOOST_TEST(std::isnan(value));
    const std::vector<float> older = run_staged(Mistake::wait_for_older_group);
    for (int i = 0; i < 64; ++i) BOOST_TEST(std::isnan(older[static_cast<std::size_t>(63 - i)]) == (i % 8 >= 4));
    check_report([] { run_staged(Mistake::no_wait); }, {"ends with asynchronous copies that were never waited for", "[kernel staged"});
}

BOOST_AUTO_TEST_CASE(launches_that_no_machine_takes) {
    const auto run = [](unsigned threads, std::size_t shared) { run_grid({.name = "none", .grid = dim3(1), .block = dim3(threads), .shared = shared}, [] {}); };
    check_report([&] { run(48, 0); }, {"a block of 48 threads (whole warps, at most 1024)"});
    check_report([&] { run(2048, 0); }, {"a block of 2048 threads"});
    check_report([&] { run(32, 300 << 10); }, {"307200 bytes of shared memory asked for"});
}

BOOST_AUTO_TEST_CASE(counters_of_a_kernel) {
    count(true);
    reset_counters();
    Sample p;
    wrong::twice(p.stream, p.x, p.y, Sample::blocks);
    p.download(p.y);
    const Counters& c = counters().at("twice");
    count(false);
    BOOST_TEST(c.launches == 1);
    BOOST_TEST(c.blocks == 3);
    BOOST_TEST(c.barriers == 3 * 3);
    BOOST_TEST(c.global_bytes == 2 * 768);
    BOOST_TEST(c.global_sectors == 2 * 768 / 32);
    BOOST_TEST(c.shared_accesses == 3 * 2 * 6);
    BOOST_TEST(c.shared_wavefronts == c.shared_ideal);
    BOOST_TEST(c.conflicts.empty());
}

BOOST_AUTO_TEST_CASE(shared_accesses_go_in_groups_of_lanes) {
    // Each lane asks for neighbouring bytes; of more than 16 the compiler makes two instructions, here with a step between lanes.
    const auto wavefronts = [](std::size_t bytes) {
        count(true);
        reset_counters();
        static std::byte memory[32 * 32];
        run_grid({.name = "access", .grid = dim3(1), .block = dim3(32)},
                 [bytes] { note_access(memory + bytes * static_cast<std::size_t>(this_thread().lane), bytes, 1, Access::shared_load, std::source_location::current()); });
        const Counters& c = counters().at("access");
        count(false);
        return std::tuple(c.shared_accesses, c.shared_wavefronts, c.shared_ideal);
    };
    BOOST_TEST((wavefronts(4) == std::tuple(1, 1, 1)));
    BOOST_TEST((wavefronts(8) == std::tuple(1, 2, 2)));
    BOOST_TEST((wavefronts(16) == std::tuple(1, 4, 4)));
    BOOST_TEST((wavefronts(32) == std::tuple(2, 2 * 4 * 2, 2 * 4)));  // lanes i and i + 4 share banks
}
