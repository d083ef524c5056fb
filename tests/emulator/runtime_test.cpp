/// Programs that break the rules of the runtime, each caught and named, and what right ones see of it.

#include "emulator/check_report.hpp"
#include "emulator/runtime.hpp"
#include "emulator/wrong_kernels.hpp"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>

using namespace rf::emulator;
namespace wrong = rf::wrong;
using wrong::Mistake;

namespace {

constexpr int n = Sample::n;
constexpr std::size_t bytes = n * sizeof(float);

cudaEvent_t make_event() {
    cudaEvent_t event = nullptr;
    require(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    return event;
}

/// y = 2 x + 1, then host = y, by two streams: x is doubled in one, the rest is done in the other.
void forked(Sample& p, cudaEvent_t fork, cudaEvent_t join) {
    require(cudaEventRecord(fork, p.stream));
    require(cudaStreamWaitEvent(p.other, fork, 0));
    wrong::twice(p.other, p.x, p.y, Sample::blocks);
    wrong::add(p.other, p.y, n, 1);
    require(cudaEventRecord(join, p.other));
    require(cudaStreamWaitEvent(p.stream, join, 0));
    require(cudaMemcpyAsync(p.host, p.y, bytes, cudaMemcpyDefault, p.stream));
}

void check_doubled(const float* host, float more) {
    for (int i = 0; i < n; ++i) BOOST_TEST(host[i] == 2 * static_cast<float>(i + 1) + more);
}

cudaStream_t make_stream() {
    cudaStream_t stream = nullptr;
    require(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    return stream;
}

/// What follows on `then` waits for what is on `first` now.
void order(cudaStream_t first, cudaStream_t then) {
    cudaEvent_t event = make_event();
    require(cudaEventRecord(event, first));
    require(cudaStreamWaitEvent(then, event, 0));
    require(cudaEventDestroy(event));
}

cudaGraphExec_t capture(Sample& p, const std::function<void()>& body) {
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t ready = nullptr;
    require(cudaStreamBeginCapture(p.stream, cudaStreamCaptureModeThreadLocal));
    body();
    require(cudaStreamEndCapture(p.stream, &graph));
    require(cudaGraphInstantiate(&ready, graph, 0));
    require(cudaGraphDestroy(graph));
    return ready;
}

/// Runs `wrong` inside a capture.
void check_in_capture(const std::function<void(Sample&)>& wrong, const char* words) {
    check_report([&] {
        Sample p;
        capture(p, [&] { wrong(p); });
    }, {words});
}

}  // namespace

BOOST_AUTO_TEST_CASE(two_streams_and_events_are_right_in_any_order) {
    for (int seed = 0; seed < seeds; ++seed) {
        set_seed(static_cast<std::uint64_t>(seed));
        Sample p;
        cudaEvent_t fork = make_event(), join = make_event();
        for (int again = 0; again < 3; ++again) {
            forked(p, fork, join);
            require(cudaEventRecord(fork, p.stream));
            require(cudaEventSynchronize(fork));
            check_doubled(p.host, 1);
        }
        require(cudaEventDestroy(fork));
        require(cudaEventDestroy(join));
    }
}

BOOST_AUTO_TEST_CASE(a_captured_graph_is_right_at_every_replay) {
    for (int seed = 0; seed < seeds; ++seed) {
        set_seed(static_cast<std::uint64_t>(seed));
        Sample p;
        cudaEvent_t fork = make_event(), join = make_event();
        cudaGraphExec_t graph = capture(p, [&] { forked(p, fork, join); });
        std::memset(p.host, 0, bytes);
        require(cudaStreamSynchronize(p.stream));
        BOOST_TEST(p.host[0] == 0);  // nothing ran yet
        for (int again = 0; again < 3; ++again) {
            require(cudaGraphLaunch(graph, p.stream));
            wrong::add(p.stream, p.y, n, 1);
            require(cudaMemcpyAsync(p.host, p.y, bytes, cudaMemcpyDefault, p.stream));
            require(cudaStreamSynchronize(p.stream));
            check_doubled(p.host, 2);
        }
        require(cudaGraphExecDestroy(graph));
        require(cudaEventDestroy(fork));
        require(cudaEventDestroy(join));
    }
}

BOOST_AUTO_TEST_CASE(launches_of_one_graph_follow_each_other) {
    for (int seed = 0; seed < seeds; ++seed) {
        set_seed(static_cast<std::uint64_t>(seed));
        Sample p;
        int inside = 0, most = 0;
        cudaGraphExec_t graph = capture(p, [&] {
            enqueue(p.stream, "begin", [&] { most = std::max(most, ++inside); });
            enqueue(p.stream, "end", [&] { --inside; });
        });
        for (int again = 0; again < 3; ++again) {
            require(cudaGraphLaunch(graph, p.stream));
            require(cudaGraphLaunch(graph, p.other));
        }
        require(cudaDeviceSynchronize());
        BOOST_TEST(most == 1);
        BOOST_TEST(inside == 0);
        require(cudaGraphExecDestroy(graph));
    }
}

BOOST_AUTO_TEST_CASE(a_fork_may_be_joined_over_another) {
    for (int seed = 0; seed < seeds; ++seed) {
        set_seed(static_cast<std::uint64_t>(seed));
        Sample p;
        cudaStream_t third = make_stream();
        cudaEvent_t unused = make_event();
        cudaGraphExec_t graph = capture(p, [&] {
            order(p.stream, p.other);
            wrong::twice(p.other, p.x, p.y, Sample::blocks);
            order(p.other, third);
            require(cudaEventRecord(unused, p.other));
            wrong::add(third, p.y, n, 1);
            order(third, p.stream);
        });
        require(cudaGraphLaunch(graph, p.stream));
        require(cudaStreamSynchronize(p.stream));
        check_doubled(p.download(p.y).data(), 1);
        require(cudaGraphExecDestroy(graph));
        require(cudaEventDestroy(unused));
        require(cudaStreamDestroy(third));
    }
}

BOOST_AUTO_TEST_CASE(polling_gets_on) {
    for (int seed = 0; seed < seeds; ++seed) {
        set_seed(static_cast<std::uint64_t>(seed));
        Sample p;
        wrong::twice(p.stream, p.x, p.y, Sample::blocks);
        cudaEvent_t event = make_event();
        require(cudaEventRecord(event, p.stream));
        int polls = 0;
        while (cudaEventQuery(event) == cudaErrorNotReady && polls < 100) ++polls;
        BOOST_TEST(polls < 100);
        while (cudaStreamQuery(p.other) == cudaErrorNotReady && polls < 100) ++polls;
        check_doubled(p.download(p.y).data(), 0);
        require(cudaEventDestroy(event));
    }
}

#ifndef __SANITIZE_THREAD__  // these programs are races by design
BOOST_AUTO_TEST_CASE(work_runs_late_and_streams_in_any_order) {
    // Without an event the order of two streams is open: both are seen.
    int first = 0, late = 0;
    for (int seed = 0; seed < seeds; ++seed) {
        set_seed(static_cast<std::uint64_t>(seed));
        std::string order;
        Sample p;
        enqueue(p.stream, "a", [&] { order += 'a'; });
        enqueue(p.other, "b", [&] { order += 'b'; });
        late += order.empty();
        require(cudaDeviceSynchronize());
        BOOST_TEST(order.size() == 2U);
        first += order == "ab";
    }
    BOOST_TEST(first > 0);
    BOOST_TEST(first < seeds);
    BOOST_TEST(late > 0);
}

BOOST_AUTO_TEST_CASE(a_wait_is_for_the_record_before_it) {
    for (int seed = 0; seed < seeds; ++seed) {
        set_seed(static_cast<std::uint64_t>(seed));
        Sample p;
        cudaStream_t third = make_stream();
        cudaEvent_t event = make_event();
        bool arrived = false, passed = false;
        enqueue_transfer(p.stream, "transfer", [&] { return [&] { return arrived; }; });
        require(cudaEventRecord(event, p.stream));
        require(cudaStreamWaitEvent(third, event, 0));
        enqueue(third, "after the first record", [&] { passed = true; });
        require(cudaEventRecord(event, p.other));
        require(cudaEventSynchronize(event));
        for (int again = 0; again < 10; ++again) cudaStreamQuery(third);
        BOOST_TEST(!passed);
        arrived = true;
        require(cudaStreamSynchronize(third));
        BOOST_TEST(passed);
        require(cudaEventDestroy(event));
        require(cudaStreamDestroy(third));
    }
}

BOOST_AUTO_TEST_CASE(other_streams_go_on_while_a_transfer_is_under_way) {
    Sample p;
    bool arrived = false;
    enqueue_transfer(p.stream, "transfer", [&] { return [&] { return arrived; }; });
    enqueue(p.other, "arrival", [&] { arrived = true; });
    require(cudaStreamSynchronize(p.stream));
    BOOST_TEST(arrived);
}

BOOST_AUTO_TEST_CASE(pinned_memory_read_before_the_copy_is_waited_for) {
    int poisoned = 0;
    for (int seed = 0; seed < seeds; ++seed) {
        set_seed(static_cast<std::uint64_t>(seed));
        Sample p;
        require(cudaMemcpyAsync(p.host, p.x, bytes, cudaMemcpyDefault, p.stream));
        std::uint32_t bits = 0;
        std::memcpy(&bits, p.host, sizeof bits);
        poisoned += bits == 0xFBFBFBFBU;
        require(cudaStreamSynchronize(p.stream));
        BOOST_TEST(p.host[0] == 1);
    }
    BOOST_TEST(poisoned > seeds / 2);
}

BOOST_AUTO_TEST_CASE(memory_filled_on_no_stream_and_not_waited_for) {
    int late = 0;
    for (int seed = 0; seed < seeds; ++seed) {
        set_seed(static_cast<std::uint64_t>(seed));
        Sample p;
        require(cudaMemset(p.y, 0, bytes));
        wrong::add(p.stream, p.y, n, 1);
        late += p.download(p.y)[0] != 1;
        require(cudaMemset(p.y, 0, bytes));
        require(cudaDeviceSynchronize());
        wrong::add(p.stream, p.y, n, 1);
        BOOST_TEST(p.download(p.y)[0] == 1);
    }
    BOOST_TEST(late > 0);
}

BOOST_AUTO_TEST_CASE(staging_memory_overwritten_too_early) {
    int wrong_data = 0;
    for (int seed = 0; seed < seeds; ++seed) {
        set_seed(static_cast<std::uint64_t>(seed));
        Sample p;
        require(cudaMemcpyAsync(p.y, p.host, bytes, cudaMemcpyDefault, p.stream));
        p.host[0] = -1;
        wrong_data += p.download(p.y)[0] == -1;
    }
    BOOST_TEST(wrong_data > seeds / 2);
}
#endif

BOOST_AUTO_TEST_CASE(host_code_that_touches_device_memory) {
    check_report([] { Sample p; p.y[3] = 1; }, {"host code touches byte 12 of 768 bytes of device memory at "});
    check_report([] { Sample p; p.host[0] = p.x[0]; }, {"host code touches byte 0 of 768 bytes of device memory"});
    check_report([] { Sample p; std::memset(p.y, 0, bytes); }, {"host code touches"});
}

BOOST_AUTO_TEST_CASE(copies_outside_of_memory) {
    static float pageable[n];
    check_report([] { Sample p; cudaMemcpyAsync(p.x, pageable, bytes, cudaMemcpyDefault, p.stream); }, {"cudaMemcpyAsync of 768 bytes: the host's side is not pinned memory"});
    check_report([] { Sample p; cudaMemcpyAsync(p.y, p.x, bytes + 4, cudaMemcpyDefault, p.stream); }, {"cudaMemcpyAsync of 772 bytes: not inside one live allocation"});
    check_report([] { Sample p; cudaMemcpy(pageable, p.x + 1, bytes, cudaMemcpyDefault); }, {"cudaMemcpy of 768 bytes: not inside one live allocation"});
    check_report([] { Sample p; cudaMemsetAsync(p.host, 0, bytes, p.stream); }, {"cudaMemsetAsync outside of device memory"});
}

BOOST_AUTO_TEST_CASE(memory_that_one_copy_reads_and_the_next_one_fills) {
    for (int seed = 0; seed < seeds; ++seed) {
        set_seed(static_cast<std::uint64_t>(seed));
        Sample p;
        p.host[0] = 7;
        require(cudaMemcpyAsync(p.y, p.host, bytes, cudaMemcpyDefault, p.stream));
        require(cudaMemcpyAsync(p.host, p.x, bytes, cudaMemcpyDefault, p.stream));
        BOOST_TEST(p.download(p.y)[0] == 7);
        BOOST_TEST(p.host[0] == 1);
    }
}

BOOST_AUTO_TEST_CASE(memory_that_was_freed) {
    check_report([] {
        Sample p;
        cudaFree(p.y);
        wrong::add(p.stream, p.y, n, 1);
        cudaStreamSynchronize(p.stream);
    }, {"device work touches freed memory: byte ", "[kernel add, block (", "thread ("});
    check_report([] {
        Sample p;
        cudaFree(p.y);
        cudaFree(p.y);
    }, {"cudaFree of memory that is not allocated"});
    check_report([] {
        Sample p;
        cudaFreeHost(p.host);
        cudaMemcpyAsync(p.x, p.host, bytes, cudaMemcpyDefault, p.stream);
    }, {"the host's side is not pinned memory"});
    check_report([] {
        Sample p;  // a graph outlives what it works on
        cudaGraphExec_t graph = capture(p, [&] { wrong::add(p.stream, p.y, n, 1); });
        cudaFree(p.y);
        cudaGraphLaunch(graph, p.stream);
        cudaStreamSynchronize(p.stream);
    }, {"device work touches freed memory", "[kernel add"});
}

BOOST_AUTO_TEST_CASE(freeing_waits_for_what_uses_the_memory) {
    Sample p;
    float* more = nullptr;
    require(cudaMalloc(reinterpret_cast<void**>(&more), bytes));
    wrong::twice(p.stream, p.x, more, Sample::blocks);
    require(cudaMemcpyAsync(p.y, more, bytes, cudaMemcpyDefault, p.stream));
    require(cudaFree(more));
    check_doubled(p.download(p.y).data(), 0);
}

BOOST_AUTO_TEST_CASE(fresh_memory_is_no_number) {
    Sample p;
    for (const float y : p.download(p.y)) BOOST_TEST(y != y);
}

BOOST_AUTO_TEST_CASE(what_cannot_be_captured) {
    check_in_capture([](Sample&) { void* p; cudaMalloc(&p, 8); }, "cudaMalloc while a stream is captured");
    check_in_capture([](Sample& p) { cudaFree(p.x); }, "cudaFree while a stream is captured");
    check_in_capture([](Sample&) { void* p; cudaMallocHost(&p, 8); }, "cudaMallocHost while a stream is captured");
    check_in_capture([](Sample& p) { cudaMemcpy(p.y, p.x, bytes, cudaMemcpyDefault); }, "cudaMemcpy while a stream is captured");
    check_in_capture([](Sample& p) { cudaStreamSynchronize(p.stream); }, "cudaStreamSynchronize of a stream that is captured");
    check_in_capture([](Sample& p) { cudaStreamQuery(p.stream); }, "cudaStreamQuery of a stream that is captured");
    check_in_capture([](Sample&) { cudaDeviceSynchronize(); }, "cudaDeviceSynchronize while a stream is captured");
    check_in_capture([](Sample& p) {
        cudaEvent_t event = make_event();
        cudaEventRecord(event, p.stream);
        cudaEventSynchronize(event);
    }, "cudaEventSynchronize of an event that was recorded in a capture");
    check_in_capture([](Sample& p) {
        cudaEvent_t event = make_event();
        cudaEventRecord(event, p.stream);
        cudaStreamWaitEvent(p.other, event, 0);
        wrong::add(p.other, p.y, n, 1);
    }, "a forked stream was not joined");
    check_report([] {
        Sample p;
        cudaStream_t third = make_stream();
        capture(p, [&] {  // joined by a stream that is not
            order(p.stream, p.other);
            wrong::add(p.other, p.y, n, 1);
            order(p.other, third);
        });
    }, {"a forked stream was not joined"});
    check_in_capture([](Sample& p) {  // joined, then at work again
        order(p.stream, p.other);
        order(p.other, p.stream);
        wrong::add(p.other, p.y, n, 1);
    }, "a forked stream was not joined");
    check_report([] {
        Sample p;
        cudaEvent_t event = make_event();
        capture(p, [&] { cudaEventRecord(event, p.stream); });
        cudaStreamWaitEvent(p.other, event, 0);
    }, {"the event was recorded in a capture that has ended"});
}

BOOST_AUTO_TEST_CASE(streams_that_are_stuck_or_gone) {
    check_report([] {
        Sample p;
        // What the transfer needs comes only after a wait for what follows the transfer.
        cudaEvent_t event = make_event();
        bool arrived = false;
        enqueue_transfer(p.stream, "transfer", [&] { return [&] { return arrived; }; });
        cudaEventRecord(event, p.stream);
        cudaStreamWaitEvent(p.other, event, 0);
        enqueue(p.other, "arrival", [&] { arrived = true; });
        setenv("RF_EMULATOR_PATIENCE", "0", 1);
        cudaStreamSynchronize(p.other);
    }, {"the streams are stuck: transfers stay under way (transfer, a wait for an event)"});
    check_report([] { Sample p; enqueue(p.stream, "operation", [] { cudaDeviceSynchronize(); }); cudaDeviceSynchronize(); }, {"an operation of a stream calls the runtime"});
    check_report([] {
        cudaStream_t stream = nullptr;
        cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
        cudaStreamDestroy(stream);
        cudaStreamSynchronize(stream);
    }, {"cudaStreamSynchronize on a stream that does not exist"});
    check_report([] { Sample p; wrong::add(nullptr, p.y, n, 1); }, {"add on the default stream"});
    check_report([] { Sample p; cudaStreamWaitEvent(p.stream, make_event(), 0); }, {"cudaStreamWaitEvent: the event was never recorded"});
}

BOOST_AUTO_TEST_CASE(memory_and_devices_are_as_the_environment_says) {
    setenv("RF_EMULATOR_MEMORY", "1000", 1);
    setenv("RF_EMULATOR_DEVICES", "0", 1);
    void *p = nullptr, *q = nullptr;
    BOOST_TEST(cudaMalloc(&p, 700) == cudaSuccess);
    BOOST_TEST(cudaMalloc(&q, 301) == cudaErrorMemoryAllocation);
    BOOST_TEST(cudaGetLastError() == cudaErrorMemoryAllocation);
    BOOST_TEST(cudaGetLastError() == cudaSuccess);
    std::size_t free = 0, total = 0;
    require(cudaMemGetInfo(&free, &total));
    BOOST_TEST(free == 300U);
    BOOST_TEST(total == 1000U);
    require(cudaFree(p));
    int count = -1;
    BOOST_TEST(cudaGetDeviceCount(&count) == cudaErrorNoDevice);
    BOOST_TEST(count == 0);
    BOOST_TEST(cudaSetDevice(0) == cudaErrorInvalidDevice);
    unsetenv("RF_EMULATOR_MEMORY");
    unsetenv("RF_EMULATOR_DEVICES");
}

BOOST_AUTO_TEST_CASE(bytes_just_outside_of_memory) {
    const auto touch = [](Mistake mistake) {
        return [mistake] {
            Sample p;
            const std::size_t odd = 64 * sizeof(float) - 4;  // one float short of what the kernel works on
            float* y = nullptr;
            cudaMalloc(reinterpret_cast<void**>(&y), odd);
            wrong::twice(p.stream, p.x, y, 1, mistake);
            cudaStreamSynchronize(p.stream);
            cudaFree(y);
        };
    };
#ifdef __SANITIZE_ADDRESS__
    check_report(touch(Mistake::none), {"an access that the address sanitizer does not allow", "[kernel twice, block (0, 0, 0), thread (63, 0, 0)]", "ERROR: AddressSanitizer", "WRITE of size 4", "wrong_kernels.cu"});
#else
    constexpr const char* written = "device work wrote 1 bytes past the end of 252 bytes of device memory";
    check_report(touch(Mistake::none), {written});
    const auto touch_and = [](const std::function<void()>& then) {
        return [then] {
            static Sample p;
            float* y = nullptr;
            cudaMalloc(reinterpret_cast<void**>(&y), 252);
            wrong::twice(p.stream, p.x, y, 1);
            cudaStreamSynchronize(p.stream);
            then();
        };
    };
    check_report(touch_and([] { cudaDeviceSynchronize(); }), {written});
    check_report(touch_and([] { std::exit(0); }), {written});
#endif
    check_report(touch(Mistake::write_past_end), {"device work touches", "5 bytes past the end of 252 bytes", "[kernel twice, block (0, 0, 0), thread (5, 0, 0)]"});
    check_report([] {
        Sample p;
        wrong::twice(p.stream, p.x, p.y, Sample::blocks, Mistake::read_past_end);
        cudaStreamSynchronize(p.stream);
    }, {"device work touches", "1 bytes past the end of 768 bytes of device memory", "[kernel twice, block (0, 0, 0), thread (5, 0, 0)]"});
}
