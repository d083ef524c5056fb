/// Streams, events and graphs of the emulated runtime. Queued work runs when the host waits, and now and then before, on the
/// host's own thread: first in, first out within a stream, in random order between streams.

#include "emulator/machine.hpp"
#include "emulator/races.hpp"
#include "emulator/runtime.hpp"

#include <sched.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <utility>
#include <string>
#include <vector>

namespace rf::emulator {

/// An address to tell the race checker which release an acquire belongs to.
using Token = std::shared_ptr<char[]>;
Token make_token() { return races::watched ? std::make_shared<char[]>(8) : nullptr; }

/// A point in a stream. Who waits does so for the one that was the event's newest at the call, whatever is recorded later.
struct Record {
    bool reached = false;
    Token token = make_token();
};

/// What a stream holds: work of one or two phases, a record, or a wait.
struct Item {
    std::string name;
    std::function<void()> run;
    std::function<std::function<bool()>()> start;
    std::function<bool()> poll;             ///< of a transfer under way
    std::shared_ptr<Record> record, wait;
    std::function<void()> issued;           ///< when the program asks for it
    Token host = make_token();              ///< the host's deeds up to the call
    bool is_work() const { return run || start; }
};

/// Items one after the other, and who the race checker takes for the one that runs them.
struct Program {
    std::deque<Item> items;
    void* fiber = nullptr;
    Token done;                             ///< what ran here
};

struct Capture {
    cudaStream_t origin = nullptr;
    std::vector<cudaStream_t> streams;      ///< in order of joining
    std::vector<Program> programs;          ///< one for each of them
    bool ended = false;

    void join(cudaStream_t stream) {
        streams.push_back(stream);
        programs.emplace_back();
    }
    std::size_t index_of(cudaStream_t stream) const { return static_cast<std::size_t>(std::find(streams.begin(), streams.end(), stream) - streams.begin()); }
    bool all_joined() const;
};

/// Whether all work comes before the origin's end. From there back: what a stream does up to a record that is waited for.
bool Capture::all_joined() const {
    std::map<const Record*, std::pair<std::size_t, std::size_t>> place;  // program and item
    for (std::size_t p = 0; p < programs.size(); ++p)
        for (std::size_t i = 0; i < programs[p].items.size(); ++i)
            if (const auto& record = programs[p].items[i].record) place[record.get()] = {p, i};
    std::vector<std::size_t> joined(programs.size(), 0), seen = joined;  // so many of the first items
    joined[0] = programs[0].items.size();
    for (std::size_t p = 0; p < programs.size();) {
        if (seen[p] == joined[p]) {
            ++p;
            continue;
        }
        const Item& item = programs[p].items[seen[p]++];
        if (!item.wait) continue;
        const auto [other, at] = place.at(item.wait.get());
        joined[other] = std::max(joined[other], at + 1);
        p = std::min(p, other);
    }
    for (std::size_t p = 0; p < programs.size(); ++p)
        if (std::any_of(programs[p].items.begin() + static_cast<std::ptrdiff_t>(joined[p]), programs[p].items.end(), [](const Item& i) { return i.is_work(); })) return false;
    return true;
}

enum class Progress { none, some, waiting };  ///< waiting: a transfer is under way

/// What an item does when it runs; false: it is not done yet.
bool perform(Item& item) {
    if (item.wait) {
        races::acquire(item.wait->token.get());
    } else if (item.record) {
        item.record->reached = true;
        races::release(item.record->token.get());
    } else if (item.start) {
        if (!item.poll) item.poll = item.start();
        return item.poll();
    } else {
        item.run();
    }
    return true;
}

/// The head of a program, if it can go on. Finished items leave.
Progress advance(Program& program) {
    if (program.items.empty()) return Progress::none;
    Item& item = program.items.front();
    if (item.wait && !item.wait->reached) return Progress::none;
    void* const self = races::current();
    if (program.fiber != self) races::become(program.fiber);
    races::acquire(item.host.get());
    const bool done = perform(item);
    races::release(program.done.get());
    if (program.fiber != self) races::become(self);
    if (!done) return Progress::waiting;
    const races::Quiet quiet;
    program.items.pop_front();
    return Progress::some;
}

/// Fibers of programs that have ended, for new ones: the sanitizer has a few thousand.
std::vector<void*>& spare_fibers() {
    static std::vector<void*> spare;
    return spare;
}
Program make_program() {
    const races::Quiet quiet;
    Program made;
    made.done = make_token();
    if (!races::watched) return made;
    if (spare_fibers().empty()) spare_fibers().push_back(races::make());
    made.fiber = spare_fibers().back();
    spare_fibers().pop_back();
    return made;
}
void end_program(Program& program) {
    const races::Quiet quiet;
    if (program.fiber) spare_fibers().push_back(std::exchange(program.fiber, nullptr));
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
    rf::emulator::Program queue = rf::emulator::make_program();
    std::shared_ptr<rf::emulator::Capture> capture;
};
struct CUevent_st {
    std::shared_ptr<rf::emulator::Record> newest;
    std::shared_ptr<rf::emulator::Capture> capture;  ///< recorded in it
};
struct CUgraph_st {
    std::vector<rf::emulator::Program> programs;
};
struct CUgraphExec_st {
    std::vector<rf::emulator::Program> programs;  ///< the first is the origin's
    std::shared_ptr<rf::emulator::Record> launched;  ///< end of the newest launch: launches of one graph follow each other
};

namespace rf::emulator {

namespace {

struct Runtime {
    std::vector<cudaStream_t> streams;  ///< the first: of calls without one, which no other stream waits for
    bool running = false;
    int device = 0;
    Runtime() : streams{new CUstream_st} { split_host_waits(); }
};
/// The environment's number, or `otherwise`.
int setting(const char* name, int otherwise) {
    const char* text = std::getenv(name);
    return text ? std::atoi(text) : otherwise;
}
int devices() { return setting("RF_EMULATOR_DEVICES", 8); }
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
        if (!s->queue.items.empty()) text += (text.empty() ? "" : ", ") + std::string(s->queue.items.front().wait ? "a wait for an event" : s->queue.items.front().name);
    return text;
}

std::vector<Program*> queues() {
    std::vector<Program*> list;
    for (CUstream_st* s : runtime().streams) list.push_back(&s->queue);
    return list;
}

/// Operations run, device memory is open.
struct Running {
    Running() {
        if (runtime().running) report("an operation of a stream calls the runtime");
        runtime().running = true;
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
    using Clock = std::chrono::steady_clock;
    const Running running;
    Clock::time_point since{};  // nothing but transfers under way
    while (!reached()) {
        const Progress p = advance_any(queues());
        if (p == Progress::none) report("the streams are stuck: nothing can run (" + what_waits() + ")");
        if (p != Progress::waiting) {
            since = {};
            continue;
        }
        sched_yield();
        if (since == Clock::time_point{}) since = Clock::now();
        if (Clock::now() - since > std::chrono::seconds(setting("RF_EMULATOR_PATIENCE", 300)))
            report("the streams are stuck: transfers stay under way (" + what_waits() + ")");
    }
}

/// Up to so many operations that can run.
void run_some(std::uint64_t steps) {
    const Running running;
    while (steps > 0 && advance_any(queues()) == Progress::some) --steps;
}

Program& program_of(cudaStream_t stream) {
    return stream->capture ? stream->capture->programs[stream->capture->index_of(stream)] : stream->queue;
}

void put(cudaStream_t stream, Item item) {
    check_stream(stream, item.name.c_str());
    if (item.issued && !stream->capture) item.issued();
    const Token host = item.host;
    {
        const races::Quiet quiet;
        program_of(stream).items.push_back(std::move(item));
    }
    races::release(host.get());
    maybe_run();
}

}  // namespace

void enqueue(cudaStream_t stream, const char* name, std::function<void()> run, std::function<void()> issued) {
    put(stream, {.name = name, .run = std::move(run), .issued = std::move(issued)});
}
void enqueue_transfer(cudaStream_t stream, const char* name, std::function<std::function<bool()>()> start) {
    put(stream, {.name = name, .start = std::move(start)});
}
void enqueue_kernel(cudaStream_t stream, const KernelInfo& kernel, std::function<void()> body) {
    put(stream, {.name = kernel.name, .run = [kernel, body = std::move(body)] { run_grid(kernel, body); }});
}

cudaStream_t legacy_stream() { return runtime().streams.front(); }

void finish_legacy_work() {
    cudaStream_t stream = legacy_stream();
    if (!stream->queue.items.empty()) run_until([&] { return stream->queue.items.empty(); });
    races::acquire(stream->queue.done.get());
}

void finish_all_work() {
    run_until([] { return std::all_of(runtime().streams.begin(), runtime().streams.end(), [](const CUstream_st* s) { return s->queue.items.empty(); }); });
    for (const CUstream_st* s : runtime().streams) races::acquire(s->queue.done.get());
}

void note_read(const void* memory, std::size_t bytes) { races::read(memory, bytes); }
void note_write(void* memory, std::size_t bytes) { races::write(memory, bytes); }

void refuse_in_capture(const char* call) {
    for (const CUstream_st* s : runtime().streams)
        if (s->capture) report(std::string(call) + " while a stream is captured");
}

void progress() {
    if (!runtime().running) run_some(1);
}

void maybe_run() {
    if (runtime().running) return;
    if (random_below(4) == 0) run_some(random_below(4));
}

namespace {

/// A replay of a graph: its programs in a random legal order, in pieces between which other streams have their turn.
/// Events of a capture live in it: each replay has its own.
class Replay {
public:
    explicit Replay(const std::vector<Program>& captured) : programs_(captured) {
        for (std::size_t i = 0; i < programs_.size(); ++i) {
            Program& program = programs_[i];
            program.done = make_token();
            // The origin's work belongs to the stream that launched; the others are forked from it.
            program.fiber = i == 0 ? races::current() : make_program().fiber;
            for (Item& item : program.items) renew(item);
        }
    }
    bool poll() {
        std::vector<Program*> list;
        for (Program& p : programs_) list.push_back(&p);
        while (random_below(4) != 0) {
            const Progress p = advance_any(list);
            if (p == Progress::some) continue;
            if (p == Progress::waiting) return false;
            if (std::any_of(list.begin(), list.end(), [](const Program* q) { return !q->items.empty(); })) report("a replayed graph is stuck");
            for (std::size_t i = 1; i < programs_.size(); ++i) end_program(programs_[i]);
            return true;
        }
        return false;
    }

private:
    void renew(Item& item) {
        for (auto* event : {&item.record, &item.wait}) {
            if (!*event) continue;
            auto& own = events_[event->get()];
            if (!own) own = std::make_shared<Record>();
            *event = own;
        }
    }

    std::vector<Program> programs_;
    std::map<const Record*, std::shared_ptr<Record>> events_;
};

cudaError_t& last_error() {
    static cudaError_t code = cudaSuccess;
    return code;
}

}  // namespace

cudaError_t fail_with(cudaError_t code) { return last_error() = code; }

}  // namespace rf::emulator

using namespace rf::emulator;

extern "C" {

cudaError_t cudaGetDeviceCount(int* count) {
    *count = devices();
    if (devices() > 0) return cudaSuccess;
    return fail_with(cudaErrorNoDevice);
}
cudaError_t cudaSetDevice(int device) {
    if (device < 0 || device >= devices()) return fail_with(cudaErrorInvalidDevice);
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
    if (stream->capture) report("cudaStreamDestroy of a stream that is captured");
    run_until([&] { return stream->queue.items.empty(); });
    std::erase(runtime().streams, stream);
    end_program(stream->queue);
    delete stream;
    return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    check_stream(stream, "cudaStreamSynchronize");
    if (stream->capture) report("cudaStreamSynchronize of a stream that is captured");
    run_until([&] { return stream->queue.items.empty(); });
    races::acquire(stream->queue.done.get());
    return cudaSuccess;
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
    check_stream(stream, "cudaStreamQuery");
    if (stream->capture) report("cudaStreamQuery of a stream that is captured");
    run_some(1);  // a program that polls gets on
    if (!stream->queue.items.empty()) return cudaErrorNotReady;
    races::acquire(stream->queue.done.get());
    return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() {
    refuse_in_capture("cudaDeviceSynchronize");
    finish_all_work();
    check_guards();
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
    event->newest = std::make_shared<Record>();
    put(stream, {.name = "cudaEventRecord", .record = event->newest});
    return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
    check_stream(stream, "cudaStreamWaitEvent");
    if (!event->newest) report("cudaStreamWaitEvent: the event was never recorded, so nothing is waited for");
    if (event->capture && event->capture->ended) report("cudaStreamWaitEvent: the event was recorded in a capture that has ended");
    if (event->capture && !stream->capture) (stream->capture = event->capture)->join(stream);
    if (event->capture != stream->capture) report("cudaStreamWaitEvent: the event was not recorded in this capture");
    put(stream, {.name = "cudaStreamWaitEvent", .wait = event->newest});
    return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    if (event->capture) report("cudaEventSynchronize of an event that was recorded in a capture");
    if (!event->newest) return cudaSuccess;
    run_until([&] { return event->newest->reached; });
    races::acquire(event->newest->token.get());
    return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
    if (event->capture) report("cudaEventQuery of an event that was recorded in a capture");
    run_some(1);
    if (!event->newest) return cudaSuccess;
    if (!event->newest->reached) return cudaErrorNotReady;
    races::acquire(event->newest->token.get());
    return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
    check_stream(stream, "cudaStreamBeginCapture");
    if (stream->capture) report("cudaStreamBeginCapture of a stream that is captured already");
    stream->capture = std::make_shared<Capture>();
    stream->capture->origin = stream;
    stream->capture->join(stream);
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
    c->ended = true;
    for (CUstream_st* s : c->streams) s->capture.reset();
    if (!c->all_joined()) report("cudaStreamEndCapture: a forked stream was not joined");
    *graph = new CUgraph_st{c->programs};
    return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* ready, cudaGraph_t graph, unsigned long long) {
    *ready = new CUgraphExec_st{graph->programs, nullptr};
    return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream) {
    check_stream(stream, "cudaGraphLaunch");
    if (stream->capture) report("cudaGraphLaunch into a stream that is captured");
    for (const Program& program : graph->programs)
        for (const Item& item : program.items)
            if (item.issued) item.issued();
    if (graph->launched) put(stream, {.name = "cudaGraphLaunch", .wait = graph->launched});
    enqueue_transfer(stream, "cudaGraphLaunch", [programs = graph->programs] {
        return [replay = std::make_shared<Replay>(programs)] { return replay->poll(); };
    });
    graph->launched = std::make_shared<Record>();
    put(stream, {.name = "cudaGraphLaunch", .record = graph->launched});
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
