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
                s.run([&](Stream& stream) { add_scaled(stream, {.x = x.on(stream), .y = y.on(stream), .factor = 0.75, .divisor = 2}); });
                y.check("add_scaled");
                for (const Dtype other : {Dtype::f32, Dtype::bf16}) {
                    const Twin z(s, {n}, other, 3, shift);
                    s.run([&](Stream& stream) { cast(stream, {.x = x.on(stream), .y = z.on(stream)}); });
                    z.check_equal("cast");
                }
            }
}
