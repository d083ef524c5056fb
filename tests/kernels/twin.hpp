#pragma once
/// The same tensor on the CPU and on the CUDA device: an op runs on both, then the two must agree.

#include "core/buffer.hpp"
#include "core/device_memory.hpp"
#include "core/stream.hpp"
#include "kernels/dropout.hpp"
#include "tests/kernels/check_close.hpp"
#include "tests/kernels/needs_gpu.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <vector>

namespace rf::test {

/// The CPU is what a GPU is held to: it multiplies bf16 in f32, whatever its processor can, and rounds nothing on the way. Before main(), since it is asked once.
inline const bool reference_multiplies_in_f32 = setenv("RF_CPU_BF16", "none", 0) == 0;

/// Both devices' streams, and (`repeats`) the GPU's a second time: the order of its threads must not change a bit.
struct Streams {
    bool repeats = true;
    Stream cpu;
    Stream cuda{Device::cuda};
    Stream again{Device::cuda};

    /// Runs body(stream) on each; tensors are taken with Twin::on(stream).
    template <class Body>
    void run(const Body& body) {
        body(cpu);
        body(cuda);
        if (repeats) body(again);
        cuda.synchronise();
        again.synchronise();
    }
};

/// How far f32 and bf16 results of the devices may lie apart where both compute in f32: 1e-5, and one last place of a bf16.
inline double device_bound(Dtype dtype) { return dtype == Dtype::bf16 ? 0x1p-7 : 1e-5; }

class Twin {
public:
    Twin() = default;
    /// `shift`: elements before the tensor in its memory, to take it off its alignment.
    Twin(Streams& streams, Shape shape, Dtype dtype, const std::function<double(std::int64_t)>& value, std::int64_t shift = 0)
        : streams_(&streams), dtype_(dtype), shape_(shape), shift_(shift),
          host_(std::max<std::int64_t>((shape.count() + shift) * size_of(dtype), 1)),  // an empty tensor is present all the same
          device_(host_.size(), Device::cuda), again_(host_.size(), Device::cuda) {
        for (std::int64_t i = 0; i < shape.count(); ++i) put(i, value(i));
        upload(streams.cuda, host_.data(), device_.tensor({host_.size()}, Dtype::u8));
        upload(streams.again, host_.data(), again_.tensor({host_.size()}, Dtype::u8));
    }
    /// Numbers from -1 to 1.
    Twin(Streams& streams, Shape shape, Dtype dtype, std::uint32_t seed, std::int64_t shift = 0)
        : Twin(streams, shape, dtype, [random = std::mt19937(seed)](std::int64_t) mutable { return static_cast<double>(random()) * 0x1p-31 - 1; }, shift) {}

    Tensor on(const Stream& stream) const {
        const Buffer& memory = &stream == &streams_->again ? again_ : stream.device() == Device::cuda ? device_ : host_;
        return memory.tensor(shape_, dtype_, shift_ * size_of(dtype_));
    }
    double at(std::int64_t i) const { return read(host_.data(), i); }

    /// |cuda - cpu| <= bound * max(1, |cpu|), element by element; NaN only where the CPU has one.
    void check(double bound, const char* what) const {
        const std::vector<std::byte> cuda = bytes();
        if (streams_->repeats) {
            std::vector<std::byte> again(cuda.size());
            download(streams_->again, again_.tensor({host_.size()}, Dtype::u8), again.data());
            BOOST_TEST((again == cuda), what << ": the GPU does not repeat its bits");
        }
        std::int64_t wrong = 0, first = -1;
        for (std::int64_t i = 0; i < shape_.count(); ++i) {
            const double a = read(cuda.data(), i), b = at(i);
            if (std::isnan(b) ? std::isnan(a) : a == b || std::abs(a - b) <= bound * std::max(1.0, std::abs(b))) continue;
            if (wrong++ == 0) first = i;
        }
        BOOST_TEST(wrong == 0, what << ": " << wrong << " of " << shape_.count() << " elements differ; " << first << " is "
                                    << (wrong ? read(cuda.data(), first) : 0) << " on the GPU and " << (wrong ? at(first) : 0) << " on the CPU");
        // What lies before the tensor is not its own.
        BOOST_TEST(std::memcmp(cuda.data(), host_.data(), static_cast<std::size_t>(shift_ * size_of(dtype_))) == 0, what << ": memory before the tensor was written");
    }
    /// What the GPU has.
    std::vector<std::byte> bytes() const {
        std::vector<std::byte> all(static_cast<std::size_t>(host_.size()));
        download(streams_->cuda, device_.tensor({host_.size()}, Dtype::u8), all.data());
        return all;
    }
    /// The same bits.
    void check_equal(const char* what) const { check(0, what); }
    void check(const char* what) const { check(device_bound(dtype_), what); }

private:
    void put(std::int64_t i, double value) {
        std::byte* p = host_.data() + (i + shift_) * size_of(dtype_);
        const auto write = [&](auto v) { std::memcpy(p, &v, sizeof v); };
        switch (dtype_) {
            case Dtype::f32: return write(static_cast<float>(value));
            case Dtype::bf16: return write(bfloat16(static_cast<float>(value)).bits);
            case Dtype::f64: return write(value);
            case Dtype::i32: return write(static_cast<std::int32_t>(value));
            case Dtype::u16: return write(static_cast<std::uint16_t>(value));
            case Dtype::u8: return write(static_cast<std::uint8_t>(value));
        }
    }
    double read(const std::byte* data, std::int64_t i) const {
        const std::byte* p = data + (i + shift_) * size_of(dtype_);
        const auto get = [&](auto v) {
            std::memcpy(&v, p, sizeof v);
            return static_cast<double>(v);
        };
        if (dtype_ == Dtype::bf16) return std::bit_cast<float>(static_cast<std::uint32_t>(get(std::uint16_t{})) << 16);
        if (dtype_ == Dtype::f32) return get(float{});
        if (dtype_ == Dtype::f64) return get(double{});
        if (dtype_ == Dtype::i32) return get(std::int32_t{});
        return dtype_ == Dtype::u16 ? get(std::uint16_t{}) : get(std::uint8_t{});
    }

    Streams* streams_ = nullptr;
    Dtype dtype_ = Dtype::f32;
    Shape shape_;
    std::int64_t shift_ = 0;
    Buffer host_, device_, again_;
};

/// Numbers and positions for dropout: sequences of 7 tokens, with sample numbers that fill 32 bits.
struct TwinOrigin {
    Twin sample, position;
    TwinOrigin(Streams& s, std::int64_t tokens)
        : sample(s, {tokens}, Dtype::i32, [](std::int64_t t) { return static_cast<double>(static_cast<std::int32_t>(0xfffffff0U + static_cast<std::uint32_t>(t / 7))); }),
          position(s, {tokens}, Dtype::i32, [](std::int64_t t) { return static_cast<double>(t % 7); }) {}
    TokenOrigin on(const Stream& stream) const { return {.sample = sample.on(stream), .position = position.on(stream)}; }
};

}  // namespace rf::test
