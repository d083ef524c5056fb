#include "kernels/simd/table.hpp"

#include "core/cpu.hpp"
#include "kernels/simd/tiles.hpp"

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

const TileTable* tiles() {
    static const TileTable* chosen = []() -> const TileTable* {
        switch (cpu_bf16()) {
            case Bf16::amx: return &amx_tiles;
            case Bf16::avx512: return &avx512_bf16_tiles;
            case Bf16::portable: return &portable_tiles;
            case Bf16::none:
            case Bf16::onednn: break;
        }
        return nullptr;
    }();
    return chosen;
}

}  // namespace rf::simd
