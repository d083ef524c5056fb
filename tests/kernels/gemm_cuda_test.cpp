/// gemm on a GPU against gemm on the CPU.

#include "kernels/gemm.hpp"

#include "core/buffer.hpp"
#include "core/device_memory.hpp"
#include "core/philox.hpp"
#include "tests/kernels/check_close.hpp"
#include "tests/kernels/needs_gpu.hpp"

#include <cstring>
#include <limits>
#include <vector>

using namespace rf;
using namespace rf::test;

namespace {

struct Case {
    std::int64_t m, n, k;
    bool ta = false, tb = false;
    Dtype operands = Dtype::f32, result = Dtype::f32;
    double beta = 0;
    Epilogue epilogue = Epilogue::none;
    std::int64_t shift = 0;  ///< elements by which C lies off its alignment
};

float number(std::int64_t i, std::uint32_t stream) {
    return static_cast<float>(2 * uniform(philox({static_cast<std::uint32_t>(i), stream, 0, 0}, {1, 1})[0]) - 1);
}

/// A tensor on the CPU, `offset` elements into its memory, and its twin on the GPU.
class Twin {
public:
    Twin(Shape shape, Dtype dtype, std::int64_t offset = 0)
        : shape_(shape), dtype_(dtype), at_(offset * size_of(dtype)), host_(shape.count() * size_of(dtype) + at_), device_(host_.size(), Device::cuda) {}

    Twin& fill_random(std::uint32_t stream) {
        for (std::int64_t i = 0; i < shape_.count(); ++i) set(i, number(i, stream));
        return *this;
    }
    Twin& fill(float value) {
        for (std::int64_t i = 0; i < shape_.count(); ++i) set(i, value);
        return *this;
    }
    Twin& fill_bits(std::uint32_t stream) {
        for (std::int64_t i = 0; i < shape_.count(); ++i) static_cast<std::uint8_t*>(host().data)[i] = static_cast<std::uint8_t>(philox({static_cast<std::uint32_t>(i), stream, 0, 0}, {1, 1})[0]);
        return *this;
    }
    Tensor host() const { return host_.tensor(shape_, dtype_, at_); }
    Tensor device() const { return device_.tensor(shape_, dtype_, at_); }
    void upload_to(const Stream& stream) const { upload(stream, host().data, device()); }
    std::vector<std::uint8_t> bytes(const Stream& stream) const {
        std::vector<std::uint8_t> out(static_cast<std::size_t>(host().bytes()));
        download(stream, device(), out.data());
        return out;
    }
    static float value(const void* data, Dtype dtype, std::int64_t i) {
        return dtype == Dtype::f32 ? static_cast<const float*>(data)[i] : static_cast<float>(static_cast<const bfloat16*>(data)[i]);
    }
    float at(std::int64_t i) const { return value(host().data, dtype_, i); }

private:
    void set(std::int64_t i, float x) {
        if (dtype_ == Dtype::f32)
            static_cast<float*>(host().data)[i] = x;
        else
            static_cast<bfloat16*>(host().data)[i] = bfloat16(x);
    }

    Shape shape_;
    Dtype dtype_;
    std::int64_t at_;
    Buffer host_, device_;
};

bool bit(const std::uint8_t* mask, std::int64_t row_bytes, std::int64_t i, std::int64_t j) { return mask[i * row_bytes + j / 8] >> (j % 8) & 1; }

/// Both devices; returns the bytes of the GPU's C.
std::vector<std::uint8_t> check(Stream& stream, const Case& p) {
    BOOST_TEST_CONTEXT("m " << p.m << " n " << p.n << " k " << p.k << " ta " << p.ta << " tb " << p.tb << ' ' << name_of(p.operands) << " into " << name_of(p.result)
                            << " beta " << p.beta << " epilogue " << static_cast<int>(p.epilogue) << " shift " << p.shift) {
        const std::int64_t row = relu_mask_bytes(p.n);
        Twin a(p.ta ? Shape{p.k, p.m} : Shape{p.m, p.k}, p.operands), b(p.tb ? Shape{p.n, p.k} : Shape{p.k, p.n}, p.operands);
        Twin c({p.m, p.n}, p.result, p.shift), mask({p.m, row}, Dtype::u8);
        a.fill_random(1);
        b.fill_random(2);
        // What C held must not matter where beta is 0.
        if (p.beta == 0)
            c.fill(std::numeric_limits<float>::quiet_NaN());
        else
            c.fill_random(3);
        mask.fill_bits(4);
        for (const Twin* t : {&a, &b, &c, &mask}) t->upload_to(stream);
        gemm(stream, {.a = a.device(), .trans_a = p.ta, .b = b.device(), .trans_b = p.tb, .c = c.device(), .beta = p.beta, .epilogue = p.epilogue, .mask = mask.device()});
        const std::vector<std::uint8_t> result = c.bytes(stream), bits = mask.bytes(stream);
        Stream cpu;
        gemm(cpu, {.a = a.host(), .trans_a = p.ta, .b = b.host(), .trans_b = p.tb, .c = c.host(), .beta = p.beta, .epilogue = p.epilogue, .mask = mask.host()});
        const double bound = p.result == Dtype::f32 ? 1e-5 : tolerance(Dtype::bf16, 1);
        std::int64_t wrong_bits = 0;
        for (std::int64_t i = 0; i < p.m; ++i)
            for (std::int64_t j = 0; j < p.n; ++j) {
                const float x = Twin::value(result.data(), p.result, i * p.n + j), reference = c.at(i * p.n + j);
                check_close(x, reference, bound);
                if (p.epilogue == Epilogue::relu) wrong_bits += bit(bits.data(), row, i, j) != (x > 0);
            }
        if (p.epilogue == Epilogue::relu)
            for (std::int64_t i = 0; i < p.m; ++i)
                for (std::int64_t j = p.n; j < row * 8; ++j) wrong_bits += bit(bits.data(), row, i, j);
        BOOST_TEST(wrong_bits == 0);
        return result;
    }
    return {};
}

const std::array<std::array<std::int64_t, 3>, 8> shapes = {{{1, 1, 1}, {3, 5, 2}, {130, 17, 65}, {65, 128, 64}, {7, 256, 100}, {2, 3, 0}, {0, 4, 3}, {100, 72, 400}}};
constexpr std::array<std::array<Dtype, 2>, 3> dtypes = {{{Dtype::f32, Dtype::f32}, {Dtype::bf16, Dtype::bf16}, {Dtype::bf16, Dtype::f32}}};

}  // namespace

BOOST_AUTO_TEST_CASE(products_agree_with_the_cpu) {
    Stream stream(Device::cuda);
    for (const auto& [m, n, k] : shapes)
        for (const bool ta : {false, true})
            for (const bool tb : {false, true})
                for (const auto& [operands, result] : dtypes)
                    for (const double beta : {0.0, result == Dtype::bf16 ? 0.0 : 1.0}) check(stream, {.m = m, .n = n, .k = k, .ta = ta, .tb = tb, .operands = operands, .result = result, .beta = beta});
}

/// n = 128 and 256 are fused, the others are not; nor is a C off the 16 bytes.
BOOST_AUTO_TEST_CASE(relu_epilogues_agree_with_the_cpu) {
    Stream stream(Device::cuda);
    for (const auto& [m, n, k] : shapes)
        for (const bool tb : {false, true})
            for (const auto& [operands, result] : dtypes)
                for (const Epilogue epilogue : {Epilogue::relu, Epilogue::relu_backward})
                    for (const std::int64_t shift : {0, 1})
                        check(stream, {.m = m, .n = n, .k = k, .tb = tb, .operands = operands, .result = result, .epilogue = epilogue, .shift = shift});
}

BOOST_AUTO_TEST_CASE(bits_repeat_on_any_stream) {
    const Case p{.m = 65, .n = 128, .k = 400, .operands = Dtype::bf16};
    Stream one(Device::cuda), two(Device::cuda);
    const auto first = check(one, p);
    BOOST_TEST((check(one, p) == first));
    BOOST_TEST((check(two, p) == first));
}

BOOST_AUTO_TEST_CASE(operands_that_are_not_numbers_show) {
    Stream stream(Device::cuda);
    Twin a({2, 3}, Dtype::f32), b({3, 2}, Dtype::f32), c({2, 2}, Dtype::f32);
    a.fill_random(1).upload_to(stream);
    b.fill(std::numeric_limits<float>::quiet_NaN()).upload_to(stream);
    gemm(stream, {.a = a.device(), .b = b.device(), .c = c.device()});
    const std::vector<std::uint8_t> result = c.bytes(stream);
    for (std::int64_t i = 0; i < 4; ++i) BOOST_TEST(std::isnan(Twin::value(result.data(), Dtype::f32, i)));
}

BOOST_AUTO_TEST_CASE(what_a_gpu_does_not_multiply_is_refused) {
    Stream stream(Device::cuda);
    const Buffer memory(1024, Device::cuda);
    const Tensor f64 = memory.tensor({4, 4}, Dtype::f64), f32 = memory.tensor({4, 4}, Dtype::f32, 512), bf16 = memory.tensor({4, 4}, Dtype::bf16, 768);
    BOOST_CHECK_THROW(gemm(stream, {.a = f64, .b = f64, .c = memory.tensor({4, 4}, Dtype::f64, 256)}), Error);
    BOOST_CHECK_THROW(gemm(stream, {.a = f32, .b = f32, .c = bf16}), Error);
}
