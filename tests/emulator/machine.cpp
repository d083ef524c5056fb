#include "emulator/machine.hpp"
#include "emulator/races.hpp"

#include <boost/context/detail/fcontext.hpp>

#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <set>
#include <sstream>
#include <utility>

#ifdef RF_EMULATOR_ASAN
#include <sanitizer/common_interface_defs.h>
#endif

namespace rf::emulator {

namespace {

namespace context = boost::context::detail;
using Location = std::source_location;

constexpr std::size_t stack_bytes = 256 << 10, page = 4096;
constexpr std::size_t fiber_sets = races::watched ? 4 : 1;  // blocks take turns: races between them hide behind equal fibers
constexpr std::uint64_t sector_bytes = 32;
constexpr std::uint64_t bank_bytes = 4, banks = 32;
constexpr std::size_t instruction_bytes = 16;

enum class State { ready, at_warp, at_block, done };

struct Fiber {
    Thread thread;
    State state = State::ready;
    Location where;                ///< of the barrier or exchange it waits at
    std::uint64_t exchanges = 0;   ///< parity chooses the bank of slots
    std::uint64_t block_barriers = 0, warp_barriers = 0;  ///< parity chooses the token
    std::vector<AsyncCopy> copies;  ///< cp.async under way, oldest first
    std::uint32_t open_group = 1;   ///< number of the group of copies that is not committed yet
    context::fcontext_t resume{};
    std::size_t stack = 0;         ///< index
    std::map<const char*, std::map<std::uint32_t, std::uint64_t>> occurrence;  ///< of accesses by file and line, when counting
};

/// A stack and the sanitizer's idea of who runs on it: they stay together, or one thread's locals look like another's.
struct Stack {
    std::byte* lowest = nullptr;
    void* fiber = nullptr;
};

/// Addresses that barriers and starts are told apart by; fresh in each block.
struct Tokens {
    struct Pair {
        char at[2][8];  // nobody is two barriers ahead of a thread that has not left the one before
    };
    char start[8];
    Pair block;
    Pair warp[32];
};
static_assert(sizeof(Tokens) <= page);

/// One warp instruction on memory: which addresses its lanes ask for.
struct WarpAccess {
    Access kind;
    std::size_t bytes = 0;
    std::array<std::uint64_t, 32> address{};
    std::uint32_t lanes = 0;
    Location where;
};

struct Machine {
    std::mt19937_64 random{1};
    std::vector<Fiber> fibers;
    std::vector<Stack> stacks;     ///< sets of fibers.size()
    std::uint64_t turn = 0;        ///< blocks run
    void* host = nullptr;          ///< the sanitizer's fiber that runs the grid
    std::unique_ptr<char[]> end;   ///< token of the grid's end
    Fiber* current = nullptr;
    Block block;
    const KernelInfo* kernel = nullptr;
    const std::function<void()>* body = nullptr;
    context::fcontext_t scheduler{};
    std::byte* shared = nullptr;
    Tokens* tokens = nullptr;
    std::vector<std::byte> slots;  ///< [warp][parity][lane]
    const std::byte* accessed = nullptr;  ///< by the newest noted access, for the fault it may be
    std::size_t accessed_bytes = 0;
    Location accessed_at;
    bool counting = false;
    std::map<std::string, Counters> counters;
    Counters* at = nullptr;
    std::map<std::tuple<int, const char*, std::uint32_t, std::uint64_t>, WarpAccess> accesses;  ///< of the running block
#ifdef RF_EMULATOR_ASAN
    const void* scheduler_stack = nullptr;
    std::size_t scheduler_stack_bytes = 0;
#endif
};

Machine& machine() {
    static Machine m = [] {
        Machine made;
        if (const char* seed = std::getenv("RF_EMULATOR_SEED")) made.random.seed(std::strtoull(seed, nullptr, 10));
        return made;
    }();
    return m;
}

std::string describe(const Location& where) {
    const std::string file = where.file_name();
    return file.substr(file.rfind('/') + 1) + ":" + std::to_string(where.line());
}

bool same(const Location& a, const Location& b) {
    return a.line() == b.line() && a.column() == b.column() && (a.file_name() == b.file_name() || std::strcmp(a.file_name(), b.file_name()) == 0);
}

std::string describe(const uint3& index) {
    std::ostringstream out;
    out << '(' << index.x << ", " << index.y << ", " << index.z << ')';
    return out.str();
}

void before_switch([[maybe_unused]] void** save, [[maybe_unused]] const void* bottom, [[maybe_unused]] std::size_t size) {
#ifdef RF_EMULATOR_ASAN
    __sanitizer_start_switch_fiber(save, bottom, size);
#endif
}
void after_switch([[maybe_unused]] void* save) {
#ifdef RF_EMULATOR_ASAN
    __sanitizer_finish_switch_fiber(save, nullptr, nullptr);
#endif
}

void enter(context::transfer_t from) {
    Machine& m = machine();
#ifdef RF_EMULATOR_ASAN
    __sanitizer_finish_switch_fiber(nullptr, &m.scheduler_stack, &m.scheduler_stack_bytes);
#endif
    m.scheduler = from.fctx;
    races::acquire(m.tokens->start);
    (*m.body)();
    Fiber& self = *m.current;
    self.state = State::done;
    races::release(m.end.get());
    races::become(m.host);
#ifdef RF_EMULATOR_ASAN
    __sanitizer_start_switch_fiber(nullptr, m.scheduler_stack, m.scheduler_stack_bytes);
#endif
    context::jump_fcontext(m.scheduler, nullptr);
    std::abort();
}

/// From a fiber to the scheduler; returns when the fiber is resumed.
void wait(State state, const Location& where) {
    Machine& m = machine();
    Fiber& self = *m.current;
    self.state = state;
    self.where = where;
    races::become(m.host);
    void* save = nullptr;
#ifdef RF_EMULATOR_ASAN
    before_switch(&save, m.scheduler_stack, m.scheduler_stack_bytes);
#endif
    const context::transfer_t back = context::jump_fcontext(m.scheduler, nullptr);
    after_switch(save);
    m.scheduler = back.fctx;
}

void run(Fiber& fiber) {
    Machine& m = machine();
    m.current = &fiber;
    void* save = nullptr;
    races::become(m.stacks[fiber.stack].fiber);
    before_switch(&save, m.stacks[fiber.stack].lowest, stack_bytes);
    fiber.resume = context::jump_fcontext(fiber.resume, nullptr).fctx;
    after_switch(save);
}

void make_fibers(std::size_t count) {
    Machine& m = machine();
    if (m.fibers.size() < count) m.fibers.resize(count);
    const std::size_t have = m.stacks.size();
    if (have < fiber_sets * m.fibers.size()) m.stacks.resize(fiber_sets * m.fibers.size());
    for (std::size_t i = have; i < m.stacks.size(); ++i) {
        // The lowest page stays closed: a stack that grows too far is a fault, not a corruption.
        void* block = mmap(nullptr, stack_bytes + page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (block == MAP_FAILED || mprotect(static_cast<char*>(block) + page, stack_bytes, PROT_READ | PROT_WRITE) != 0)
            report("no memory for the stacks of a block");
        m.stacks[i] = {static_cast<std::byte*>(block) + page, races::make()};
    }
}

/// Lets every waiting thread of the range go on when all of them wait for the same thing; reports what cannot end.
bool release(std::size_t begin, std::size_t end, State state, const char* what) {
    Machine& m = machine();
    std::size_t waiting = 0, done = 0;
    for (std::size_t i = begin; i < end; ++i) {
        waiting += m.fibers[i].state == state;
        done += m.fibers[i].state == State::done;
    }
    if (waiting == 0 || waiting + done < end - begin) return false;
    const Fiber* first = nullptr;
    for (std::size_t i = begin; i < end; ++i) {
        Fiber& f = m.fibers[i];
        if (f.state == State::done) {
            for (std::size_t j = begin; j < end; ++j)
                if (m.fibers[j].state == state) {
                    m.current = &m.fibers[j];
                    report(std::string("divergent ") + what + " at " + describe(m.fibers[j].where) + ": thread " + describe(f.thread.index) + " has left the kernel");
                }
        }
        if (!first) first = &f;
        if (!same(f.where, first->where)) {
            m.current = &f;
            report(std::string("divergent ") + what + ": thread " + describe(first->thread.index) + " waits at " + describe(first->where) + ", thread " +
                   describe(f.thread.index) + " at " + describe(f.where));
        }
    }
    for (std::size_t i = begin; i < end; ++i) m.fibers[i].state = State::ready;
    if (m.at && state == State::at_block) ++m.at->barriers;
    return true;
}

/// Extra passes of one warp instruction on shared memory: distinct 4-byte words that share a bank, within each of the
/// groups of lanes that one pass serves (8-byte accesses go by half warps, 16-byte ones by quarters).
std::pair<std::uint64_t, std::uint64_t> wavefronts(const WarpAccess& a) {
    const int groups = a.bytes == 16 ? 4 : a.bytes == 8 ? 2 : 1, width = 32 / groups;
    std::uint64_t passes = 0, ideal = 0;
    for (int g = 0; g < groups; ++g) {
        std::array<std::set<std::uint64_t>, banks> words;
        bool any = false;
        for (int i = g * width; i < (g + 1) * width; ++i) {
            if (!(a.lanes >> i & 1U)) continue;
            any = true;
            for (std::uint64_t b = 0; b < std::max<std::uint64_t>(a.bytes, 1); b += bank_bytes) {
                const std::uint64_t word = (a.address[static_cast<std::size_t>(i)] + b) / bank_bytes;
                words[word % banks].insert(word);
            }
        }
        std::uint64_t most = 0;
        for (const auto& bank : words) most = std::max<std::uint64_t>(most, bank.size());
        passes += most;
        ideal += any;
    }
    return {passes, ideal};
}

void count_block() {
    Machine& m = machine();
    Counters& c = *m.at;
    for (const auto& [key, a] : m.accesses) {
        if (a.kind == Access::global_load || a.kind == Access::global_store) {
            std::set<std::uint64_t> sectors, bytes;
            for (std::size_t i = 0; i < 32; ++i) {
                if (!(a.lanes >> i & 1U)) continue;
                for (std::uint64_t b = 0; b < a.bytes; ++b) {
                    bytes.insert(a.address[i] + b);
                    sectors.insert((a.address[i] + b) / sector_bytes);
                }
            }
            c.global_bytes += bytes.size();
            c.global_sectors += sectors.size();
        } else {
            const auto [passes, ideal] = wavefronts(a);
            ++c.shared_accesses;
            c.shared_wavefronts += passes;
            c.shared_ideal += ideal;
            if (passes > ideal) c.conflicts[describe(a.where)] += passes - ideal;
        }
    }
    m.accesses.clear();
}

/// Shared memory and tokens of a block, fresh each time: what the block before left is gone. In other builds neighbours
/// are guarded by the address sanitizer. Here they are a mapping, whose end makes the sanitizer forget who touched it.
#ifdef RF_EMULATOR_TSAN
void open_shared() {
    Machine& m = machine();
    void* block = mmap(nullptr, page + m.kernel->shared, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (block == MAP_FAILED) report("no memory for a block");
    m.tokens = static_cast<Tokens*>(block);
    m.shared = static_cast<std::byte*>(block) + page;
    std::memset(m.shared, 0xff, m.kernel->shared);
}
void close_shared() {
    Machine& m = machine();
    munmap(m.tokens, page + m.kernel->shared);
    m.shared = nullptr;
}
#else
void open_shared() {
    static Tokens tokens;
    Machine& m = machine();
    m.tokens = &tokens;
    void* block = nullptr;
    if (m.kernel->shared > 0 && posix_memalign(&block, 128, m.kernel->shared) != 0) report("no memory for a block");
    m.shared = static_cast<std::byte*>(block);
    if (m.shared) std::memset(m.shared, 0xff, m.kernel->shared);
}
void close_shared() { std::free(std::exchange(machine().shared, nullptr)); }
#endif

void run_block(std::size_t threads) {
    Machine& m = machine();
    const std::size_t warps = threads / 32, set = m.turn++ % fiber_sets;
    const dim3& dims = m.block.threads;
    m.slots.assign(warps * 2 * 32 * slot_bytes, std::byte{0xff});
    open_shared();
    for (std::size_t i = 0; i < threads; ++i) {
        Fiber& f = m.fibers[i];
        const auto n = static_cast<unsigned>(i);
        f.thread = {.index = {n % dims.x, n / dims.x % dims.y, n / dims.x / dims.y}, .lane = static_cast<int>(n % 32), .warp = static_cast<int>(n / 32)};
        f.state = State::ready;
        f.exchanges = f.block_barriers = f.warp_barriers = 0;
        f.open_group = 1;
        f.occurrence.clear();
        f.stack = set * m.fibers.size() + i;
        f.resume = context::make_fcontext(m.stacks[f.stack].lowest + stack_bytes, stack_bytes, enter);
    }
    races::release(m.tokens->start);
    std::vector<std::size_t> order(warps);
    for (std::size_t w = 0; w < warps; ++w) order[w] = w;
    while (true) {
        bool progress = false;
        std::shuffle(order.begin(), order.end(), m.random);
        for (const std::size_t w : order) {
            // A warp runs on for a while, then another has its turn: both runaway and lagging warps are seen.
            do {
                // One draw for 32 lanes: an odd step from a random start, and which bits to turn. A full shuffle costs as much as the lanes.
                const std::uint64_t draw = m.random(), step = draw % 32 | 1, start = draw >> 8, turned = draw >> 16;
                for (std::uint64_t i = 0; i < 32; ++i) {
                    Fiber& f = m.fibers[w * 32 + (((i * step + start) ^ turned) & 31)];
                    if (f.state != State::ready) continue;
                    run(f);
                    progress = true;
                }
                if (!release(w * 32, w * 32 + 32, State::at_warp, "warp exchange")) break;
                progress = true;
            } while (m.random() % 8 != 0);
        }
        if (release(0, threads, State::at_block, "barrier")) progress = true;
        if (progress) continue;
        const auto last = m.fibers.begin() + static_cast<std::ptrdiff_t>(threads);
        const auto stuck = std::find_if(m.fibers.begin(), last, [](const Fiber& f) { return f.state != State::done; });
        if (stuck == last) break;
        const auto other = std::find_if(m.fibers.begin(), last, [&](const Fiber& f) { return f.state != State::done && f.state != stuck->state; });
        m.current = &*stuck;
        report("divergent barrier: thread " + describe(stuck->thread.index) + " waits at " + describe(stuck->where) +
               (other == last ? "" : ", thread " + describe(other->thread.index) + " at " + describe(other->where)) + ", and none can go on");
    }
    for (std::size_t i = 0; i < threads; ++i) {
        m.current = &m.fibers[i];
        if (!m.fibers[i].copies.empty()) report("the kernel ends with asynchronous copies that were never waited for");
    }
    m.current = nullptr;
    close_shared();
    if (m.counting) count_block();
}

/// The sanitizers see calls of memcpy, but an exchange is no access to memory.
__attribute__((optimize("no-tree-loop-distribute-patterns"))) void copy_unseen(std::byte* to, const std::byte* from, std::size_t bytes) {
    for (std::size_t i = 0; i < bytes; ++i) to[i] = from[i];
}

}  // namespace

const Thread& this_thread() { return machine().current->thread; }
const Block& this_block() { return machine().block; }

void* shared_memory(std::size_t bytes, std::size_t alignment) {
    Machine& m = machine();
    if (bytes > m.kernel->shared) report("the kernel uses " + std::to_string(bytes) + " bytes of shared memory, the launch gives " + std::to_string(m.kernel->shared));
    if (alignment > 128) report("shared memory is aligned to 128 bytes, not to " + std::to_string(alignment));
    return m.shared;
}

void block_barrier(const Location& where) {
    Machine& m = machine();
    Fiber& self = *m.current;
    const char* token = m.tokens->block.at[self.block_barriers++ % 2];
    races::release(token);
    wait(State::at_block, where);
    races::acquire(token);
}

void warp_barrier(const Location& where) {
    Machine& m = machine();
    Fiber& self = *m.current;
    const char* token = m.tokens->warp[self.thread.warp].at[self.warp_barriers++ % 2];
    races::release(token);
    wait(State::at_warp, where);
    races::acquire(token);
}

void add_copy(void* target, const void* source) {
    Fiber& self = *machine().current;
    const races::Quiet quiet;
    self.copies.push_back({target, source, self.open_group});
}
void commit_copies() { ++machine().current->open_group; }
bool take_copy(std::uint32_t pending, AsyncCopy& copy) {
    Fiber& self = *machine().current;
    // Committed, and not among the newest `pending` groups.
    if (self.copies.empty() || self.copies.front().group + pending >= self.open_group) return false;
    const races::Quiet quiet;
    copy = self.copies.front();
    self.copies.erase(self.copies.begin());
    return true;
}

const std::byte* exchange(const void* value, std::size_t bytes, const Location& where) {
    Machine& m = machine();
    Fiber& self = *m.current;
    // Two banks in turn: nobody is two exchanges ahead of a lane that has not read yet.
    const std::size_t bank = (static_cast<std::size_t>(self.thread.warp) * 2 + self.exchanges++ % 2) * 32 * slot_bytes;
    copy_unseen(m.slots.data() + bank + static_cast<std::size_t>(self.thread.lane) * slot_bytes, static_cast<const std::byte*>(value), bytes);
    wait(State::at_warp, where);
    return m.slots.data() + bank;
}

/// Fragments (PTX ISA, "Matrix fragments for mma.m16n8k16 with floating point type"), lane = 4 g + q:
/// A: a0 (g, 2q…), a1 (g+8, 2q…), a2 (g, 2q+8…), a3 (g+8, 2q+8…); B: b0 (2q…, g), b1 (2q+8…, g); D: d0 d1 (g, 2q…), d2 d3 (g+8, 2q…).
void multiply_m16n8k16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2], const Location& where) {
    const std::uint32_t mine[6] = {a[0], a[1], a[2], a[3], b[0], b[1]};
    static_assert(sizeof mine <= slot_bytes);
    const std::byte* slots = exchange(mine, sizeof mine, where);
    const int lane = machine().current->thread.lane, g = lane / 4, q = lane % 4;
    // Row g or g + 8 of A and column 2 q or 2 q + 1 of B, all of k: eight pairs in four lanes' registers.
    const auto gather = [&](float (&k)[16], int lanes, int first) {
        for (int i = 0; i < 4; ++i) {
            const auto* registers = reinterpret_cast<const std::uint32_t*>(slots + static_cast<std::size_t>(lanes + i) * slot_bytes);
            for (int upper = 0; upper < 2; ++upper) {
                const std::uint32_t pair = registers[first < 4 ? first + 2 * upper : first + upper];
                k[8 * upper + 2 * i] = std::bit_cast<float>(pair << 16);
                k[8 * upper + 2 * i + 1] = std::bit_cast<float>(pair & 0xffff0000U);
            }
        }
    };
    float rows[2][16], columns[2][16];
    for (int half = 0; half < 2; ++half) {
        gather(rows[half], 4 * g, half);
        gather(columns[half], 4 * (2 * q + half), 4);
    }
    float sums[4] = {};
    for (int k = 0; k < 16; ++k)
        for (int i = 0; i < 4; ++i) sums[i] += rows[i / 2][k] * columns[i % 2][k];
    for (int i = 0; i < 4; ++i) d[i] += sums[i];
    count_flops(2 * 16 * 8 * 16 / 32);
}

void note_access(const void* address, std::size_t bytes, std::size_t alignment, Access kind, const Location& where) {
    Machine& m = machine();
    const auto a = reinterpret_cast<std::uint64_t>(address);
    if (a % alignment != 0) report("misaligned access of " + std::to_string(bytes) + " bytes at " + describe(where));
    m.accessed = static_cast<const std::byte*>(address);
    m.accessed_bytes = bytes;
    m.accessed_at = where;
    if (!m.counting) return;
    const races::Quiet quiet;
    Fiber& f = *m.current;
    // Of wider types the compiler makes several instructions: none moves more than 16 bytes a lane.
    for (std::size_t at = 0; at < bytes; at += instruction_bytes) {
        const std::uint64_t nth = f.occurrence[where.file_name()][where.line() * 256 + where.column() % 256]++;
        WarpAccess& access = m.accesses[{f.thread.warp, where.file_name(), where.line() * 256 + where.column() % 256, nth}];
        access.kind = kind;
        access.bytes = std::min(bytes - at, instruction_bytes);
        access.where = where;
        access.address[static_cast<std::size_t>(f.thread.lane)] = a + at;
        access.lanes |= 1U << f.thread.lane;
    }
}

void count_flops(std::uint64_t flops) {
    if (Counters* c = machine().at) c->flops += flops;
}

void run_grid(const KernelInfo& kernel, const std::function<void()>& body) {
    const races::Quiet quiet;  // of the scheduler; threads are fibers of their own
    Machine& m = machine();
    const std::size_t threads = std::size_t{kernel.block.x} * kernel.block.y * kernel.block.z;
    m.kernel = &kernel;
    m.body = &body;
    m.current = nullptr;
    if (threads == 0 || threads > 1024 || threads % 32 != 0)
        report("a block of " + std::to_string(threads) + " threads (whole warps, at most 1024)");
    if (kernel.shared > 227 << 10) report(std::to_string(kernel.shared) + " bytes of shared memory asked for, a block has 227 KiB");
    if (kernel.grid.y > 65535 || kernel.grid.z > 65535) report("grid dimensions y and z end at 65535");
    make_fibers(threads);
    m.host = races::current();
    m.end = std::make_unique<char[]>(8);
    m.at = m.counting ? &m.counters[kernel.name] : nullptr;
    if (m.at) ++m.at->launches, m.at->blocks += std::uint64_t{kernel.grid.x} * kernel.grid.y * kernel.grid.z;
    m.block.threads = kernel.block;
    m.block.grid = kernel.grid;
    std::vector<std::uint64_t> order(std::uint64_t{kernel.grid.x} * kernel.grid.y * kernel.grid.z);
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::shuffle(order.begin(), order.end(), m.random);
    for (const std::uint64_t b : order) {
        m.block.index = {static_cast<unsigned>(b % kernel.grid.x), static_cast<unsigned>(b / kernel.grid.x % kernel.grid.y),
                         static_cast<unsigned>(b / kernel.grid.x / kernel.grid.y)};
        run_block(threads);
    }
    races::acquire(m.end.get());
    m.end.reset();
    m.kernel = nullptr;
    m.body = nullptr;
    m.at = nullptr;
}

void set_seed(std::uint64_t seed) { machine().random.seed(seed); }
std::uint64_t random_below(std::uint64_t n) { return machine().random() % n; }
void count(bool on) { machine().counting = on; }
void reset_counters() { machine().counters.clear(); }
const std::map<std::string, Counters>& counters() { return machine().counters; }

std::string at_work() {
    const Machine& m = machine();
    if (!m.kernel) return {};
    return std::string(" [kernel ") + m.kernel->name + ", block " + describe(m.block.index) +
           (m.current ? ", thread " + describe(m.current->thread.index) : "") + "]";
}

std::string line_of_access(const void* address) {
    const Machine& m = machine();
    const auto* at = static_cast<const std::byte*>(address);
    return m.current && at >= m.accessed && at < m.accessed + m.accessed_bytes ? describe(m.accessed_at) : "";
}

bool is_stack_end(const void* address) {
    const auto* at = static_cast<const std::byte*>(address);
    return std::any_of(machine().stacks.begin(), machine().stacks.end(), [&](const Stack& s) { return at < s.lowest && at >= s.lowest - page; });
}

void report(const std::string& what) {
    const std::string text = "emulator: " + what + at_work() + '\n';
    if (::write(STDERR_FILENO, text.data(), text.size()) < 0) std::_Exit(71);
    std::_Exit(70);
}

std::string trap(const std::function<void()>& body) {
    int ends[2];
    if (pipe(ends) != 0) report("no pipe");
    std::fflush(nullptr);
    const pid_t child = fork();
    if (child == 0) {
        close(ends[0]);
        dup2(ends[1], STDERR_FILENO);  // the sanitizers' words too
        body();
        std::_Exit(0);
    }
    close(ends[1]);
    std::string text;
    char part[256];
    for (ssize_t n; (n = ::read(ends[0], part, sizeof part)) > 0;) text.append(part, static_cast<std::size_t>(n));
    close(ends[0]);
    int status = 0;
    waitpid(child, &status, 0);
    if (text.empty() && status != 0) text = "ended with status " + std::to_string(status);
    return text;
}

}  // namespace rf::emulator

// What the sanitizers ask for and tell: their reports are preceded by what was at work.
#ifdef RF_EMULATOR_ASAN
extern "C" const char* __asan_default_options() { return "exitcode=70:detect_leaks=0:detect_stack_use_after_return=0"; }
extern "C" void __asan_on_error() {
    const std::string text = "emulator: an access that the address sanitizer does not allow" + rf::emulator::at_work() + '\n';
    if (::write(STDERR_FILENO, text.data(), text.size()) < 0) std::_Exit(71);
}
#endif
#ifdef RF_EMULATOR_TSAN
// Called under the sanitizer's locks: plain system calls only. Not of the order of locks: MPI takes its own in two orders at its end.
extern "C" const char* __tsan_default_options() { return "exitcode=70:halt_on_error=1:report_thread_leaks=0:history_size=4:detect_deadlocks=0"; }
extern "C" void __tsan_on_report(void*) {
    const rf::emulator::races::Quiet quiet;
    const std::string text = "emulator: a race; its later access is of" + (rf::emulator::at_work().empty() ? " the host or a stream's copy" : rf::emulator::at_work()) + '\n';
    if (syscall(SYS_write, STDERR_FILENO, text.data(), text.size()) < 0) std::_Exit(71);
}
#endif
