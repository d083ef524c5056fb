/// Device and pinned memory of the emulated runtime. Each allocation of device memory is a mapping of its own between closed
/// pages, closed itself while host code runs; what it held before is gone, what it holds at first is not a number.

#include "emulator/machine.hpp"
#include "emulator/races.hpp"
#include "emulator/runtime.hpp"

#include <dlfcn.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#ifdef RF_EMULATOR_ASAN
#include <sanitizer/asan_interface.h>
#endif

namespace rf::emulator {

namespace {

constexpr std::size_t page = 4096, alignment = 256;
constexpr unsigned char canary = 0xA5, poison = 0xFF;

struct Allocation {
    std::byte* begin;   ///< what the program got
    std::size_t size;
    std::byte* pages;   ///< first open page
    std::size_t open_bytes;
    bool live = true;
};

struct Memory {
    std::map<const std::byte*, Allocation> device;   ///< live and freed, by begin; addresses are not used again
    std::map<const std::byte*, std::size_t> pinned;
    std::size_t used = 0;
    bool open = false;
};

Memory& memory() {
    static Memory m;
    static const int at_end = std::atexit(check_guards);  // after m was made, so before it goes
    static_cast<void>(at_end);
    return m;
}

/// Bytes of the emulated device.
std::size_t limit() {
    const char* bytes = std::getenv("RF_EMULATOR_MEMORY");
    return bytes ? std::strtoull(bytes, nullptr, 10) : std::size_t{8} << 30;
}

std::size_t round_up(std::size_t n, std::size_t unit) { return (n + unit - 1) / unit * unit; }

std::string source_line(const void* instruction) {
    Dl_info info{};
    if (!dladdr(instruction, &info) || !info.dli_fname) return {};
    char command[512];
    std::snprintf(command, sizeof command, "addr2line -Csfe '%s' %#lx 2>/dev/null", info.dli_fname,
                  static_cast<unsigned long>(static_cast<const char*>(instruction) - static_cast<const char*>(info.dli_fbase)));
    std::FILE* out = popen(command, "r");
    if (!out) return {};
    char function[256] = "", line[256] = "";
    const bool found = std::fgets(function, sizeof function, out) && std::fgets(line, sizeof line, out);
    pclose(out);
    if (!found) return {};
    std::string text = line;
    return " at " + text.substr(0, text.find_first_of(" \n"));
}

/// "byte 12 of 4096", "8 bytes after the end of 4096", …
std::string place_in(const Allocation& a, const std::byte* at) {
    const std::string whole = std::to_string(a.size) + " bytes of device memory";
    if (at < a.begin) return std::to_string(a.begin - at) + " bytes before " + whole;
    if (at >= a.begin + a.size) return std::to_string(at - (a.begin + a.size) + 1) + " bytes past the end of " + whole;
    return "byte " + std::to_string(at - a.begin) + " of " + whole;
}

const Allocation* nearest(const std::byte* at) {
    for (const auto& [begin, a] : memory().device)
        if (at >= a.pages - page && at < a.pages + a.open_bytes + page) return &a;
    return nullptr;
}

void on_fault(int, siginfo_t* info, void* context) {
    std::signal(SIGSEGV, SIG_DFL);
    const auto* at = static_cast<const std::byte*>(info->si_addr);
    const auto* machine_state = static_cast<const ucontext_t*>(context);
    const std::string noted = line_of_access(at);
    const std::string line = !noted.empty() ? " at " + noted : source_line(reinterpret_cast<const void*>(machine_state->uc_mcontext.gregs[REG_RIP]));
    const Allocation* a = nearest(at);
    if (is_stack_end(at)) report("a thread uses more stack than the emulator gives it" + line);
    const char* who = memory().open ? "device work" : "host code";
    if (!a) report(std::string(who) + " touches memory that does not exist" + line);
    report(std::string(who) + " touches " + (a->live ? "" : "freed memory: ") + place_in(*a, at) + line);
}

void watch_faults() {
    static const bool watching = [] {
        static char stack[128 << 10];
        const stack_t other{.ss_sp = stack, .ss_flags = 0, .ss_size = sizeof stack};
        sigaltstack(&other, nullptr);
#ifdef RF_EMULATOR_TSAN
        // Past the sanitizer, which would hold a report from within a handler to be unsafe. Nobody returns from it.
        struct {
            void (*handler)(int, siginfo_t*, void*);
            unsigned long flags;
            void (*restorer)();
            unsigned long mask;
        } plain{on_fault, SA_SIGINFO | SA_ONSTACK | 0x04000000, std::abort, 0};
        syscall(SYS_rt_sigaction, SIGSEGV, &plain, nullptr, sizeof plain.mask);
#else
        struct sigaction action {};
        action.sa_sigaction = on_fault;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK;
        sigaction(SIGSEGV, &action, nullptr);
#endif
        return true;
    }();
    static_cast<void>(watching);
}

/// What an allocation's open pages hold before and after it is nobody's: the address sanitizer then names the line of an
/// access, the canary is for code built without it.
void guard([[maybe_unused]] const Allocation& a, [[maybe_unused]] bool on) {
#ifdef RF_EMULATOR_ASAN
    const std::size_t front = static_cast<std::size_t>(a.begin - a.pages), back = a.open_bytes - front - a.size;
    if (on) {
        __asan_poison_memory_region(a.pages, front);
        __asan_poison_memory_region(a.begin + a.size, back);
    } else {
        __asan_unpoison_memory_region(a.pages, a.open_bytes);
    }
#endif
}

void check_canaries(const Allocation& a) {
    for (const std::byte* p = a.pages; p < a.pages + a.open_bytes; ++p) {
        if (p == a.begin) p += a.size;
        if (p < a.pages + a.open_bytes && std::to_integer<unsigned char>(*p) != canary) report("device work wrote " + place_in(a, p));
    }
}

}  // namespace

void check_guards() {
    open_device_memory(true);
    for (const auto& [begin, a] : memory().device)
        if (a.live) check_canaries(a);
    open_device_memory(false);
}

void open_device_memory(bool open) {
    Memory& m = memory();
    if (m.open == open) return;
    m.open = open;
    for (const auto& [begin, a] : m.device)
        if (a.live) mprotect(a.pages, a.open_bytes, open ? PROT_READ | PROT_WRITE : PROT_NONE);
}

bool is_device_range(const void* address, std::size_t bytes) {
    const auto* at = static_cast<const std::byte*>(address);
    auto found = memory().device.upper_bound(at);
    if (found == memory().device.begin()) return false;
    const Allocation& a = (--found)->second;
    return a.live && at >= a.begin && at + bytes <= a.begin + a.size;
}

bool is_pinned_range(const void* address, std::size_t bytes) {
    const auto* at = static_cast<const std::byte*>(address);
    auto found = memory().pinned.upper_bound(at);
    if (found == memory().pinned.begin()) return false;
    --found;
    return at + bytes <= found->first + found->second;
}

namespace {

bool touches_device(const void* p) {
    const auto* at = static_cast<const std::byte*>(p);
    const Allocation* a = nearest(at);
    return a != nullptr;
}

/// Pinned memory that copies under way have yet to read.
using Ranges = std::multiset<std::pair<const std::byte*, std::size_t>>;
Ranges& awaited() {
    static Ranges ranges;
    return ranges;
}
bool is_awaited(const std::byte* at, std::size_t bytes) {
    return std::any_of(awaited().begin(), awaited().end(), [&](const auto& r) { return at < r.first + r.second && r.first < at + bytes; });
}

void check_copy(const char* call, const void* to, const void* from, std::size_t bytes, bool asynchronous) {
    for (const void* p : {to, from}) {
        if (touches_device(p)) {
            if (!is_device_range(p, bytes)) report(std::string(call) + " of " + std::to_string(bytes) + " bytes: not inside one live allocation of device memory");
        } else if (asynchronous && !is_pinned_range(p, bytes)) {
            report(std::string(call) + " of " + std::to_string(bytes) + " bytes: the host's side is not pinned memory");
        }
    }
}

}  // namespace
}  // namespace rf::emulator

using namespace rf::emulator;

extern "C" {

cudaError_t cudaMalloc(void** result, std::size_t bytes) {
    refuse_in_capture("cudaMalloc");
    watch_faults();
    Memory& m = memory();
    if (bytes == 0) {
        *result = nullptr;
        return cudaSuccess;
    }
    if (m.used + bytes > limit()) return fail_with(cudaErrorMemoryAllocation);
    const std::size_t padded = round_up(bytes, alignment), open_bytes = round_up(padded, page);
    void* block = mmap(nullptr, open_bytes + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (block == MAP_FAILED) return fail_with(cudaErrorMemoryAllocation);
    auto* pages = static_cast<std::byte*>(block) + page;
    madvise(pages, open_bytes, MADV_HUGEPAGE);  // opened and closed all the time: by far the most of it with small pages
    mprotect(pages, open_bytes, PROT_READ | PROT_WRITE);
    std::byte* begin = pages + open_bytes - padded;
    std::memset(pages, canary, open_bytes);
    std::memset(begin, poison, bytes);
    if (!m.open) mprotect(pages, open_bytes, PROT_NONE);
    guard(m.device[begin] = {begin, bytes, pages, open_bytes}, true);
    m.used += bytes;
    *result = begin;
    return cudaSuccess;
}

cudaError_t cudaFree(void* p) {
    if (!p) return cudaSuccess;
    refuse_in_capture("cudaFree");
    finish_all_work();
    Memory& m = memory();
    const auto found = m.device.find(static_cast<std::byte*>(p));
    if (found == m.device.end() || !found->second.live) report("cudaFree of memory that is not allocated");
    Allocation& a = found->second;
    mprotect(a.pages, a.open_bytes, PROT_READ | PROT_WRITE);
    check_canaries(a);
    guard(a, false);
    // The pages go, the addresses stay taken: a later touch is told from one of other memory.
    madvise(a.pages, a.open_bytes, MADV_DONTNEED);
    mprotect(a.pages, a.open_bytes, PROT_NONE);
    a.live = false;
    m.used -= a.size;
    return cudaSuccess;
}

cudaError_t cudaMallocHost(void** result, std::size_t bytes) {
    refuse_in_capture("cudaMallocHost");
    *result = std::malloc(bytes ? bytes : 1);
    if (!*result) return fail_with(cudaErrorMemoryAllocation);
    std::memset(*result, poison, bytes);
    memory().pinned[static_cast<std::byte*>(*result)] = bytes;
    return cudaSuccess;
}

cudaError_t cudaFreeHost(void* p) {
    if (!p) return cudaSuccess;
    refuse_in_capture("cudaFreeHost");
    finish_all_work();
    if (memory().pinned.erase(static_cast<std::byte*>(p)) == 0) report("cudaFreeHost of memory that is not allocated");
    std::free(p);
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
    *total = limit();
    *free = limit() - memory().used;
    return cudaSuccess;
}

/// On the legacy stream: it waits for no other stream of the program, all of which are non-blocking. The host waits for it.
cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind) {
    refuse_in_capture("cudaMemcpy");
    maybe_run();
    finish_legacy_work();
    check_copy("cudaMemcpy", to, from, bytes, false);
    open_device_memory(true);
    std::memmove(to, from, bytes);
    open_device_memory(false);
    return cudaSuccess;
}

/// From the host: read when the copy runs. To the host: what stood there is gone at once, the data comes when it runs.
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind, cudaStream_t stream) {
    check_copy("cudaMemcpyAsync", to, from, bytes, true);
    enqueue(
        stream, "cudaMemcpyAsync",
        [=] {
            check_copy("cudaMemcpyAsync", to, from, bytes, true);
            std::memmove(to, from, bytes);
            const races::Quiet quiet;
            if (!touches_device(from)) awaited().erase(awaited().find({static_cast<const std::byte*>(from), bytes}));
        },
        [=] {
            const races::Quiet quiet;  // nobody of the program writes here
            if (!touches_device(from)) awaited().insert({static_cast<const std::byte*>(from), bytes});
            if (!touches_device(to) && !is_awaited(static_cast<std::byte*>(to), bytes)) std::memset(to, 0xFB, bytes);
        });
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* p, int value, std::size_t bytes, cudaStream_t stream) {
    if (!is_device_range(p, bytes)) report("cudaMemsetAsync outside of device memory");
    enqueue(stream, "cudaMemsetAsync", [=] {
        if (!is_device_range(p, bytes)) report("cudaMemsetAsync of memory that was freed");
        std::memset(p, value, bytes);
    });
    return cudaSuccess;
}

/// On the legacy stream, and of device memory: the host does not wait, nor does any stream of the program.
cudaError_t cudaMemset(void* p, int value, std::size_t bytes) {
    refuse_in_capture("cudaMemset");
    return cudaMemsetAsync(p, value, bytes, legacy_stream());
}

}  // extern "C"
