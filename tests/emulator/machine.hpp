#pragma once
/// One emulated multiprocessor: blocks run one after another in random order, the threads of a block are fibers, switched
/// at barriers and warp exchanges in random order. What the hardware leaves open is drawn from a seed; what it forbids
/// (a barrier that not all threads reach, an access outside or across its alignment) is reported with kernel, block,
/// thread and source line, and ends the program with exit code 70.
///
/// This part is compiled without sanitizers: kernels are what they look at.

#include <cuda_runtime_api.h>
#include <vector_functions.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <source_location>
#include <string>
#include <vector>

namespace rf::emulator {

/// Bytes of one lane's slot in a warp exchange.
inline constexpr std::size_t slot_bytes = 32;

struct AsyncCopy {
    void* target;
    const void* source;  ///< null: zeros
    std::uint32_t group;
};

struct Thread {
    uint3 index{};
    int lane = 0;
    int warp = 0;
};

struct Block {
    uint3 index{};
    dim3 threads;
    dim3 grid;
};

struct KernelInfo {
    const char* name = "";
    dim3 grid;
    dim3 block;
    std::size_t shared = 0;
};

enum class Access { global_load, global_store, shared_load, shared_store, matrix_load };

/// What one kernel did, over all its launches since `reset_counters`.
struct Counters {
    std::uint64_t launches = 0, blocks = 0, barriers = 0, flops = 0;
    std::uint64_t global_bytes = 0;          ///< asked for by threads, once for each warp instruction's distinct bytes
    std::uint64_t global_sectors = 0;        ///< 32-byte sectors touched by warp instructions
    std::uint64_t shared_accesses = 0;       ///< warp instructions on shared memory
    std::uint64_t shared_wavefronts = 0;     ///< passes they take; more than `shared_ideal` means bank conflicts
    std::uint64_t shared_ideal = 0;
    std::map<std::string, std::uint64_t> conflicts;  ///< extra wavefronts by source line
};

// --- for kernels (through device.cuh) ---
const Thread& this_thread();
const Block& this_block();
void* shared_memory(std::size_t bytes, std::size_t alignment);
void block_barrier(const std::source_location& where);
void warp_barrier(const std::source_location& where);
/// Every lane of the warp hands in up to slot_bytes bytes; returns the slots of all 32 lanes, valid until the lane's next
/// exchange but one. Orders no memory, as shuffles do not.
const std::byte* exchange(const void* value, std::size_t bytes, const std::source_location& where);
/// mma.m16n8k16 of bf16: sums in f32, over k in rising order.
void multiply_m16n8k16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2], const std::source_location& where);
void note_access(const void* address, std::size_t bytes, std::size_t alignment, Access kind, const std::source_location& where);
void count_flops(std::uint64_t flops);
/// cp.async: what is under way, and whether the oldest copy is in a committed group that is not among the newest `pending`.
void add_copy(void* target, const void* source);
void commit_copies();
bool take_copy(std::uint32_t pending, AsyncCopy& copy);

// --- for the runtime and tests ---
/// Runs a whole grid now. `body` is called once in every thread.
void run_grid(const KernelInfo& kernel, const std::function<void()>& body);
/// Puts a kernel on a stream (runtime.cpp).
void enqueue_kernel(cudaStream_t stream, const KernelInfo& kernel, std::function<void()> body);

/// Seed of every random choice; the environment variable RF_EMULATOR_SEED sets it at the start.
void set_seed(std::uint64_t seed);
std::uint64_t random_below(std::uint64_t n);
/// Counting is off until asked for: it costs about ten times the run time.
void count(bool on);
void reset_counters();
const std::map<std::string, Counters>& counters();
/// Prints "emulator: …" with the kernel, block and thread at work, and ends the program with exit code 70.
[[noreturn]] void report(const std::string& what);
/// " [kernel k, block (0, 0, 0), thread (1, 0, 0)]" of what runs now.
std::string at_work();
/// "kernel.cu:12" when the newest access that a thread noted holds this address, else nothing.
std::string line_of_access(const void* address);
/// The address lies just below the stack of an emulated thread.
bool is_stack_end(const void* address);
/// Runs `body` in a child process; returns what it and the sanitizers report, or an empty string.
std::string trap(const std::function<void()>& body);

}  // namespace rf::emulator
