#pragma once
/// What the emulated libraries (matrix.cpp, collectives.cpp) and tests use of the emulated CUDA runtime.

#include <cuda_runtime_api.h>

#include <cstddef>
#include <functional>
#include <string>

namespace rf::emulator {

/// Puts an operation on a stream. `issued`, if any, is called when the program asks for the operation: at once, or at each
/// launch of the graph that holds it. It runs later on the host's thread, while device memory is open.
void enqueue(cudaStream_t stream, const char* name, std::function<void()> run, std::function<void()> issued = {});
/// An operation in two phases: `start` begins it and returns what says whether it is complete. Other streams go on meanwhile.
void enqueue_transfer(cudaStream_t stream, const char* name, std::function<std::function<bool()>()> start);
/// The bytes lie inside one live allocation of device memory.
bool is_device_range(const void* memory, std::size_t bytes);
bool is_pinned_range(const void* memory, std::size_t bytes);
/// What an emulated library reads and writes of device memory, for the race checker: call it where the operation runs.
void note_read(const void* memory, std::size_t bytes);
void note_write(void* memory, std::size_t bytes);

// --- between memory.cpp and streams.cpp ---
/// Device memory can be touched (an operation runs) or not (host code runs).
void open_device_memory(bool open);
/// What cudaGetLastError then tells.
cudaError_t fail_with(cudaError_t code);
/// Runs everything that is queued; the host knows then that all is done.
void finish_all_work();
/// The stream of calls that name none. The program's streams do not wait for it, nor it for them.
cudaStream_t legacy_stream();
void finish_legacy_work();
/// Reports what was written beside live allocations of device memory.
void check_guards();
/// Reports `call` when a stream is being captured: what it does cannot be part of a graph.
void refuse_in_capture(const char* call);
/// One queued operation, if one can run: for a host that waits for something else (host_waits.cpp).
void progress();
/// Brings host_waits.cpp into the program: a linker takes from an archive what is asked for.
void split_host_waits();
/// A few queued operations, at random: work may run before anybody waits for it.
void maybe_run();

}  // namespace rf::emulator
