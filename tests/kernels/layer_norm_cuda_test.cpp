#include "kernels/layer_norm.hpp"

#include "tests/kernels/twin.hpp"

using namespace rf;
using namespace rf::test;

namespace {

struct Case {
    std::int64_t tokens, c;
    Dtype dtype;
    bool x = true, gain = true, centre = true;
    double rate = 0.1;
    bool in_place = false;
    std::int64_t shift = 0;  ///< elements that the rows lie off their alignment
};

void check_case(const Case& k) {
    BOOST_TEST_CONTEXT("T " << k.tokens << " C " << k.c << ' ' << name_of(k.dtype) << " x " << k.x << " gain " << k.gain << " centre " << k.centre << " rate " << k.rate
                            << " in place " << k.in_place << " shift " << k.shift) {
        Streams s;
        const Shape rows{k.tokens, k.c};
        const TwinOrigin origin(s, k.tokens);
        const Dropout dropout{.rate = k.rate, .seed = 0x123456789abcdefU, .detail = 3};
        const Twin x(s, rows, k.dtype, 1, k.shift), f(s, rows, k.dtype, 2, k.shift), apart(s, rows, k.dtype, 3, k.shift), y(s, rows, k.dtype, 4, k.shift),
            gain(s, {k.c}, k.dtype, 5), bias(s, {k.c}, k.dtype, 6), inv(s, {k.tokens}, Dtype::f32, 7);
        const Twin& normalised = k.in_place ? f : apart;
        const auto given = [](bool there, const Tensor& t) { return there ? ConstTensor(t) : ConstTensor{}; };
        s.run([&](Stream& stream) {
            layer_norm(stream, {.x = given(k.x, x.on(stream)), .f = f.on(stream), .gain = given(k.gain, gain.on(stream)), .bias = given(k.gain, bias.on(stream)),
                                .normalised = normalised.on(stream), .y = y.on(stream), .inv_std = inv.on(stream), .alpha = 0.75, .centre = k.centre, .dropout = dropout,
                                .origin = origin.on(stream)});
        });
        y.check("y");
        normalised.check("normalised");
        inv.check("inv_std");

        // Backward from its own numbers, so that a difference in y is not seen twice.
        const Twin n(s, rows, k.dtype, 8, k.shift), dy(s, rows, k.dtype, 9, k.shift), dx_apart(s, rows, k.dtype, 10, k.shift), df(s, rows, k.dtype, 11, k.shift),
            std(s, {k.tokens}, Dtype::f32, 12), d_gain(s, {k.c}, Dtype::f32, 13), d_bias(s, {k.c}, Dtype::f32, 14);
        const Twin& dx = k.in_place ? dy : dx_apart;
        s.run([&](Stream& stream) {
            layer_norm_backward(stream, {.dy = dy.on(stream), .normalised = n.on(stream), .inv_std = std.on(stream), .gain = given(k.gain, gain.on(stream)),
                                         .dx = k.x ? dx.on(stream) : Tensor{}, .df = df.on(stream), .d_gain = k.gain ? d_gain.on(stream) : Tensor{},
                                         .d_bias = k.gain ? d_bias.on(stream) : Tensor{}, .alpha = 0.75, .centre = k.centre, .dropout = dropout, .origin = origin.on(stream)});
        });
        dx.check("dx");
        df.check("df");
        d_gain.check(std::max(device_bound(Dtype::f32), tolerance(Dtype::f32, k.tokens)), "d_gain");
        d_bias.check(std::max(device_bound(Dtype::f32), tolerance(Dtype::f32, k.tokens)), "d_bias");
    }
}

}  // namespace

BOOST_AUTO_TEST_CASE(rows_of_every_width) {
    for (const Dtype dtype : {Dtype::f32, Dtype::bf16})
        for (const std::int64_t c : {7, 8, 24, 64, 250, 264, 384, 768, 1024, 1026, 1032, 2048}) check_case({.tokens = 3, .c = c, .dtype = dtype});
}

BOOST_AUTO_TEST_CASE(any_number_of_tokens) {
    for (const std::int64_t tokens : {0, 1, 8, 9, 33, 65}) check_case({.tokens = tokens, .c = 40, .dtype = Dtype::bf16});
}

BOOST_AUTO_TEST_CASE(every_form) {
    for (const Dtype dtype : {Dtype::f32, Dtype::bf16})
        for (const bool x : {false, true})
            for (const bool gain : {false, true})
                for (const bool centre : {false, true})
                    for (const bool in_place : {false, true})
                        check_case({.tokens = 11, .c = 272, .dtype = dtype, .x = x, .gain = gain, .centre = centre, .rate = x ? 0.3 : 0.0, .in_place = in_place});
}

BOOST_AUTO_TEST_CASE(wide_rows_in_place_and_rows_off_their_alignment) {
    check_case({.tokens = 4, .c = 1544, .dtype = Dtype::bf16, .in_place = true});
    check_case({.tokens = 4, .c = 1544, .dtype = Dtype::f32, .in_place = true});
    check_case({.tokens = 4, .c = 64, .dtype = Dtype::bf16, .shift = 1});
    check_case({.tokens = 4, .c = 64, .dtype = Dtype::f32, .shift = 1});
}
