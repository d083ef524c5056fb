#include "kernels/activation.hpp"

#include "tests/kernels/twin.hpp"

using namespace rf;
using namespace rf::test;

BOOST_AUTO_TEST_CASE(rows_and_columns_of_every_number) {
    for (const Dtype dtype : {Dtype::f32, Dtype::bf16})
        for (const Activation activation : {Activation::none, Activation::relu, Activation::gelu})
            for (const bool with_bias : {true, false})
                for (const std::int64_t m : {0, 1, 3, 70})
                    for (const std::int64_t l : {1, 7, 8, 16, 33, 264, 1536})
                        for (const std::int64_t shift : {0, 1}) {
                            if (shift > 0 && (m != 3 || l < 8)) continue;
                            Streams s;
                            const Twin bias(s, {l}, dtype, 1), x(s, {m, l}, dtype, 2, shift), y(s, {m, l}, dtype, 3, shift), dy(s, {m, l}, dtype, 4, shift);
                            s.run([&](Stream& stream) {
                                bias_activation(stream, {.bias = with_bias ? ConstTensor(bias.on(stream)) : ConstTensor{}, .x = x.on(stream),
                                                         .y = activation == Activation::none ? Tensor{} : y.on(stream), .activation = activation});
                                if (activation != Activation::none) activation_backward(stream, {.x = x.on(stream), .dy = dy.on(stream), .dx = dy.on(stream), .activation = activation});
                            });
                            x.check("x");
                            y.check("y");
                            dy.check("dx");
                        }
}
