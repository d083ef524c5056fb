#include "kernels/position.hpp"

#include "tests/kernels/twin.hpp"

using namespace rf;
using namespace rf::test;

BOOST_AUTO_TEST_CASE(sequences_and_channels_of_every_number) {
    for (const Dtype dtype : {Dtype::f32, Dtype::bf16})
        for (const std::int64_t c : {1, 8, 40, 384, 1026, 1032})
            for (const std::int64_t longest : {1, 5, 70}) {
                Streams s;
                std::vector<std::int32_t> bounds{0}, positions;
                for (int q = 0; q < 6; ++q) {
                    const auto length = static_cast<std::int32_t>(q == 2 ? 0 : 1 + (longest - 1) * q / 5);
                    for (std::int32_t p = 0; p < length; ++p) positions.push_back(p);
                    bounds.push_back(bounds.back() + length);
                }
                const auto t = static_cast<std::int64_t>(positions.size());
                const Twin cu(s, {7}, Dtype::i32, [&](std::int64_t i) { return bounds[static_cast<std::size_t>(i)]; });
                const Twin position(s, {t}, Dtype::i32, [&](std::int64_t i) { return positions[static_cast<std::size_t>(i)]; });
                const Twin table(s, {longest + 2, c}, dtype, 1), y(s, {t, c}, dtype, 2), dy(s, {t, c}, dtype, 3), d_table(s, {longest + 2, c}, Dtype::f32, 4);
                s.run([&](Stream& stream) {
                    add_position(stream, {.position = position.on(stream), .table = table.on(stream), .y = y.on(stream)});
                    add_position_backward(stream, {.cu_seqlens = cu.on(stream), .dy = dy.on(stream), .d_table = d_table.on(stream)});
                });
                y.check("y");
                d_table.check("d_table");
            }
}
