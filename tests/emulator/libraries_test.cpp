/// Wrong uses of the emulated libraries, each caught and named.

#include "emulator/machine.hpp"

#include <boost/test/unit_test.hpp>
#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <nccl.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

using rf::emulator::trap;

namespace {

/// A product of 128 x 4 x 64 (column-major, f32), right until a test changes something.
struct Product {
    cublasLtHandle_t handle{};
    cublasLtMatmulDesc_t description{};
    cublasLtMatrixLayout_t a{}, b{}, d{};
    cublasLtMatmulPreference_t preference{};
    cublasLtMatmulHeuristicResult_t found{};
    float *pa{}, *pb{}, *pd{};
    void *mask{}, *workspace{};
    std::size_t workspace_bytes = 1 << 20;
    float alpha = 1, beta = 0;
    cudaStream_t stream{};

    Product() {
        cublasLtCreate(&handle);
        cublasLtMatmulDescCreate(&description, CUBLAS_COMPUTE_32F, CUDA_R_32F);
        cublasLtMatrixLayoutCreate(&a, CUDA_R_32F, 128, 64, 128);
        cublasLtMatrixLayoutCreate(&b, CUDA_R_32F, 64, 4, 64);
        cublasLtMatrixLayoutCreate(&d, CUDA_R_32F, 128, 4, 128);
        cublasLtMatmulPreferenceCreate(&preference);
        const std::uint64_t bytes = workspace_bytes;
        cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &bytes, sizeof bytes);
        cudaMalloc(reinterpret_cast<void**>(&pa), 128 * 64 * 4);
        cudaMalloc(reinterpret_cast<void**>(&pb), 64 * 4 * 4);
        cudaMalloc(reinterpret_cast<void**>(&pd), 128 * 4 * 4);
        cudaMalloc(&mask, 16 * 4);
        cudaMalloc(&workspace, workspace_bytes);
        cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
    }
    cublasStatus_t choose() {
        int count = 0;
        return cublasLtMatmulAlgoGetHeuristic(handle, description, a, b, d, d, preference, 1, &found, &count);
    }
    cublasStatus_t run() {
        const cublasStatus_t status = cublasLtMatmul(handle, description, &alpha, pa, a, pb, b, &beta, pd, d, pd, d, &found.algo, workspace, workspace_bytes, stream);
        cudaStreamSynchronize(stream);
        return status;
    }
    template <class Value>
    cublasStatus_t set(cublasLtMatmulDescAttributes_t attribute, Value value) {
        return cublasLtMatmulDescSetAttribute(description, attribute, &value, sizeof value);
    }
};

/// The report of `wrong`, done to a product whose algorithm was chosen.
std::string reported(const std::function<void(Product&)>& wrong) {
    return trap([&] {
        Product p;
        p.choose();
        wrong(p);
        p.run();
    });
}

void check_names(const std::string& text, const std::string& words) { BOOST_TEST(text.find(words) != std::string::npos, '"' << text << "\" does not say " << words); }

}  // namespace

BOOST_AUTO_TEST_CASE(a_right_product_is_not_reported) {
    BOOST_TEST(reported([](Product&) {}) == "");
    Product p;
    BOOST_TEST(p.choose() == CUBLAS_STATUS_SUCCESS);
    BOOST_TEST(p.run() == CUBLAS_STATUS_SUCCESS);
}

BOOST_AUTO_TEST_CASE(memory_that_a_product_must_not_touch_is_reported) {
    static float host[128 * 64];
    check_names(reported([](Product& p) { p.pa = host; }), "A is not inside one allocation of device memory");
    check_names(reported([](Product& p) { p.pb += 64; }), "B is not inside one allocation of device memory");
    check_names(reported([](Product& p) { p.pd = p.pa + 1; }), "D is not aligned to the 256 bytes");
    check_names(reported([](Product& p) { p.pd = p.pa; }), "D overlaps an operand");
    check_names(reported([](Product& p) { p.workspace = host; }), "the workspace is not");
    check_names(reported([](Product& p) { cublasLtMatrixLayoutDestroy(p.b); }), "a layout that does not exist");
    check_names(reported([](Product& p) { cublasLtDestroy(p.handle); }), "a handle that does not exist");
}

BOOST_AUTO_TEST_CASE(arguments_that_do_not_fit_have_the_librarys_status) {
    Product p;
    BOOST_TEST(p.choose() == CUBLAS_STATUS_SUCCESS);
    p.workspace_bytes = 0;
    BOOST_TEST(p.run() == CUBLAS_STATUS_INVALID_VALUE);
    p.workspace_bytes = 1 << 20;
    const std::int64_t wide = 0;
    BOOST_TEST(cublasLtMatmulDescSetAttribute(p.description, CUBLASLT_MATMUL_DESC_TRANSA, &wide, sizeof wide) == CUBLAS_STATUS_INVALID_VALUE);
    p.set(CUBLASLT_MATMUL_DESC_TRANSA, std::int32_t{CUBLAS_OP_T});
    BOOST_TEST(p.run() == CUBLAS_STATUS_INVALID_VALUE);  // 64 rows of op(A)
    p.set(CUBLASLT_MATMUL_DESC_TRANSA, std::int32_t{CUBLAS_OP_N});
    p.set(CUBLASLT_MATMUL_DESC_EPILOGUE, std::uint32_t{CUBLASLT_EPILOGUE_RELU_AUX});
    p.set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, p.mask);
    p.set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, std::int64_t{136});
    BOOST_TEST(p.choose() == CUBLAS_STATUS_INVALID_VALUE);  // not whole words
    p.set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, std::int64_t{128});
    BOOST_TEST(p.run() == CUBLAS_STATUS_INVALID_VALUE);  // an algorithm for another epilogue
    BOOST_TEST(p.choose() == CUBLAS_STATUS_SUCCESS);
    BOOST_TEST(p.run() == CUBLAS_STATUS_SUCCESS);
}

BOOST_AUTO_TEST_CASE(communicators_that_do_not_exist_or_need_others_are_reported) {
    check_names(trap([] {
                    ncclResult_t state;
                    ncclCommGetAsyncError(reinterpret_cast<ncclComm_t>(&state), &state);
                }),
                "a communicator that does not exist");
    check_names(trap([] {
                    ncclUniqueId id;
                    ncclGetUniqueId(&id);
                    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
                    config.blocking = 0;
                    ncclComm_t comm = nullptr;
                    ncclCommInitRankConfig(&comm, 2, id, 0, &config);
                }),
                "a group of 2 ranks, without MPI");
}
