/// gemm on a GPU: cuBLASLt, with everything it needs kept in the stream. A plan (descriptors, layouts, algorithm) is made
/// once for a shape and reused; a call then costs one launch.
///
/// The handle and the workspace are made by the first product on a stream. That allocates, so it cannot be part of a
/// captured step: the first step of a shape runs eagerly and makes all plans, its capture only finds them.

#include "core/cuda.hpp"
#include "core/device_memory.hpp"
#include "kernels/gemm.hpp"
#include "kernels/relu_mask.hpp"

#include <cublasLt.h>

#include <algorithm>
#include <map>
#include <tuple>

namespace rf::cuda {

namespace {

// What NVIDIA advises for Hopper; a workspace per stream, so that products of two streams do not share one.
constexpr std::int64_t workspace_bytes = 32 << 20;

/// `what`: the call and, for products, the shape.
template <class... What>
void check_cublas(cublasStatus_t status, const What&... what) {
    if (status == CUBLAS_STATUS_SUCCESS) return;
    fail(what..., ": ", cublasLtGetStatusString(status), " (", cublasLtGetStatusName(status), ")");
}

/// Owner of one of cuBLASLt's objects.
template <class Object, cublasStatus_t (*destroy)(Object)>
class Owned {
public:
    Owned() = default;
    ~Owned() {
        if (object_) destroy(object_);
    }
    Owned(const Owned&) = delete;
    Owned& operator=(const Owned&) = delete;
    operator Object() const { return object_; }
    Object* out() { return &object_; }

private:
    Object object_ = nullptr;
};
using Handle = Owned<cublasLtHandle_t, cublasLtDestroy>;
using Description = Owned<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy>;
using Layout = Owned<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>;
using Preference = Owned<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy>;

template <class Value>
void set(const Description& description, cublasLtMatmulDescAttributes_t attribute, Value value) {
    check_cublas(cublasLtMatmulDescSetAttribute(description, attribute, &value, sizeof value), "cublasLtMatmulDescSetAttribute");
}
template <class Value>
void set(const Preference& preference, cublasLtMatmulPreferenceAttributes_t attribute, Value value) {
    check_cublas(cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof value), "cublasLtMatmulPreferenceSetAttribute");
}

/// What a plan depends on. Addresses count by their alignment only, and 16 bytes are as good as more: the choice of an
/// algorithm, and with it the bits, is the same wherever an aligned tensor lies.
struct Problem {
    std::int64_t m, n, k;
    bool trans_a, trans_b, accumulate;
    Dtype operands, result;
    Epilogue epilogue;
    std::uint32_t align_a, align_b, align_c;

    auto key() const { return std::tie(m, n, k, trans_a, trans_b, accumulate, operands, result, epilogue, align_a, align_b, align_c); }
    friend bool operator<(const Problem& x, const Problem& y) { return x.key() < y.key(); }
};

std::uint32_t alignment(const void* p) {
    const auto address = reinterpret_cast<std::uintptr_t>(p);
    return std::min(16U, static_cast<std::uint32_t>(address & -address));
}

Problem problem_of(const Gemm& g) {
    return {.m = g.c.shape[0], .n = g.c.shape[1], .k = g.trans_a ? g.a.shape[0] : g.a.shape[1],
            .trans_a = g.trans_a, .trans_b = g.trans_b, .accumulate = g.beta != 0,
            .operands = g.a.dtype, .result = g.c.dtype, .epilogue = g.epilogue,
            .align_a = alignment(g.a.data), .align_b = alignment(g.b.data), .align_c = alignment(g.c.data)};
}

std::string describe(const Problem& p) {
    return message("gemm of [", p.m, ", ", p.k, "] ", name_of(p.operands), " and [", p.k, ", ", p.n, "] into ", name_of(p.result), p.trans_a ? ", A transposed" : "",
                   p.trans_b ? ", B transposed" : "", p.accumulate ? ", added" : "", p.epilogue == Epilogue::none ? "" : ", relu epilogue");
}

cudaDataType_t data_type(Dtype dtype) { return dtype == Dtype::f32 ? CUDA_R_32F : CUDA_R_16BF; }

/// Row-major C = op(A) op(B) is, to a column-major library, Cᵀ = op(B)ᵀ op(A)ᵀ over the same memory: its first operand is B,
/// its second A, and each has the rows of the one as columns of the other.
struct Plan {
    Description description;
    Layout a, b, c;
    cublasLtMatmulAlgo_t algorithm{};
    bool fused = true;  ///< the epilogue is part of the product; else it follows as a kernel
};

void describe_product(Plan& plan, const Problem& p) {
    const auto transpose = [](bool t) -> std::int32_t { return t ? CUBLAS_OP_T : CUBLAS_OP_N; };
    // Full f32 products (no TF32) and f32 sums.
    check_cublas(cublasLtMatmulDescCreate(plan.description.out(), CUBLAS_COMPUTE_32F, CUDA_R_32F), "cublasLtMatmulDescCreate");
    set(plan.description, CUBLASLT_MATMUL_DESC_TRANSA, transpose(p.trans_b));
    set(plan.description, CUBLASLT_MATMUL_DESC_TRANSB, transpose(p.trans_a));
    const auto layout = [](Layout& to, Dtype dtype, std::int64_t rows, std::int64_t columns) {
        check_cublas(cublasLtMatrixLayoutCreate(to.out(), data_type(dtype), static_cast<std::uint64_t>(columns), static_cast<std::uint64_t>(rows), columns),
                     "cublasLtMatrixLayoutCreate");
    };
    layout(plan.a, p.operands, p.trans_a ? p.k : p.m, p.trans_a ? p.m : p.k);
    layout(plan.b, p.operands, p.trans_b ? p.n : p.k, p.trans_b ? p.k : p.n);
    layout(plan.c, p.result, p.m, p.n);
}

void describe_epilogue(Plan& plan, const Problem& p, const void* mask) {
    const std::uint32_t kind = p.epilogue == Epilogue::relu ? CUBLASLT_EPILOGUE_RELU_AUX : CUBLASLT_EPILOGUE_DRELU;
    set(plan.description, CUBLASLT_MATMUL_DESC_EPILOGUE, kind);
    set(plan.description, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, relu_mask_bytes(p.n) * 8);
    set(plan.description, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, mask);
}

/// The library's first choice among algorithms whose sums have a fixed order: parts of k are joined by a step of their own
/// in f32 (COMPUTE_TYPE), never in the order of arrival (INPLACE) nor through rounded results (OUTPUT_TYPE).
cublasStatus_t choose_algorithm(cublasLtHandle_t handle, Plan& plan, const Problem& p) {
    Preference preference;
    check_cublas(cublasLtMatmulPreferenceCreate(preference.out()), "cublasLtMatmulPreferenceCreate");
    set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, std::uint64_t{workspace_bytes});
    set(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, std::uint32_t{CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE});
    set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, p.align_b);
    set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, p.align_a);
    set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, p.align_c);
    set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, p.align_c);
    cublasLtMatmulHeuristicResult_t found{};
    int count = 0;
    const cublasStatus_t status =
        cublasLtMatmulAlgoGetHeuristic(handle, plan.description, plan.b, plan.a, plan.c, plan.c, preference, 1, &found, &count);
    if (status != CUBLAS_STATUS_SUCCESS) return status;
    if (count == 0) return CUBLAS_STATUS_NOT_SUPPORTED;
    plan.algorithm = found.algo;
    return found.state;
}

/// What a stream keeps for its products.
class MatrixLibrary {
public:
    MatrixLibrary() : workspace_(cuda::allocate(workspace_bytes)) {
        const cublasStatus_t status = cublasLtCreate(handle_.out());
        if (status != CUBLAS_STATUS_SUCCESS) cuda::release(workspace_);
        check_cublas(status, "cublasLtCreate");
    }
    ~MatrixLibrary() { cuda::release(workspace_); }
    MatrixLibrary(const MatrixLibrary&) = delete;
    MatrixLibrary& operator=(const MatrixLibrary&) = delete;

    static MatrixLibrary& of(Stream& stream) {
        if (!stream.matrix_library()) stream.matrix_library() = std::make_shared<MatrixLibrary>();
        return *static_cast<MatrixLibrary*>(stream.matrix_library().get());
    }

    const Plan& plan(const Problem& p, const void* mask) {
        const auto known = plans_.find(p);
        if (known != plans_.end()) return known->second;
        Plan& made = plans_.try_emplace(p).first->second;
        try {
            make(made, p, mask);
        } catch (...) {
            plans_.erase(p);
            throw;
        }
        return made;
    }

    void run(const Plan& plan, const Gemm& g, CUstream_st* stream) {
        const float alpha = 1, beta = static_cast<float>(g.beta);
        if (plan.fused && g.epilogue != Epilogue::none) set(plan.description, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, static_cast<const void*>(g.mask.data));
        const cublasStatus_t status = cublasLtMatmul(handle_, plan.description, &alpha, g.b.data, plan.b, g.a.data, plan.a, &beta, g.c.data, plan.c, g.c.data, plan.c,
                                                     &plan.algorithm, workspace_, workspace_bytes, stream);
        if (status != CUBLAS_STATUS_SUCCESS) check_cublas(status, "cublasLtMatmul, ", describe(problem_of(g)));
    }

private:
    /// An epilogue is fused where a row of C is whole 128-bit words of mask (n % 128 == 0) and the library has an algorithm
    /// for it; elsewhere the product is plain.
    void make(Plan& plan, const Problem& p, const void* mask) {
        describe_product(plan, p);
        plan.fused = p.epilogue == Epilogue::none || p.n % 128 == 0;
        if (p.epilogue != Epilogue::none && plan.fused) {
            describe_epilogue(plan, p, mask);
            if (choose_algorithm(handle_, plan, p) == CUBLAS_STATUS_SUCCESS) return;
            plan.fused = false;
            set(plan.description, CUBLASLT_MATMUL_DESC_EPILOGUE, std::uint32_t{CUBLASLT_EPILOGUE_DEFAULT});
        }
        check_cublas(choose_algorithm(handle_, plan, p), "no algorithm for a ", describe(p));
    }

    Handle handle_;
    void* workspace_ = nullptr;
    std::map<Problem, Plan> plans_;
};

/// The epilogue as a step of its own.
void apply_epilogue(Stream& stream, const Gemm& g) {
    if (g.epilogue == Epilogue::relu) relu_to_mask(stream, g.c, g.mask);
    if (g.epilogue == Epilogue::relu_backward) relu_by_mask(stream, g.c, g.mask);
}

}  // namespace

void gemm(Stream& stream, const Gemm& g) {
    const Problem p = problem_of(g);
    RF_REQUIRE(p.operands == Dtype::f32 || p.operands == Dtype::bf16, "no gemm of ", name_of(p.operands), " on a GPU");
    RF_REQUIRE(p.result == p.operands || p.result == Dtype::f32, "no gemm of ", name_of(p.operands), " into ", name_of(p.result), " on a GPU");
    MatrixLibrary& library = MatrixLibrary::of(stream);
    const Plan& plan = library.plan(p, g.mask.data);
    library.run(plan, g, stream.handle());
    if (!plan.fused) apply_epilogue(stream, g);
}

}  // namespace rf::cuda
