/// Streams, events and graphs of the emulated runtime. Queued work runs when the host waits, and now and then before, on the
/// host's own thread: first in, first out within a stream, in random order between streams.

#include "emulator/machine.hpp"
#include "emulator/runtime.hpp"

#include <sched.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <utility>
#include <string>
#include <vector>

namespace rf::emulator {

struct EventState {
    std::uint64_t recorded = 0, done = 0;  ///< number of the newest record, and of the newest that was reached
};

/// What a stream holds: work of one or two phases, a record, or a wait.
struct Item {
    std::string name;
    std::function<void()> run;
    std::function<std::function<bool()>()> start;
    std::function<bool()> poll;             ///< of a transfer under way
    std::shared_ptr<EventState> record, wait;
    std::uint64_t number = 0;               ///< of the record
};
using Program = std::deque<Item>;

struct Capture {
    cudaStream_t origin = nullptr;
    std::vector<cudaStream_t> streams;      ///< in order of joining
    std::vector<Program> programs;          ///< one for each of them
    std::vector<std::set<const EventState*>> waited;  ///< events each has waited for
};

enum class Progress { none, some, waiting };  ///< waiting: a transfer is under way

/// The head of a program, if it can go on. Finished items leave.
Progress advance(Program& program) {
    if (program.empty()) return Progress::none;
    Item& item = program.front();
    if (item.wait) {
        if (item.wait->done < item.number) return Progress::none;
    } else if (item.record) {
        item.record->done = std::max(item.record->done, item.number);
    } else if (item.start) {
        if (!item.poll) item.poll = item.start();
        if (!item.poll()) return Progress::waiting;
    } else {
        item.run();
    }
    program.pop_front();
    return Progress::some;
}

/// One random program that can go on does. `waiting`: none could but transfers are under way.
template <class Programs>
Progress advance_any(const Programs& programs) {
    std::vector<Program*> order(programs.begin(), programs.end());
    Progress best = Progress::none;
    while (!order.empty()) {
        const std::size_t at = random_below(order.size());
        const Progress p = advance(*order[at]);
        if (p == Progress::some) return p;
        if (p == Progress::waiting) best = p;
        order[at] = order.back();
        order.pop_back();
    }
    return best;
}

}  // namespace rf::emulator

struct CUstream_st {
    rf::emulator::Program queue;
    std::shared_ptr<rf::emulator::Capture> capture;
};
struct CUevent_st {
    std::shared_ptr<rf::emulator::EventState> state = std::make_shared<rf::emulator::EventState>();
    std::shared_ptr<rf::emulator::Capture> capture;  ///< recorded in it
};
struct CUgraph_st {
    std::vector<rf::emulator::Program> programs;
};
struct CUgraphExec_st {
    std::vector<rf::emulator::Program> programs;
};

namespace rf::emulator {

namespace {

struct Runtime {
    std::vector<cudaStream_t> streams;
    bool running = false;
    int device = 0, devices = 8;
    Runtime() {
        if (const char* n = std::getenv("RF_EMULATOR_DEVICES")) devices = std::atoi(n);
    }
};
Runtime& runtime() {
    static Runtime r;
    return r;
}

void check_stream(cudaStream_t stream, const char* call) {
    const auto& all = runtime().streams;
    if (!stream) report(std::string(call) + " on the default stream: every stream of the program is its own");
    if (std::find(all.begin(), all.end(), stream) == all.end()) report(std::string(call) + " on a stream that does not exist (destroyed, or never made)");
}

std::string what_waits() {
    std::string text;
    for (const CUstream_st* s : runtime().streams)
        if (!s->queue.empty()) text += (text.empty() ? "" : ", ") + std::string(s->queue.front().wait ? "a wait for an event" : s->queue.front().name);
    return text;
}

std::vector<Program*> queues() {
    std::vector<Program*> list;
    for (CUstream_st* s : runtime().streams) list.push_back(&s->queue);
    return list;
}

/// While operations run: device memory is open, and none of them may call the runtime.
struct Running {
    Running() {
        if (std::exchange(runtime().running, true)) report("an operation of a stream calls the runtime");
        open_device_memory(true);
    }
    ~Running() {
        open_device_memory(false);
        runtime().running = false;
    }
    Running(const Running&) = delete;
    Running& operator=(const Running&) = delete;
};

void run_until(const std::function<bool()>& reached) {
    const Running running;
    while (!reached()) {
        const Progress p = advance_any(queues());
        if (p == Progress::none) report("the streams are stuck: nothing can run (" + what_waits() + ")");
        if (p == Progress::waiting) sched_yield();
    }
}

/// Up to so many operations, as far as some can run.
void run_some(std::uint64_t steps) {
    const Running running;
    while (steps-- > 0 && advance_any(queues()) == Progress::some) {
    }
}

Program& program_of(cudaStream_t stream) {
    if (!stream->capture) return stream->queue;
    Capture& c = *stream->capture;
    return c.programs[static_cast<std::size_t>(std::find(c.streams.begin(), c.streams.end(), stream) - c.streams.begin())];
}

void put(cudaStream_t stream, Item item) {
    check_stream(stream, item.name.c_str());
    program_of(stream).push_back(std::move(item));
    maybe_run();
}

}  // namespace

void enqueue(cudaStream_t stream, const char* name, std::function<void()> run) { put(stream, {.name = name, .run = std::move(run)}); }
void enqueue_transfer(cudaStream_t stream, const char* name, std::function<std::function<bool()>()> start) {
    put(stream, {.name = name, .start = std::move(start)});
}
void enqueue_kernel(cudaStream_t stream, const KernelInfo& kernel, std::function<void()> body) {
    put(stream, {.name = kernel.name, .run = [kernel, body = std::move(body)] { run_grid(kernel, body); }});
}

void finish_all_work() {
    run_until([] { return std::all_of(runtime().streams.begin(), runtime().streams.end(), [](const CUstream_st* s) { return s->queue.empty(); }); });
}

void refuse_in_capture(const char* call) {
    for (const CUstream_st* s : runtime().streams)
        if (s->capture) report(std::string(call) + " while a stream is captured");
}

void maybe_run() {
    if (runtime().running) return;
    if (random_below(4) == 0) run_some(random_below(4));
}

namespace {

/// A replay of a graph: its programs in a random legal order.
std::function<bool()> replay(const std::vector<Program>& captured) {
    // Events of a capture live in it: each replay has its own.
    auto programs = std::make_shared<std::vector<Program>>(captured);
    std::map<const EventState*, std::shared_ptr<EventState>> fresh;
    for (Program& program : *programs) {
        for (Item& item : program) {
            for (auto* event : {&item.record, &item.wait}) {
                if (!*event) continue;
                auto& own = fresh[event->get()];
                if (!own) own = std::make_shared<EventState>();
                *event = own;
            }
        }
    }
    return [programs] {
        std::vector<Program*> list;
        for (Program& p : *programs) list.push_back(&p);
        while (true) {
            const Progress p = advance_any(list);
            if (p == Progress::waiting) return false;
            if (p == Progress::some) continue;
            if (std::any_of(list.begin(), list.end(), [](const Program* q) { return !q->empty(); })) report("a replayed graph is stuck");
            return true;
        }
    };
}

cudaError_t& last_error() {
    static cudaError_t code = cudaSuccess;
    return code;
}

}  // namespace
}  // namespace rf::emulator

using namespace rf::emulator;

extern "C" {

cudaError_t cudaGetDeviceCount(int* count) {
    *count = runtime().devices;
    if (runtime().devices > 0) return cudaSuccess;
    return last_error() = cudaErrorNoDevice;
}
cudaError_t cudaSetDevice(int device) {
    if (device < 0 || device >= runtime().devices) return last_error() = cudaErrorInvalidDevice;
    runtime().device = device;
    return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
    *device = runtime().device;
    return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int device) {
    *p = {};
    std::snprintf(p->name, sizeof p->name, "emulated GPU");
    p->uuid.bytes[0] = static_cast<char>(device + 1);
    p->major = 9;
    p->multiProcessorCount = 132;
    std::size_t free = 0;
    return cudaMemGetInfo(&free, &p->totalGlobalMem);
}
cudaError_t cudaGetLastError() { return std::exchange(last_error(), cudaSuccess); }
const char* cudaGetErrorName(cudaError_t code) {
    switch (code) {
        case cudaSuccess: return "cudaSuccess";
        case cudaErrorMemoryAllocation: return "cudaErrorMemoryAllocation";
        case cudaErrorNoDevice: return "cudaErrorNoDevice";
        case cudaErrorInvalidDevice: return "cudaErrorInvalidDevice";
        case cudaErrorNotReady: return "cudaErrorNotReady";
        case cudaErrorStreamCaptureUnjoined: return "cudaErrorStreamCaptureUnjoined";
        default: return "cudaErrorUnknown";
    }
}
const char* cudaGetErrorString(cudaError_t code) {
    switch (code) {
        case cudaSuccess: return "no error";
        case cudaErrorMemoryAllocation: return "out of memory";
        case cudaErrorNoDevice: return "no CUDA-capable device is detected";
        case cudaErrorInvalidDevice: return "invalid device ordinal";
        case cudaErrorNotReady: return "device not ready";
        case cudaErrorStreamCaptureUnjoined: return "capturing stream has unjoined work";
        default: return "unknown error";
    }
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
    refuse_in_capture("cudaStreamCreate");
    if (flags != cudaStreamNonBlocking) report("cudaStreamCreate: only non-blocking streams are emulated");
    *stream = new CUstream_st;
    runtime().streams.push_back(*stream);
    return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    check_stream(stream, "cudaStreamDestroy");
    run_until([&] { return stream->queue.empty(); });
    std::erase(runtime().streams, stream);
    delete stream;
    return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    check_stream(stream, "cudaStreamSynchronize");
    if (stream->capture) report("cudaStreamSynchronize of a stream that is captured");
    run_until([&] { return stream->queue.empty(); });
    return cudaSuccess;
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
    check_stream(stream, "cudaStreamQuery");
    if (stream->capture) report("cudaStreamQuery of a stream that is captured");
    run_some(1);  // a program that polls gets on
    return stream->queue.empty() ? cudaSuccess : cudaErrorNotReady;
}
cudaError_t cudaDeviceSynchronize() {
    refuse_in_capture("cudaDeviceSynchronize");
    finish_all_work();
    return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
    *event = new CUevent_st;
    return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
    delete event;
    return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    check_stream(stream, "cudaEventRecord");
    event->capture = stream->capture;
    if (stream->capture) event->state = std::make_shared<EventState>();  // a node of the graph, not a point in time
    put(stream, {.name = "cudaEventRecord", .record = event->state, .number = ++event->state->recorded});
    return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
    check_stream(stream, "cudaStreamWaitEvent");
    if (event->state->recorded == 0) return cudaSuccess;
    if (event->capture && !stream->capture) {
        stream->capture = event->capture;  // the stream joins the capture
        stream->capture->streams.push_back(stream);
        stream->capture->programs.emplace_back();
        stream->capture->waited.emplace_back();
    }
    if (event->capture != stream->capture) report("cudaStreamWaitEvent: the event was not recorded in this capture");
    if (stream->capture) {
        const auto& all = stream->capture->streams;
        stream->capture->waited[static_cast<std::size_t>(std::find(all.begin(), all.end(), stream) - all.begin())].insert(event->state.get());
    }
    put(stream, {.name = "cudaStreamWaitEvent", .wait = event->state, .number = event->state->recorded});
    return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    if (event->capture) report("cudaEventSynchronize of an event that was recorded in a capture");
    run_until([&] { return event->state->done >= event->state->recorded; });
    return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
    if (event->capture) report("cudaEventQuery of an event that was recorded in a capture");
    run_some(1);  // a program that polls gets on
    return event->state->done >= event->state->recorded ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
    check_stream(stream, "cudaStreamBeginCapture");
    if (stream->capture) report("cudaStreamBeginCapture of a stream that is captured already");
    stream->capture = std::make_shared<Capture>();
    stream->capture->origin = stream;
    stream->capture->streams = {stream};
    stream->capture->programs.resize(1);
    stream->capture->waited.resize(1);
    return cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
    check_stream(stream, "cudaStreamIsCapturing");
    *status = stream->capture ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
    return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
    check_stream(stream, "cudaStreamEndCapture");
    const std::shared_ptr<Capture> c = stream->capture;
    if (!c || c->origin != stream) report("cudaStreamEndCapture of a stream whose capture did not begin there");
    for (CUstream_st* s : c->streams) s->capture.reset();
    // Every forked stream must end in a record that another stream of the capture waits for.
    for (std::size_t i = 1; i < c->programs.size(); ++i) {
        const Item* last = c->programs[i].empty() ? nullptr : &c->programs[i].back();
        const bool joined = last && last->record && std::any_of(c->waited.begin(), c->waited.end(), [&](const auto& w) { return w.count(last->record.get()) > 0; });
        if (!joined && !(last && last->wait && c->programs[i].size() == 1)) report("cudaStreamEndCapture: a forked stream was not joined");
    }
    *graph = new CUgraph_st{c->programs};
    return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* ready, cudaGraph_t graph, unsigned long long) {
    *ready = new CUgraphExec_st{graph->programs};
    return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream) {
    if (stream->capture) report("cudaGraphLaunch into a stream that is captured");
    enqueue_transfer(stream, "cudaGraphLaunch", [programs = graph->programs] { return replay(programs); });
    return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    delete graph;
    return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) {
    delete graph;
    return cudaSuccess;
}
}  // extern "C"
