#include "kernels/add_norm.hpp"

#include "tests/kernels/twin.hpp"

using namespace rf;
using namespace rf::test;

namespace {

struct Case {
    std::int64_t tokens, c;
    Dtype dtype;
    bool x, normalise;
    double rate;
    bool alpha_in_memory = false;
    bool in_place = false;
    std::int64_t shift = 0;  ///< elements that the rows lie off their alignment
};

void check_case(const Case& k) {
    BOOST_TEST_CONTEXT("T " << k.tokens << " C " << k.c << ' ' << name_of(k.dtype) << " x " << k.x << " normalise " << k.normalise << " rate " << k.rate
                            << " in place " << k.in_place << " shift " << k.shift) {
        Streams s;
        const Shape rows{k.tokens, k.c};
        const TwinOrigin origin(s, k.tokens);
        const Dropout dropout{.rate = k.rate, .seed = 0x123456789abcdefU, .detail = 3};
        const Twin alpha(s, {1}, k.dtype, [](std::int64_t) { return 0.75; });
        const auto alpha_on = [&](const Stream& stream) { return k.alpha_in_memory ? Scalar(alpha.on(stream)) : Scalar(0.75); };
        const Twin x(s, rows, k.dtype, 1, k.shift), f(s, rows, k.dtype, 2, k.shift), apart(s, rows, k.dtype, 3, k.shift), inv(s, {k.tokens}, Dtype::f32, 4);
        const Twin& y = k.in_place ? (k.x ? x : f) : apart;
        s.run([&](Stream& stream) {
            add_norm(stream, {.x = k.x ? ConstTensor(x.on(stream)) : ConstTensor{}, .f = f.on(stream), .y = y.on(stream),
                              .inv_rms = k.normalise ? inv.on(stream) : Tensor{}, .alpha = alpha_on(stream), .normalise = k.normalise, .dropout = dropout,
                              .origin = origin.on(stream)});
        });
        y.check("y");
        inv.check("inv_rms");

        // Backward from its own numbers, so that a difference in y is not seen twice.
        const Twin out(s, rows, k.dtype, 5, k.shift), dy(s, rows, k.dtype, 6, k.shift), branch(s, rows, k.dtype, 7, k.shift), dx_apart(s, rows, k.dtype, 8, k.shift),
            df_apart(s, rows, k.dtype, 9, k.shift), scratch(s, {k.tokens}, Dtype::f32, 10), d_alpha(s, {1}, Dtype::f32, 11);
        const Twin& dx = k.in_place ? dy : dx_apart;
        const Twin& df = k.in_place && !k.x ? dy : df_apart;
        s.run([&](Stream& stream) {
            add_norm_backward(stream, {.dy = dy.on(stream), .y = k.normalise ? ConstTensor(out.on(stream)) : ConstTensor{}, .inv_rms = inv.on(stream),
                                       .f = branch.on(stream), .dx = k.x ? dx.on(stream) : Tensor{}, .df = df.on(stream),
                                       .d_alpha = k.normalise ? Tensor{} : d_alpha.on(stream), .scratch = k.normalise ? Tensor{} : scratch.on(stream),
                                       .alpha = alpha_on(stream), .normalise = k.normalise, .dropout = dropout, .origin = origin.on(stream)});
        });
        dx.check("dx");
        df.check("df");
        d_alpha.check(tolerance(Dtype::f32, k.tokens * k.c), "d_alpha");
    }
}

}  // namespace

BOOST_AUTO_TEST_CASE(rows_of_every_width) {
    for (const Dtype dtype : {Dtype::f32, Dtype::bf16})
        for (const std::int64_t c : {1, 7, 8, 24, 64, 250, 264, 384, 768, 1024, 1026, 1032, 2048})
            check_case({.tokens = 3, .c = c, .dtype = dtype, .x = true, .normalise = true, .rate = 0.1});
}

BOOST_AUTO_TEST_CASE(any_number_of_tokens) {
    for (const std::int64_t tokens : {0, 1, 8, 9, 65}) check_case({.tokens = tokens, .c = 40, .dtype = Dtype::bf16, .x = true, .normalise = true, .rate = 0.1});
}

BOOST_AUTO_TEST_CASE(every_form) {
    for (const Dtype dtype : {Dtype::f32, Dtype::bf16})
        for (const bool x : {false, true})
            for (const bool normalise : {false, true})
                for (const bool in_place : {false, true})
                    for (const double rate : {0.0, 0.3})
                        check_case({.tokens = 11, .c = 272, .dtype = dtype, .x = x, .normalise = normalise, .rate = rate, .alpha_in_memory = true, .in_place = in_place});
}

BOOST_AUTO_TEST_CASE(wide_rows_in_place_and_rows_off_their_alignment) {
    check_case({.tokens = 4, .c = 1544, .dtype = Dtype::bf16, .x = true, .normalise = true, .rate = 0.1, .in_place = true});
    check_case({.tokens = 4, .c = 1544, .dtype = Dtype::f32, .x = true, .normalise = false, .rate = 0.1, .in_place = true});
    check_case({.tokens = 4, .c = 64, .dtype = Dtype::bf16, .x = true, .normalise = true, .rate = 0.1, .shift = 1});
    check_case({.tokens = 4, .c = 64, .dtype = Dtype::f32, .x = true, .normalise = false, .rate = 0.1, .shift = 1});
}
