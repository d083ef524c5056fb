#pragma once
/// The processor at hand, asked at run time: nothing is compiled for one machine.

#include <cstdint>
#include <string>
#include <vector>

namespace rf {

/// Instruction sets that kernels come in. Results are the same bits in f32 for all of them.
enum class Isa { baseline, avx2, avx512 };

/// The best set of this processor, or a lower one named by the environment variable RF_CPU_ISA
/// (`baseline`, `avx2`, `avx512`: for tests of the dispatch; an unknown or unsupported name is an error).
Isa cpu_isa();
/// What multiplies bf16 operands: f32 products of oneDNN, portable tiles (slow; for tests of what is built on tiles), oneDNN's bf16 products, or tiles of our
/// own (kernels/simd/tiles.hpp) by AVX512_BF16 or AMX.
enum class Bf16 { none, portable, onednn, avx512, amx };
/// The best that this processor, the kernel, RF_CPU_ISA and ONEDNN_MAX_CPU_ISA leave, or what the environment variable RF_CPU_BF16 names (`none`, `portable`, `onednn`,
/// `avx512`, `amx`; an unknown or unsupported name is an error).
Bf16 cpu_bf16();
/// bf16 products in hardware: `onednn` at least.
bool cpu_has_bf16();
const char* name_of(Isa isa);
const char* name_of(Bf16 bf16);
/// "AMD EPYC 9B45 (avx512, bf16), 2 cores" for records.
std::string cpu_description();
/// Cores this process may run on, by number.
std::vector<int> cpu_list();
int cpu_count();
/// Of one core; 512 KiB where the system does not say.
std::int64_t second_level_cache_bytes();
/// How many of its cores are for one of several ranks on a host: `mine` are those it may run on, users[c] ranks may run on core c. A core counts in equal
/// parts for each of them; at least 1.
int fair_cores(const std::vector<int>& mine, const std::vector<int>& users);
/// Sets the number of OpenMP threads of this process.
void set_thread_count(int threads);
int thread_count();

}  // namespace rf
