#include "tests/kernels/attention_twin.hpp"

using namespace rf;
using namespace rf::test;

BOOST_AUTO_TEST_CASE(every_remainder_on_tensor_cores) {
    check_attention({.lengths = {1, 2, 7, 8, 9, 0, 16, 17, 31, 33, 64, 65, 96, 127, 129}});
}

BOOST_AUTO_TEST_CASE(several_blocks_of_rows_on_tensor_cores) {
    check_attention({.lengths = {137, 3}, .heads = 2, .padding = 11, .longest = 137});
    check_attention({.lengths = {193}, .turned = false, .rate = 0});
}

// Zeros that stand for keys past the end would have probability exp(200), and their gradients infinite parts in d_q.
BOOST_AUTO_TEST_CASE(scores_far_below_zero) {
    check_attention({.lengths = {5, 34}, .turned = false, .apart = 5});
    check_attention({.lengths = {5, 34}, .head_size = 32, .turned = false, .apart = 7});
}

BOOST_AUTO_TEST_CASE(every_remainder_in_f32) {
    check_attention({.lengths = {1, 2, 0, 15, 16, 17, 31, 32, 33, 65}, .heads = 2, .dtype = Dtype::f32, .padding = 3});
    check_attention({.lengths = {70, 5}, .heads = 1, .dtype = Dtype::f32, .turned = false, .rate = 0, .longest = 70});
}

BOOST_AUTO_TEST_CASE(other_head_sizes) {
    for (const std::int64_t head_size : {2, 6, 66, 128}) check_attention({.lengths = {19, 1, 40}, .heads = 2, .head_size = head_size, .dtype = Dtype::f32});
    for (const std::int64_t head_size : {32, 128}) check_attention({.lengths = {5, 35}, .heads = 2, .head_size = head_size, .padding = 300});
}

BOOST_AUTO_TEST_CASE(no_sequences_and_no_tokens) {
    for (const Dtype dtype : {Dtype::f32, Dtype::bf16}) {
        check_attention({.lengths = {}, .dtype = dtype, .padding = 0});
        check_attention({.lengths = {}, .dtype = dtype, .padding = 5});
        check_attention({.lengths = {0, 0}, .dtype = dtype, .padding = 1});
    }
}

BOOST_AUTO_TEST_CASE(what_kernels_cannot_do_is_refused) {
    BOOST_CHECK_THROW(check_attention({.lengths = {2}, .head_size = 130, .dtype = Dtype::f32}), Error);
    BOOST_CHECK_THROW(check_attention({.lengths = {2}, .rate = 1}), Error);
}
