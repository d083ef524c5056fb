#include "core/cuda.hpp"

#include "core/device_memory.hpp"

#include <cstring>
#include <string>

namespace rf::cuda {

int device_count(std::string* why) {
    int count = 0;
    const cudaError_t code = cudaGetDeviceCount(&count);
    if (code == cudaSuccess && count > 0) return count;
    if (why) *why = code == cudaSuccess ? "no CUDA device is visible" : code == cudaErrorInsufficientDriver ? "no NVIDIA driver, or one too old for this program" : cudaGetErrorString(code);
    cudaGetLastError();  // the runtime remembers it otherwise
    return 0;
}

void use_device(int device) { check(cudaSetDevice(device), "cudaSetDevice"); }

std::string device_description() {
    int device = 0;
    check(cudaGetDevice(&device), "cudaGetDevice");
    cudaDeviceProp p{};
    check(cudaGetDeviceProperties(&p, device), "cudaGetDeviceProperties");
    return message(p.name, " (", p.major, '.', p.minor, ", ", p.multiProcessorCount, " multiprocessors, ", p.totalGlobalMem >> 30, " GiB)");
}

void* allocate(std::int64_t bytes) {
    void* memory = nullptr;
    const cudaError_t code = cudaMalloc(&memory, static_cast<std::size_t>(bytes));
    if (code == cudaErrorMemoryAllocation) {
        cudaGetLastError();
        std::size_t free = 0, total = 0;
        check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
        fail("out of GPU memory: ", (bytes + (1 << 20) - 1) >> 20, " MiB asked for, ", free >> 20, " of ", total >> 20,
             " MiB free; what reduces it: more batch.lanes or fewer batch.sequences, a shorter batch.max_length, more ranks (the optimizer's state is "
             "split over data ranks, weights and activations over parallel.tensor), dtype bf16");
    }
    check(code, "cudaMalloc");
    check(cudaMemset(memory, 0, static_cast<std::size_t>(bytes)), "cudaMemset");
    check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
    return memory;
}

// A destructor cannot throw; what is wrong here shows at the next call.
void release(void* memory) { cudaFree(memory); }
void release_pinned(void* memory) { cudaFreeHost(memory); }
void destroy_stream(CUstream_st* stream) { cudaStreamDestroy(stream); }

void* allocate_pinned(std::int64_t bytes) {
    void* memory = nullptr;
    check(cudaMallocHost(&memory, static_cast<std::size_t>(bytes)), "cudaMallocHost");
    std::memset(memory, 0, static_cast<std::size_t>(bytes));
    return memory;
}

CUstream_st* make_stream() {
    cudaStream_t stream = nullptr;
    check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreate");
    return stream;
}

void synchronise(CUstream_st* stream) { check(cudaStreamSynchronize(stream), "cudaStreamSynchronize"); }

void copy(CUstream_st* stream, const void* from, void* to, std::int64_t bytes) {
    if (bytes > 0) check(cudaMemcpyAsync(to, from, static_cast<std::size_t>(bytes), cudaMemcpyDefault, stream), "cudaMemcpyAsync");
}

void copy_now(CUstream_st* stream, const void* from, void* to, std::int64_t bytes) {
    synchronise(stream);
    check(cudaMemcpy(to, from, static_cast<std::size_t>(bytes), cudaMemcpyDefault), "cudaMemcpy");
}

void fill_zero(CUstream_st* stream, void* memory, std::int64_t bytes) {
    if (bytes > 0) check(cudaMemsetAsync(memory, 0, static_cast<std::size_t>(bytes), stream), "cudaMemsetAsync");
}

CUevent_st* make_event() {
    cudaEvent_t event = nullptr;
    check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cudaEventCreate");
    return event;
}
void destroy_event(CUevent_st* event) { cudaEventDestroy(event); }
void record(CUevent_st* event, CUstream_st* stream) { check(cudaEventRecord(event, stream), "cudaEventRecord"); }
void wait(CUevent_st* event) { check(cudaEventSynchronize(event), "cudaEventSynchronize"); }
void wait(CUevent_st* event, CUstream_st* stream) { check(cudaStreamWaitEvent(stream, event, 0), "cudaStreamWaitEvent"); }

void begin_capture(CUstream_st* stream) { check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture"); }

CUgraphExec_st* end_capture(CUstream_st* stream) {
    cudaGraph_t graph = nullptr;
    check(cudaStreamEndCapture(stream, &graph), "cudaStreamEndCapture");
    cudaGraphExec_t ready = nullptr;
    const cudaError_t code = cudaGraphInstantiate(&ready, graph, 0);
    cudaGraphDestroy(graph);
    check(code, "cudaGraphInstantiate");
    return ready;
}

void replay(CUgraphExec_st* graph, CUstream_st* stream) { check(cudaGraphLaunch(graph, stream), "cudaGraphLaunch"); }
void destroy_graph(CUgraphExec_st* graph) { cudaGraphExecDestroy(graph); }

}  // namespace rf::cuda
