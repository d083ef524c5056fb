#pragma once
/// The processor at hand, asked at run time: nothing is compiled for one machine.

#include <string>
#include <vector>

namespace rf {

/// Instruction sets that kernels come in. Results are the same bits in f32 for all of them.
enum class Isa { baseline, avx2, avx512 };

/// The best set of this processor, or a lower one named by the environment variable RF_CPU_ISA
/// (`baseline`, `avx2`, `avx512`: for tests of the dispatch; an unknown or unsupported name is an error).
Isa cpu_isa();
/// bf16 products in hardware (AVX512_BF16), and not switched off by RF_CPU_ISA or ONEDNN_MAX_CPU_ISA.
bool cpu_has_bf16();
const char* name_of(Isa isa);
/// "AMD EPYC 9B45 (avx512, bf16), 2 cores" for records.
std::string cpu_description();
/// Cores this process may run on, by number.
std::vector<int> cpu_list();
int cpu_count();
/// How many of its cores are for one of several ranks on a host: `mine` are those it may run on, users[c] ranks may run on core c. A core counts in equal
/// parts for each of them; at least 1.
int fair_cores(const std::vector<int>& mine, const std::vector<int>& users);
/// Sets the number of OpenMP threads of this process.
void set_thread_count(int threads);
int thread_count();

}  // namespace rf
