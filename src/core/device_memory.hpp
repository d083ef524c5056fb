#pragma once
/// What a CUDA build adds below Buffer and Stream (core/cuda.cpp). Errors of the runtime are thrown with its own words.

#include "core/stream.hpp"

#include <cstdint>

struct CUevent_st;      // what cudaEvent_t points to
struct CUgraphExec_st;  // what cudaGraphExec_t points to

namespace rf::cuda {

/// GPUs this process can use; 0 without a driver or a device (`why` then says so).
int device_count(std::string* why = nullptr);
void use_device(int device);
/// "NVIDIA H100 80GB HBM3 (9.0, 132 multiprocessors, 79 GiB)"
std::string device_description();

/// Zeroed. Out of memory: one message with what was asked for, what is free and what would reduce it.
void* allocate(std::int64_t bytes);
void release(void* memory);
/// Host memory that copies run from and to asynchronously; zeroed.
void* allocate_pinned(std::int64_t bytes);
void release_pinned(void* memory);

CUstream_st* make_stream();
void destroy_stream(CUstream_st* stream);
void synchronise(CUstream_st* stream);
/// In stream order; the host's side must be pinned.
void copy(CUstream_st* stream, const void* from, void* to, std::int64_t bytes);
/// Waits for the stream, copies, returns when done; any host memory.
void copy_now(CUstream_st* stream, const void* from, void* to, std::int64_t bytes);
void fill_zero(CUstream_st* stream, void* memory, std::int64_t bytes);

/// A point in a stream that the host or another stream can wait for.
CUevent_st* make_event();
void destroy_event(CUevent_st* event);
void record(CUevent_st* event, CUstream_st* stream);
void wait(CUevent_st* event);
void wait(CUevent_st* event, CUstream_st* stream);

/// What is put on the stream between the two calls is recorded instead of run, then made ready for replay.
void begin_capture(CUstream_st* stream);
CUgraphExec_st* end_capture(CUstream_st* stream);
void replay(CUgraphExec_st* graph, CUstream_st* stream);
void destroy_graph(CUgraphExec_st* graph);

}  // namespace rf::cuda
