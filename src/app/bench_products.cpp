#include "app/bench_products.hpp"

#include "app/bench_ops.hpp"
#include "core/buffer.hpp"
#include "core/cpu.hpp"
#include "core/philox.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/gemm.hpp"
#include "kernels/product.hpp"

#include <algorithm>
#include <array>

namespace rf::app {

namespace {

constexpr std::int64_t most_tokens = 8192;  // rates no longer rise there, and the matrices of a large batch would take minutes

/// Uniform in [-0.5, 0.5): a GPU multiplies zeros faster than numbers, since they cost it less power.
Buffer random_matrix(Stream& stream, std::int64_t n, Dtype dtype) {
    const Buffer host(n * size_of(Dtype::f32)), wide(n * size_of(Dtype::f32), stream.device());
    Buffer result(n * size_of(dtype), stream.device());
    auto* values = reinterpret_cast<float*>(host.data());
    for (std::int64_t i = 0; i < n; ++i) values[i] = static_cast<float>(uniform(philox({static_cast<std::uint32_t>(i)}, {3, 4})[0])) - 0.5F;
    upload(stream, host.data(), wide.tensor({n}, Dtype::f32));
    cast(stream, {.x = wide.tensor({n}, Dtype::f32), .y = result.tensor({n}, dtype)});
    stream.synchronise();
    return result;
}

/// Seconds of one product: the median of up to seven after one that is not counted, of fewer where they take long.
template <class T>
double seconds_of(const Product<T, float>& p) {
    constexpr double patience = 2;
    std::vector<double> times;
    product(p);
    for (const double begin = seconds(); times.size() < 3 || (times.size() < 7 && seconds() - begin < patience);) {
        const double start = seconds();
        product(p);
        times.push_back(seconds() - start);
    }
    return median(times);
}

/// y = x wᵀ with x [n, in] and w [out, in], then dx = dy w and dw += dyᵀ x. Outside any parallel region, where oneDNN takes all threads.
template <class T>
double layer_rate(const ModelConfig& model, ParallelGrid& grid, Dtype dtype, std::int64_t n) {
    const std::int64_t c = model.hidden_size, t = grid.tensor->size(), part = c / t, f = model.intermediate_size / t;
    const std::array<std::array<std::int64_t, 2>, 4> in_and_out{{{c, 3 * part}, {part, c}, {c, f}, {f, c}}};
    double flops = 0, time = 0;
    Stream stream;
    for (const auto& [in, out] : in_and_out) {
        const Buffer x = random_matrix(stream, n * in, dtype), w = random_matrix(stream, out * in, dtype), dy = random_matrix(stream, n * out, dtype);
        const Buffer y(n * out * size_of(Dtype::f32)), dx(n * in * size_of(Dtype::f32)), dw(out * in * size_of(Dtype::f32));
        const auto from = [](const Buffer& b) { return reinterpret_cast<const T*>(b.data()); };
        const auto to = [](const Buffer& b) { return reinterpret_cast<float*>(b.data()); };
        const std::array<Product<T, float>, 3> products{{
            {.a = from(x), .lda = in, .trans_a = false, .b = from(w), .ldb = in, .trans_b = true, .c = to(y), .ldc = out, .m = n, .n = out, .k = in, .accumulate = false},
            {.a = from(dy), .lda = out, .trans_a = false, .b = from(w), .ldb = in, .trans_b = false, .c = to(dx), .ldc = in, .m = n, .n = in, .k = out, .accumulate = false},
            {.a = from(dy), .lda = out, .trans_a = true, .b = from(x), .ldb = in, .trans_b = false, .c = to(dw), .ldc = in, .m = out, .n = in, .k = n, .accumulate = true}}};
        for (const Product<T, float>& p : products) {
            grid.world.barrier();  // all ranks at once, as in an update
            time += seconds_of(p);
            flops += 2 * static_cast<double>(n) * static_cast<double>(in * out);
        }
    }
    return flops / time;
}

double gpu_rate(const ModelConfig& model, Device device, Dtype dtype, std::int64_t n) {
    const std::int64_t c = model.hidden_size, f = model.intermediate_size;
    const Buffer out(n * f * size_of(dtype), device);
    Stream stream(device);
    const Buffer a = random_matrix(stream, n * c, dtype), b = random_matrix(stream, f * c, dtype);
    std::vector<double> times;
    constexpr int together = 50;  // one is short beside its launch and the wait
    for (int i = 0; i < 8; ++i) {
        const double begin = seconds();
        for (int k = 0; k < together; ++k)
            gemm(stream, {.a = a.tensor({n, c}, dtype), .b = b.tensor({f, c}, dtype), .trans_b = true, .c = out.tensor({n, f}, dtype)});
        stream.synchronise();
        if (i > 1) times.push_back((seconds() - begin) / together);
    }
    return 2.0 * static_cast<double>(n * c * f) / median(times);
}

}  // namespace

double product_rate(const ModelConfig& model, ParallelGrid& grid, Device device, Dtype dtype, std::int64_t tokens) {
    const std::int64_t n = std::max<std::int64_t>(tokens, 1);
    if (device != Device::cpu) return gpu_rate(model, device, dtype, n);
    // Without bf16 instructions products of bf16 are those of the rounded values in f32 (kernels/product.cpp).
    if (dtype == Dtype::bf16 && cpu_has_bf16()) return layer_rate<std::uint16_t>(model, grid, dtype, std::min(n, most_tokens));
    return layer_rate<float>(model, grid, Dtype::f32, std::min(n, most_tokens));
}

}  // namespace rf::app
