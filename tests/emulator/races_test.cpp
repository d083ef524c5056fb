/// Missing order, found by the race checker at its source line even where the result comes out right. In builds without
/// it there is nothing to test.

#include "emulator/check_report.hpp"
#include "emulator/wrong_kernels.hpp"

using namespace rf::emulator;
namespace wrong = rf::wrong;
using wrong::Mistake;

#ifndef __SANITIZE_THREAD__
BOOST_AUTO_TEST_CASE(needs_the_race_checker) { std::exit(77); }
#else

namespace {

constexpr int n = Sample::n;
constexpr std::size_t bytes = n * sizeof(float);

/// A race is found in whatever order things happen to run.
void check_race(const std::function<void(Sample&)>& wrong, std::initializer_list<const char*> words) {
    static std::uint64_t seed = 0;
    set_seed(++seed);
    check_report(
        [&] {
            Sample p;
            wrong(p);
            cudaDeviceSynchronize();
        },
        words);
}

cudaEvent_t make_event() {
    cudaEvent_t event = nullptr;
    require(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    return event;
}

void order(cudaStream_t first, cudaStream_t then) {
    cudaEvent_t event = make_event();
    require(cudaEventRecord(event, first));
    require(cudaStreamWaitEvent(then, event, 0));
    require(cudaEventDestroy(event));
}

}  // namespace

BOOST_AUTO_TEST_CASE(threads_of_a_block) {
    for (const Mistake mistake : {Mistake::no_block_barrier, Mistake::no_warp_barrier, Mistake::one_cell})
        check_race([&](Sample& p) { wrong::twice(p.stream, p.x, p.y, 1, mistake); },
                   {"emulator: a race; its later access is of [kernel twice, block (0, 0, 0), thread (", "ThreadSanitizer: data race", "wrong_kernels.cu"});
    check_race([](Sample& p) { wrong::staged(p.stream, p.x, p.y, Mistake::no_barrier_after_wait); },
               {"[kernel staged, block (0, 0, 0), thread (", "ThreadSanitizer: data race", "wrong_kernels.cu"});
}

BOOST_AUTO_TEST_CASE(blocks_of_a_grid) {
    // All blocks write the same number.
    check_race([](Sample& p) { wrong::twice(p.stream, p.x, p.y, Sample::blocks, Mistake::cell_of_all_blocks); }, {"[kernel twice, block (", "data race", "wrong_kernels.cu"});
}

BOOST_AUTO_TEST_CASE(streams) {
    check_race(
        [](Sample& p) {
            wrong::twice(p.stream, p.x, p.y, Sample::blocks);
            wrong::add(p.other, p.y, n, 0);
        },
        {"[kernel ", "data race", "wrong_kernels.cu"});
    check_race(
        [](Sample& p) {
            wrong::twice(p.stream, p.x, p.y, Sample::blocks);
            cudaMemcpyAsync(p.host, p.y, bytes, cudaMemcpyDefault, p.other);
        },
        {"data race", "memmove"});
    check_race(
        [](Sample& p) {
            cudaMemsetAsync(p.y, 0, bytes, p.stream);
            cudaMemcpyAsync(p.y, p.x, bytes, cudaMemcpyDefault, p.other);
        },
        {"a race; its later access is of the host or a stream's copy", "memset", "memmove"});
    check_race(
        [](Sample& p) {
            cudaMemset(p.y, 0, bytes);
            wrong::add(p.stream, p.y, n, 1);
        },
        {"data race", "memset"});
    // An event before the work it should wait for.
    check_race(
        [](Sample& p) {
            order(p.stream, p.other);
            wrong::twice(p.stream, p.x, p.y, Sample::blocks);
            wrong::add(p.other, p.y, n, 0);
        },
        {"[kernel ", "data race"});
    check_race(
        [](Sample& p) {  // branches of a graph
            cudaStreamBeginCapture(p.stream, cudaStreamCaptureModeThreadLocal);
            order(p.stream, p.other);
            wrong::twice(p.stream, p.x, p.y, Sample::blocks);
            wrong::add(p.other, p.y, n, 0);
            order(p.other, p.stream);
            cudaGraph_t graph = nullptr;
            cudaGraphExec_t ready = nullptr;
            cudaStreamEndCapture(p.stream, &graph);
            cudaGraphInstantiate(&ready, graph, 0);
            cudaGraphLaunch(ready, p.stream);
        },
        {"[kernel ", "data race"});
}

BOOST_AUTO_TEST_CASE(the_host_and_a_stream) {
    check_race(
        [](Sample& p) {
            cudaMemcpyAsync(p.y, p.host, bytes, cudaMemcpyDefault, p.stream);
            p.host[1] = 5;
        },
        {"data race", "races_test.cpp", "memmove"});
    check_race(
        [](Sample& p) {
            cudaMemcpyAsync(p.host, p.x, bytes, cudaMemcpyDefault, p.stream);
            cudaStreamSynchronize(p.other);  // of the wrong stream
            if (p.host[1] == 77) std::abort();
        },
        {"data race", "races_test.cpp", "memmove"});
}

BOOST_AUTO_TEST_CASE(right_programs_are_clean) {
    for (int seed = 0; seed < seeds; ++seed) {
        set_seed(static_cast<std::uint64_t>(seed));
        Sample p;
        order(p.stream, p.other);
        wrong::twice(p.other, p.x, p.y, Sample::blocks);
        order(p.other, p.stream);
        wrong::add(p.stream, p.y, n, 1);
        require(cudaMemcpyAsync(p.host, p.y, bytes, cudaMemcpyDefault, p.stream));
        require(cudaStreamSynchronize(p.stream));
        for (int i = 0; i < n; ++i) BOOST_TEST(p.host[i] == 2 * (i + 1) + 1);
        p.host[0] = 0;
        require(cudaMemcpyAsync(p.x, p.host, bytes, cudaMemcpyDefault, p.other));
        order(p.other, p.stream);
        wrong::staged(p.stream, p.x, p.y);
        BOOST_TEST(p.download(p.y)[63] == 0);
    }
}

BOOST_AUTO_TEST_CASE(right_graphs_are_clean) {
    for (int seed = 0; seed < seeds; ++seed) {
        set_seed(static_cast<std::uint64_t>(seed));
        Sample p;
        require(cudaStreamBeginCapture(p.stream, cudaStreamCaptureModeThreadLocal));
        order(p.stream, p.other);
        wrong::twice(p.other, p.x, p.y, Sample::blocks);
        order(p.other, p.stream);
        wrong::add(p.stream, p.y, n, 1);
        require(cudaMemcpyAsync(p.host, p.y, bytes, cudaMemcpyDefault, p.stream));
        cudaGraph_t graph = nullptr;
        cudaGraphExec_t ready = nullptr;
        require(cudaStreamEndCapture(p.stream, &graph));
        require(cudaGraphInstantiate(&ready, graph, 0));
        for (int again = 0; again < 3; ++again) {
            require(cudaGraphLaunch(ready, p.stream));
            wrong::add(p.stream, p.x, n, 0);
            require(cudaStreamSynchronize(p.stream));
            for (int i = 0; i < n; ++i) BOOST_TEST(p.host[i] == 2 * (i + 1) + 1);
        }
        require(cudaGraphExecDestroy(ready));
        require(cudaGraphDestroy(graph));
    }
}

#endif
