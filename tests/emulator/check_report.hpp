#pragma once
/// What the emulator's own tests share.

#include "emulator/machine.hpp"

#include <boost/test/unit_test.hpp>
#include <cuda_runtime_api.h>

#include <functional>
#include <initializer_list>
#include <string>
#include <vector>

namespace rf::emulator {

inline void require(cudaError_t code) { BOOST_REQUIRE_MESSAGE(code == cudaSuccess, cudaGetErrorName(code)); }

/// The report of `wrong` says all of `words`.
inline void check_report(const std::function<void()>& wrong, std::initializer_list<const char*> words) {
    const std::string text = trap(wrong);
    for (const char* w : words) BOOST_TEST(text.find(w) != std::string::npos, "no \"" << w << "\" in the report \"" << text << '"');
}

/// Memory and streams of one small program. What it holds goes with it.
struct Sample {
    static constexpr int blocks = 3, n = 64 * blocks;
    cudaStream_t stream{}, other{};
    float *x{}, *y{}, *host{};

    Sample() {
        require(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
        require(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking));
        require(cudaMalloc(reinterpret_cast<void**>(&x), n * sizeof(float)));
        require(cudaMalloc(reinterpret_cast<void**>(&y), n * sizeof(float)));
        require(cudaMallocHost(reinterpret_cast<void**>(&host), n * sizeof(float)));
        for (int i = 0; i < n; ++i) host[i] = static_cast<float>(i + 1);
        require(cudaMemcpy(x, host, n * sizeof(float), cudaMemcpyDefault));
    }
    ~Sample() {
        cudaFreeHost(host);
        cudaFree(y);
        cudaFree(x);
        cudaStreamDestroy(other);
        cudaStreamDestroy(stream);
    }
    Sample(const Sample&) = delete;
    Sample& operator=(const Sample&) = delete;

    std::vector<float> download(const float* from) const {
        require(cudaDeviceSynchronize());
        std::vector<float> values(n);
        require(cudaMemcpy(values.data(), from, n * sizeof(float), cudaMemcpyDefault));
        return values;
    }
};

/// Seeds that right programs are run with.
inline constexpr int seeds = 20;

}  // namespace rf::emulator
