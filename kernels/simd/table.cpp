#include "kernels/simd/table.hpp"

#include "core/cpu.hpp"

namespace rf::simd {

const Table& table_of(Isa isa) {
    switch (isa) {
        case Isa::avx512: return avx512_table;
        case Isa::avx2: return avx2_table;
        case Isa::baseline: break;
    }
    return baseline_table;
}

const Table& table() {
    static const Table& chosen = table_of(cpu_isa());
    return chosen;
}

}  // namespace rf::simd
