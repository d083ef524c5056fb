#include "kernels/elementwise.hpp"

#include "tests/kernels/twin.hpp"

using namespace rf;
using namespace rf::test;

BOOST_AUTO_TEST_CASE(any_length_gives_the_same_bits) {
    for (const Dtype dtype : {Dtype::f32, Dtype::bf16})
        for (const std::int64_t n : {0, 1, 7, 8, 64, 4096, 4097, 12293})
            for (const std::int64_t shift : {0, 1}) {
                Streams s;
                const Twin x(s, {n}, dtype, 1, shift), y(s, {n}, dtype, 2, shift);
                s.run([&](Stream& stream) { add(stream, {.x = x.on(stream), .y = y.on(stream)}); });
                y.check_equal("add");
                for (const Dtype other : {Dtype::f32, Dtype::bf16}) {
                    const Twin z(s, {n}, other, 3, shift);
                    s.run([&](Stream& stream) { cast(stream, {.x = x.on(stream), .y = z.on(stream)}); });
                    z.check_equal("cast");
                }
            }
}

BOOST_AUTO_TEST_CASE(casts_round_to_nearest_even_and_keep_what_is_not_finite) {
    Streams s;
    const double values[] = {1 + 0x1p-8, 1 + 3 * 0x1p-8, 1 + 0x1p-8 + 0x1p-20, -0.0, 3.4e38, 1e39, -1e39, std::nan(""), 0x1p-140};
    const Twin x(s, {9}, Dtype::f32, [&](std::int64_t i) { return values[i]; }), y(s, {9}, Dtype::bf16, 1);
    s.run([&](Stream& stream) { cast(stream, {.x = x.on(stream), .y = y.on(stream)}); });
    y.check_equal("cast");
    BOOST_TEST(y.at(0) == 1);
    BOOST_TEST(y.at(1) == 1 + 0x1p-6);
    BOOST_TEST(y.at(2) == 1 + 0x1p-7);
}
