#include "kernels/bias.hpp"

#include "tests/kernels/twin.hpp"

using namespace rf;
using namespace rf::test;

BOOST_AUTO_TEST_CASE(rows_and_columns_of_every_number) {
    for (const Dtype dtype : {Dtype::f32, Dtype::bf16})
        for (const std::int64_t m : {0, 1, 31, 33, 700})
            for (const std::int64_t l : {1, 2, 15, 33, 119}) {
                Streams s;
                const Twin bias(s, {l}, dtype, 1), y(s, {m, l}, Dtype::f32, 2), dy(s, {m, l}, dtype, 3), d_bias(s, {l}, Dtype::f32, 4);
                s.run([&](Stream& stream) {
                    add_bias(stream, {.bias = bias.on(stream), .y = y.on(stream)});
                    add_bias_backward(stream, {.dy = dy.on(stream), .d_bias = d_bias.on(stream)});
                });
                y.check("y");
                d_bias.check(std::max(device_bound(Dtype::f32), tolerance(Dtype::f32, m)), "d_bias");  // sums of m rows in two orders
            }
}
