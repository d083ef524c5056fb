#include "kernels/gather.hpp"

#include "tests/kernels/twin.hpp"

using namespace rf;
using namespace rf::test;

namespace {

/// Every row t with (7 t) % 20 < of_20 is taken; then `absent` negative ones.
void check_case(std::int64_t tokens, std::int64_t c, Dtype dtype, int of_20, std::int64_t absent, std::int64_t shift = 0) {
    BOOST_TEST_CONTEXT("T " << tokens << " C " << c << ' ' << name_of(dtype) << " taken " << of_20 << " absent " << absent) {
        Streams s;
        std::vector<std::int32_t> taken;
        for (std::int32_t t = 0; t < tokens; ++t)
            if (7 * t % 20 < of_20) taken.push_back(t);
        taken.resize(taken.size() + static_cast<std::size_t>(absent), -1);
        const auto m = static_cast<std::int64_t>(taken.size());
        const Twin rows(s, {m}, Dtype::i32, [&](std::int64_t i) { return taken[static_cast<std::size_t>(i)]; });
        const Twin x(s, {tokens, c}, dtype, 1, shift), y(s, {m, c}, dtype, 2, shift), dy(s, {m, c}, dtype, 3, shift), dx(s, {tokens, c}, dtype, 4, shift);
        s.run([&](Stream& stream) {
            gather(stream, {.x = x.on(stream), .rows = rows.on(stream), .y = y.on(stream)});
            gather_backward(stream, {.dy = dy.on(stream), .rows = rows.on(stream), .dx = dx.on(stream)});
        });
        y.check("y");
        dx.check("dx");
    }
}

}  // namespace

BOOST_AUTO_TEST_CASE(any_rows_of_any_width) {
    for (const Dtype dtype : {Dtype::f32, Dtype::bf16})
        for (const std::int64_t c : {5, 24, 768, 1048}) check_case(70, c, dtype, 3, 5);
}

BOOST_AUTO_TEST_CASE(none_few_and_all) {
    for (const std::int64_t tokens : {0, 1, 7, 8, 9, 64, 65, 1500})
        for (const int of_20 : {0, 1, 20}) check_case(tokens, 8, Dtype::bf16, of_20, 0);
    check_case(3000, 8, Dtype::f32, 11, 40);
}

BOOST_AUTO_TEST_CASE(rows_off_their_alignment) {
    check_case(30, 16, Dtype::bf16, 5, 1, 1);
    check_case(30, 16, Dtype::f32, 5, 1, 1);
}
