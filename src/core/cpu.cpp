#include "core/cpu.hpp"

#include "core/check.hpp"

#include <cpuid.h>
#include <omp.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <string_view>

namespace rf {

namespace {
Isa best_isa() {
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq"))
        return Isa::avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return Isa::avx2;
    return Isa::baseline;
}

Isa chosen_isa() {
    const Isa best = best_isa();
    const char* wish = std::getenv("RF_CPU_ISA");
    if (!wish || !*wish) return best;
    for (const Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512}) {
        if (std::string_view(wish) != name_of(isa)) continue;
        if (isa > best) fail_usage("RF_CPU_ISA=", wish, ": this processor has only ", name_of(best));
        return isa;
    }
    fail_usage("RF_CPU_ISA=", wish, ": expected baseline, avx2 or avx512");
}

/// The kernel gives a process the tiles' registers when it asks (Linux, Documentation/arch/x86/xstate.rst).
bool may_use_amx() {
    constexpr unsigned leaf = 7, amx_bf16 = 1U << 22, amx_tile = 1U << 24;
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (!__get_cpuid_count(leaf, 0, &a, &b, &c, &d) || (d & amx_bf16) == 0 || (d & amx_tile) == 0) return false;
    constexpr long request_permission = 0x1023, tile_data = 18;
    return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
}

Bf16 best_bf16() {
    if (cpu_isa() != Isa::avx512 || !__builtin_cpu_supports("avx512bf16")) return Bf16::none;
    const char* limit = std::getenv("ONEDNN_MAX_CPU_ISA");
    const std::string_view name = limit ? limit : "ALL";
    const bool amx = name == "ALL" || name.find("AMX") != std::string_view::npos;
    if (!amx && name != "AVX512_CORE_BF16") return Bf16::none;
    return amx && may_use_amx() ? Bf16::amx : Bf16::avx512;
}

Bf16 chosen_bf16() {
    const Bf16 best = best_bf16();
    const char* wish = std::getenv("RF_CPU_BF16");
    if (!wish || !*wish) return best;
    for (const Bf16 bf16 : {Bf16::none, Bf16::portable, Bf16::onednn, Bf16::avx512, Bf16::amx}) {
        if (std::string_view(wish) != name_of(bf16)) continue;
        if (bf16 > std::max(best, Bf16::portable)) fail_usage("RF_CPU_BF16=", wish, ": the best that this processor has is ", name_of(best));
        return bf16;
    }
    fail_usage("RF_CPU_BF16=", wish, ": expected none, portable, onednn, avx512 or amx");
}
}  // namespace

Isa cpu_isa() {
    static const Isa isa = chosen_isa();
    return isa;
}

Bf16 cpu_bf16() {
    static const Bf16 bf16 = chosen_bf16();
    return bf16;
}

bool cpu_has_bf16() { return cpu_bf16() >= Bf16::onednn; }

const char* name_of(Isa isa) {
    switch (isa) {
        case Isa::baseline: return "baseline";
        case Isa::avx2: return "avx2";
        case Isa::avx512: return "avx512";
    }
    return "?";
}

const char* name_of(Bf16 bf16) {
    switch (bf16) {
        case Bf16::none: return "none";
        case Bf16::portable: return "portable";
        case Bf16::onednn: return "onednn";
        case Bf16::avx512: return "avx512";
        case Bf16::amx: return "amx";
    }
    return "?";
}

std::string cpu_description() {
    std::string model = "unknown processor", family, number;
    std::ifstream info("/proc/cpuinfo");
    for (std::string line; std::getline(info, line) && !line.empty();) {
        const auto value = [&line] { return line.substr(std::min(line.size(), line.find(':') + 2)); };
        if (line.starts_with("model name")) model = value();
        if (line.starts_with("cpu family")) family = value();
        if (line.starts_with("model\t")) number = value();
    }
    return message(model, " family ", family, " model ", number, " (", name_of(cpu_isa()), cpu_has_bf16() ? message(", bf16 by ", name_of(cpu_bf16())) : "", "), ",
                   cpu_count(), " cores");
}

std::vector<int> cpu_list() {
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) != 0) return {0};
    std::vector<int> cores;
    for (int core = 0; core < CPU_SETSIZE; ++core)
        if (CPU_ISSET(core, &set)) cores.push_back(core);
    return cores;
}

int cpu_count() { return static_cast<int>(cpu_list().size()); }

std::int64_t second_level_cache_bytes() {
    constexpr std::int64_t usual = 512 * 1024;
    static const std::int64_t told = sysconf(_SC_LEVEL2_CACHE_SIZE);
    return told > 0 ? told : usual;
}

int fair_cores(const std::vector<int>& mine, const std::vector<int>& users) {
    double share = 0;
    for (const int core : mine) share += 1.0 / std::max(users[static_cast<std::size_t>(core)], 1);
    constexpr double rounding = 1e-9;  // thirds that make a whole
    return std::max(1, static_cast<int>(share + rounding));
}

void set_thread_count(int threads) { omp_set_num_threads(threads); }
int thread_count() { return omp_get_max_threads(); }

}  // namespace rf
