/// cuBLASLt as far as the program uses it, by its documentation. Wrong arguments get the status that the library
/// documents; memory it would touch wrongly is reported.

#include "emulator/machine.hpp"
#include "emulator/runtime.hpp"

#include <cublasLt.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

struct cublasLtContext {};

namespace rf::emulator {

namespace {

// --- objects ---

struct Description {
    cublasComputeType_t compute = CUBLAS_COMPUTE_32F;
    cudaDataType_t scale = CUDA_R_32F;
    std::int32_t trans_a = CUBLAS_OP_N, trans_b = CUBLAS_OP_N;
    std::uint32_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    void* aux = nullptr;
    std::int64_t aux_ld = 0;
};

struct Layout {
    cudaDataType_t type;
    std::uint64_t rows, columns;
    std::int64_t ld;
    friend bool operator==(const Layout&, const Layout&) = default;
};

struct Preference {
    std::uint64_t workspace = 0;
    std::uint32_t reduction = CUBLASLT_REDUCTION_SCHEME_MASK;
    std::uint32_t align[4] = {256, 256, 256, 256};  ///< of A, B, C, D
};

/// The objects of one kind that exist; any other pointer is an error of the program.
template <class Object>
class Known {
public:
    explicit Known(const char* name) : name_(name) {}
    Object* make(Object value) { return *made_.insert(new Object(value)).first; }
    Object& at(const void* handle) {
        const auto found = made_.find(static_cast<Object*>(const_cast<void*>(handle)));
        if (found == made_.end()) report(std::string("cuBLASLt: a ") + name_ + " that does not exist (destroyed, or never made)");
        return **found;
    }
    void destroy(void* handle) {
        Object* object = &at(handle);
        made_.erase(object);
        delete object;
    }

private:
    const char* name_;
    std::set<Object*> made_;
};

Known<cublasLtContext>& contexts() {
    static Known<cublasLtContext> known("handle");
    return known;
}
Known<Description>& descriptions() {
    static Known<Description> known("descriptor");
    return known;
}
Known<Layout>& layouts() {
    static Known<Layout> known("layout");
    return known;
}
Known<Preference>& preferences() {
    static Known<Preference> known("preference");
    return known;
}

template <class Value>
cublasStatus_t set(Value& value, const void* from, std::size_t bytes) {
    if (!from || bytes != sizeof value) return CUBLAS_STATUS_INVALID_VALUE;
    std::memcpy(&value, from, bytes);
    return CUBLAS_STATUS_SUCCESS;
}

// --- problems ---

std::size_t size_of(cudaDataType_t type) { return type == CUDA_R_32F ? 4 : 2; }
bool known_type(cudaDataType_t type) { return type == CUDA_R_32F || type == CUDA_R_16BF; }

/// One product D = op(A) op(B) + beta C, column-major.
struct Problem {
    Description op;
    Layout a, b, c, d;

    std::uint64_t m() const { return d.rows; }
    std::uint64_t n() const { return d.columns; }
    std::uint64_t k() const { return op.trans_a == CUBLAS_OP_N ? a.columns : a.rows; }

    cublasStatus_t status() const {
        const bool na = op.trans_a == CUBLAS_OP_N, nb = op.trans_b == CUBLAS_OP_N;
        if ((!na && op.trans_a != CUBLAS_OP_T) || (!nb && op.trans_b != CUBLAS_OP_T)) return CUBLAS_STATUS_INVALID_VALUE;
        for (const Layout* l : {&a, &b, &c, &d})
            if (l->rows == 0 || l->columns == 0 || l->ld < static_cast<std::int64_t>(l->rows)) return CUBLAS_STATUS_INVALID_VALUE;
        if ((na ? a.rows : a.columns) != m() || (nb ? b.columns : b.rows) != n() || (nb ? b.rows : b.columns) != k()) return CUBLAS_STATUS_INVALID_VALUE;
        if (c.rows != d.rows || c.columns != d.columns) return CUBLAS_STATUS_INVALID_VALUE;
        if (op.compute != CUBLAS_COMPUTE_32F || op.scale != CUDA_R_32F) return CUBLAS_STATUS_NOT_SUPPORTED;
        if (!known_type(a.type) || a.type != b.type || c.type != d.type || (d.type != a.type && d.type != CUDA_R_32F)) return CUBLAS_STATUS_NOT_SUPPORTED;
        return epilogue_status();
    }
    bool masked() const { return op.epilogue != CUBLASLT_EPILOGUE_DEFAULT; }
    std::uint64_t mask_bytes() const { return static_cast<std::uint64_t>(op.aux_ld) / 8 * (n() - 1) + (m() + 7) / 8; }

private:
    cublasStatus_t epilogue_status() const {
        if (!masked()) return CUBLAS_STATUS_SUCCESS;
        if (op.epilogue != CUBLASLT_EPILOGUE_RELU_AUX && op.epilogue != CUBLASLT_EPILOGUE_DRELU) return CUBLAS_STATUS_NOT_SUPPORTED;
        const bool fits = op.aux && op.aux_ld % 128 == 0 && op.aux_ld >= static_cast<std::int64_t>(m());
        return fits ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
    }
};

/// What an algorithm was chosen for; it fits nothing else.
std::uint64_t digest(const Problem& p) {
    std::uint64_t h = 0xcbf29ce484222325U;
    const auto mix = [&](std::uint64_t x) { h = (h ^ x) * 0x100000001b3U; };
    for (const Layout* l : {&p.a, &p.b, &p.c, &p.d}) mix(l->type), mix(l->rows), mix(l->columns), mix(static_cast<std::uint64_t>(l->ld));
    mix(static_cast<std::uint64_t>(p.op.trans_a)), mix(static_cast<std::uint64_t>(p.op.trans_b)), mix(p.op.epilogue);
    return h;
}

/// An algorithm's words: the digest of its problem, the alignments of A, B, C, D, the workspace.
struct Choice {
    std::uint64_t problem;
    std::uint32_t align[4];
    std::uint64_t workspace;
};
static_assert(sizeof(Choice) <= sizeof(cublasLtMatmulAlgo_t));

/// Long sums are cut and joined through the workspace where the preference allows it.
std::uint64_t workspace_of(const Problem& p, const Preference& preference) {
    const bool cut = preference.reduction & CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE && p.k() >= 64;
    return cut && preference.workspace >= 4096 ? 4096 : 0;
}

// --- products ---

float widen(std::uint16_t bits) { return std::bit_cast<float>(std::uint32_t{bits} << 16); }
std::uint16_t narrow(float x) {
    const auto u = std::bit_cast<std::uint32_t>(x);
    if ((u & 0x7fffffffU) > 0x7f800000U) return static_cast<std::uint16_t>((u >> 16) | 0x40U);
    return static_cast<std::uint16_t>((u + 0x7fffU + ((u >> 16) & 1U)) >> 16);
}
float read(const void* p, cudaDataType_t type, std::uint64_t i) {
    return type == CUDA_R_32F ? static_cast<const float*>(p)[i] : widen(static_cast<const std::uint16_t*>(p)[i]);
}
void write(void* p, cudaDataType_t type, std::uint64_t i, float x) {
    if (type == CUDA_R_32F)
        static_cast<float*>(p)[i] = x;
    else
        static_cast<std::uint16_t*>(p)[i] = narrow(x);
}

constexpr std::uint64_t wide = 64, deep = 4;  // of a tile of sums: fixed, so that the compiler keeps it in vectors

/// op(X) as [columns][rows] in f32, rows padded with zeros to whole tiles.
std::vector<float> unpacked(const void* x, const Layout& l, bool transposed, std::uint64_t rows, std::uint64_t columns, std::uint64_t padded) {
    std::vector<float> out(padded * columns);
    for (std::uint64_t j = 0; j < l.columns; ++j)
        note_read(static_cast<const std::byte*>(x) + j * static_cast<std::uint64_t>(l.ld) * size_of(l.type), l.rows * size_of(l.type));
    for (std::uint64_t j = 0; j < columns; ++j)
        for (std::uint64_t i = 0; i < rows; ++i) {
            const auto ld = static_cast<std::uint64_t>(l.ld);
            out[j * padded + i] = read(x, l.type, transposed ? i * ld + j : j * ld + i);
        }
    return out;
}

/// sums[j][i] = sum over l of a[l][i] b[l][j] for one tile.
void tile(const float* a, std::uint64_t a_step, const float* b, std::uint64_t b_step, std::uint64_t k, float (&sums)[deep][wide]) {
    std::memset(sums, 0, sizeof sums);
    for (std::uint64_t l = 0; l < k; ++l)
        for (std::uint64_t j = 0; j < deep; ++j) {
            const float factor = b[l * b_step + j];
            for (std::uint64_t i = 0; i < wide; ++i) sums[j][i] += factor * a[l * a_step + i];
        }
}

struct Operands {
    const void *a, *b, *c;
    void *d, *workspace;
    std::uint64_t workspace_bytes;
    float alpha, beta;
};

/// An element on its way out: the epilogue works on the f32 value.
float finish(const Problem& p, std::uint64_t i, std::uint64_t j, float x) {
    if (!p.masked()) return x;
    std::uint8_t& byte = static_cast<std::uint8_t*>(p.op.aux)[static_cast<std::uint64_t>(p.op.aux_ld) / 8 * j + i / 8];
    const auto bit = static_cast<std::uint8_t>(1U << i % 8);
    if (p.op.epilogue == CUBLASLT_EPILOGUE_DRELU) return byte & bit ? x : 0;
    byte = static_cast<std::uint8_t>(x > 0 ? byte | bit : byte & ~bit);
    return x > 0 ? x : 0;
}

void multiply(const Problem& p, const Operands& o) {
    for (std::uint64_t j = 0; j < p.d.columns; ++j)
        note_write(static_cast<std::byte*>(o.d) + j * static_cast<std::uint64_t>(p.d.ld) * size_of(p.d.type), p.d.rows * size_of(p.d.type));
    if (p.op.epilogue == CUBLASLT_EPILOGUE_DRELU) note_read(p.op.aux, p.mask_bytes());
    if (p.op.epilogue == CUBLASLT_EPILOGUE_RELU_AUX) note_write(p.op.aux, p.mask_bytes());
    const std::uint64_t m = p.m(), n = p.n(), k = p.k(), rows = (m + wide - 1) / wide * wide, columns = (n + deep - 1) / deep * deep;
    const std::vector<float> a = unpacked(o.a, p.a, p.op.trans_a == CUBLAS_OP_T, m, k, rows);
    // [k][n]: B is seen transposed.
    const std::vector<float> b = unpacked(o.b, p.b, p.op.trans_b == CUBLAS_OP_N, n, k, columns);
    if (o.workspace_bytes > 0) std::memset(o.workspace, 0xa5, o.workspace_bytes);
    for (std::uint64_t j0 = 0; j0 < n; j0 += deep)
        for (std::uint64_t i0 = 0; i0 < m; i0 += wide) {
            float sums[deep][wide];
            tile(a.data() + i0, rows, b.data() + j0, columns, k, sums);
            for (std::uint64_t j = j0; j < std::min(n, j0 + deep); ++j)
                for (std::uint64_t i = i0; i < std::min(m, i0 + wide); ++i) {
                    float x = o.alpha * sums[j - j0][i - i0];
                    if (o.beta != 0) x += o.beta * read(o.c, p.c.type, j * static_cast<std::uint64_t>(p.c.ld) + i);
                    write(o.d, p.d.type, j * static_cast<std::uint64_t>(p.d.ld) + i, finish(p, i, j, x));
                }
        }
}

// --- checks of one call ---

std::string describe(const Problem& p) {
    return "[cublasLtMatmul " + std::to_string(p.m()) + " x " + std::to_string(p.n()) + " x " + std::to_string(p.k()) + "]";
}

std::uint64_t bytes_of(const Layout& l) { return (static_cast<std::uint64_t>(l.ld) * (l.columns - 1) + l.rows) * size_of(l.type); }

void require_memory(const Problem& p, const char* name, const void* at, std::uint64_t bytes, std::uint64_t alignment) {
    if (!is_device_range(at, bytes)) report(std::string(name) + " is not inside one allocation of device memory " + describe(p));
    if (reinterpret_cast<std::uintptr_t>(at) % alignment != 0)
        report(std::string(name) + " is not aligned to the " + std::to_string(alignment) + " bytes that the algorithm was chosen for " + describe(p));
}

bool overlap(const void* a, std::uint64_t a_bytes, const void* b, std::uint64_t b_bytes) {
    const auto x = reinterpret_cast<std::uintptr_t>(a), y = reinterpret_cast<std::uintptr_t>(b);
    return x < y + b_bytes && y < x + a_bytes;
}

void require_operands(const Problem& p, const Operands& o, const std::uint32_t (&align)[4]) {
    require_memory(p, "A", o.a, bytes_of(p.a), align[0]);
    require_memory(p, "B", o.b, bytes_of(p.b), align[1]);
    if (o.beta != 0) require_memory(p, "C", o.c, bytes_of(p.c), align[2]);
    require_memory(p, "D", o.d, bytes_of(p.d), align[3]);
    if (p.masked()) require_memory(p, "the mask", p.op.aux, p.mask_bytes(), 16);
    if (o.workspace_bytes > 0) require_memory(p, "the workspace", o.workspace, o.workspace_bytes, 256);
    if (overlap(o.d, bytes_of(p.d), o.a, bytes_of(p.a)) || overlap(o.d, bytes_of(p.d), o.b, bytes_of(p.b))) report("D overlaps an operand " + describe(p));
    if (o.beta != 0 && o.c != o.d && overlap(o.d, bytes_of(p.d), o.c, bytes_of(p.c))) report("D overlaps C without being it " + describe(p));
}

}  // namespace

}  // namespace rf::emulator

using namespace rf::emulator;

// --- the calls ---

size_t cublasLtGetVersion() { return CUBLAS_VERSION; }

const char* cublasLtGetStatusName(cublasStatus_t status) {
    switch (status) {
        case CUBLAS_STATUS_SUCCESS: return "CUBLAS_STATUS_SUCCESS";
        case CUBLAS_STATUS_INVALID_VALUE: return "CUBLAS_STATUS_INVALID_VALUE";
        case CUBLAS_STATUS_NOT_SUPPORTED: return "CUBLAS_STATUS_NOT_SUPPORTED";
        default: return "CUBLAS_STATUS_INTERNAL_ERROR";
    }
}
const char* cublasLtGetStatusString(cublasStatus_t status) {
    switch (status) {
        case CUBLAS_STATUS_SUCCESS: return "success";
        case CUBLAS_STATUS_INVALID_VALUE: return "an unsupported value or parameter was passed to the function";
        case CUBLAS_STATUS_NOT_SUPPORTED: return "the functionality requested is not supported";
        default: return "an internal operation failed";
    }
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
    *handle = contexts().make({});
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
    contexts().destroy(handle);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* description, cublasComputeType_t compute, cudaDataType_t scale) {
    *description = reinterpret_cast<cublasLtMatmulDesc_t>(descriptions().make({.compute = compute, .scale = scale}));
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t description) {
    descriptions().destroy(description);
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t description, cublasLtMatmulDescAttributes_t attribute, const void* from, size_t bytes) {
    Description& d = descriptions().at(description);
    switch (attribute) {
        case CUBLASLT_MATMUL_DESC_TRANSA: return set(d.trans_a, from, bytes);
        case CUBLASLT_MATMUL_DESC_TRANSB: return set(d.trans_b, from, bytes);
        case CUBLASLT_MATMUL_DESC_EPILOGUE: return set(d.epilogue, from, bytes);
        case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER: return set(d.aux, from, bytes);
        case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD: return set(d.aux_ld, from, bytes);
        default: report("cuBLASLt: attribute " + std::to_string(attribute) + " of a descriptor is not emulated");
    }
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType type, uint64_t rows, uint64_t columns, int64_t ld) {
    *layout = reinterpret_cast<cublasLtMatrixLayout_t>(layouts().make({type, rows, columns, ld}));
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
    layouts().destroy(layout);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
    *preference = reinterpret_cast<cublasLtMatmulPreference_t>(preferences().make({}));
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
    preferences().destroy(preference);
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference, cublasLtMatmulPreferenceAttributes_t attribute, const void* from,
                                                    size_t bytes) {
    Preference& p = preferences().at(preference);
    switch (attribute) {
        case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES: return set(p.workspace, from, bytes);
        case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK: return set(p.reduction, from, bytes);
        case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES: return set(p.align[0], from, bytes);
        case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES: return set(p.align[1], from, bytes);
        case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES: return set(p.align[2], from, bytes);
        case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES: return set(p.align[3], from, bytes);
        default: report("cuBLASLt: attribute " + std::to_string(attribute) + " of a preference is not emulated");
    }
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t description, cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d, cublasLtMatmulPreference_t preference, int wanted,
                                              cublasLtMatmulHeuristicResult_t results[], int* found) {
    contexts().at(handle);
    const Problem p{descriptions().at(description), layouts().at(a), layouts().at(b), layouts().at(c), layouts().at(d)};
    const Preference& wish = preferences().at(preference);
    *found = 0;
    if (wanted <= 0) return CUBLAS_STATUS_INVALID_VALUE;
    if (const cublasStatus_t status = p.status(); status != CUBLAS_STATUS_SUCCESS) return status;
    // Fused epilogues need 16-byte accesses to D.
    if (p.masked() && wish.align[3] % 16 != 0) return CUBLAS_STATUS_NOT_SUPPORTED;
    Choice choice{digest(p), {wish.align[0], wish.align[1], wish.align[2], wish.align[3]}, workspace_of(p, wish)};
    results[0] = {};
    std::memcpy(&results[0].algo, &choice, sizeof choice);
    results[0].workspaceSize = choice.workspace;
    results[0].state = CUBLAS_STATUS_SUCCESS;
    *found = 1;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t description, const void* alpha, const void* a, cublasLtMatrixLayout_t a_layout,
                              const void* b, cublasLtMatrixLayout_t b_layout, const void* beta, const void* c, cublasLtMatrixLayout_t c_layout, void* d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t* algorithm, void* workspace, size_t workspace_bytes, cudaStream_t stream) {
    contexts().at(handle);
    const Problem p{descriptions().at(description), layouts().at(a_layout), layouts().at(b_layout), layouts().at(c_layout), layouts().at(d_layout)};
    if (const cublasStatus_t status = p.status(); status != CUBLAS_STATUS_SUCCESS) return status;
    if (!alpha || !beta || !a || !b || !d || !algorithm) return CUBLAS_STATUS_INVALID_VALUE;
    Choice choice{};
    std::memcpy(&choice, algorithm, sizeof choice);
    if (choice.problem != digest(p) || workspace_bytes < choice.workspace || (c == d && p.c != p.d)) return CUBLAS_STATUS_INVALID_VALUE;
    const Operands o{.a = a, .b = b, .c = c, .d = d, .workspace = workspace, .workspace_bytes = choice.workspace,
                     .alpha = *static_cast<const float*>(alpha), .beta = *static_cast<const float*>(beta)};
    require_operands(p, o, choice.align);
    enqueue(stream, "cublasLtMatmul", [p, o] { multiply(p, o); });
    return CUBLAS_STATUS_SUCCESS;
}
