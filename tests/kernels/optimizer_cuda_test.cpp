#include "kernels/optimizer.hpp"

#include "tests/kernels/twin.hpp"

using namespace rf;
using namespace rf::test;

namespace {

/// A shard that begins at `offset` of the layout, three groups: one of two whole segments and a short one, one of a single
/// element, one whose gradient is zero.
struct Shard {
    std::vector<Segment> list;
    std::int64_t size = 0;

    explicit Shard(std::int64_t offset) {
        const auto add = [&](std::int64_t n, std::int64_t group) {
            list.push_back({offset + size, offset + size + n, group});
            size += n;
        };
        add(4096, 0);
        add(4096, 0);
        add(1029, 0);
        size += 3;
        add(1, 1);
        size += 2;
        add(70, 2);
    }
};

struct Run {
    bool lamb = true, skip_zero = true;
    double factor_norm = 0, correction = 1;
    std::int64_t offset = 0, shift = 0;
    std::int64_t not_finite_at = -1;
};

void check_case(const Run& k) {
    BOOST_TEST_CONTEXT("lamb " << k.lamb << " skip " << k.skip_zero << " max norm " << k.factor_norm << " offset " << k.offset << " shift " << k.shift << " not finite "
                               << k.not_finite_at) {
        Streams s;
        const Shard shard(k.offset);
        const auto n = static_cast<std::int64_t>(shard.list.size()), bytes = n * static_cast<std::int64_t>(sizeof(Segment));
        const auto* raw = reinterpret_cast<const std::uint8_t*>(shard.list.data());
        const Twin segments(s, {n, static_cast<std::int64_t>(sizeof(Segment))}, Dtype::u8, [&](std::int64_t i) { return i < bytes ? raw[i] : 0; });
        const std::int64_t zero_from = shard.list.back().begin - k.offset;
        const Twin weight(s, {shard.size}, Dtype::f32, 1, k.shift), m(s, {shard.size}, Dtype::f32, 2, k.shift),
            v(s, {shard.size}, Dtype::f32, [](std::int64_t i) { return 1e-3 * static_cast<double>(i % 17); }, k.shift),
            gradient(s, {shard.size}, Dtype::f32,
                     [&](std::int64_t i) { return i == k.not_finite_at ? std::numeric_limits<double>::infinity() : i >= zero_from ? 0 : std::sin(static_cast<double>(i)); }, k.shift);
        const auto on = [&](const Stream& stream) {
            return OptimizerShard{.weight = weight.on(stream), .m = m.on(stream), .v = v.on(stream), .gradient = gradient.on(stream), .offset = k.offset,
                                  .segments = segments.on(stream)};
        };
        const Twin sums(s, {n, 3}, Dtype::f64, 3), groups(s, {3, 3}, Dtype::f64, 4), rates(s, {3}, Dtype::f64, 5);
        const Twin control(s, {control_slots}, Dtype::f64, [&](std::int64_t i) { return i == control_lr ? 0.01 : i == control_skipped ? 0 : k.correction; });
        const std::int32_t first[] = {0, 3, 4, 5};
        const Twin begin(s, {4}, Dtype::i32, [&](std::int64_t i) { return first[i]; }), counted(s, {3}, Dtype::u8, [](std::int64_t) { return 1; });
        const MomentRule rule;
        s.run([&](Stream& stream) {
            gradient_sums(stream, on(stream), sums.on(stream));
            join_sums(stream, {.sums = sums.on(stream), .group_begin = begin.on(stream), .counted = counted.on(stream), .groups = groups.on(stream)});
            judge_gradient(stream, {.groups = groups.on(stream), .control = control.on(stream), .max_norm = k.factor_norm});
        });
        sums.check(1e-12, "sums");
        groups.check(1e-12, "groups");
        control.check(1e-12, "control");
        const double weight_before = weight.at(0);
        s.run([&](Stream& stream) {
            update_moments(stream, on(stream), rule, control.on(stream), sums.on(stream));
            join_sums(stream, {.sums = sums.on(stream), .group_begin = begin.on(stream), .counted = counted.on(stream), .groups = groups.on(stream)});
            update_rates(stream, {.groups = groups.on(stream), .control = control.on(stream), .rates = rates.on(stream), .lamb = k.lamb, .skip_zero_gradient = k.skip_zero});
            apply_update(stream, on(stream), rule, control.on(stream), rates.on(stream));
        });
        m.check("m");
        v.check("v");
        sums.check(1e-5, "sums");
        groups.check(1e-5, "groups");
        rates.check(1e-5, "rates");
        weight.check("weight");
        BOOST_TEST((weight.at(0) == weight_before) == (k.not_finite_at >= 0), "the update was not what this case is about");
    }
}

}  // namespace

BOOST_AUTO_TEST_CASE(an_update) {
    check_case({});
    check_case({.lamb = false, .skip_zero = false, .correction = 0.3});
    check_case({.factor_norm = 1.5});
}

BOOST_AUTO_TEST_CASE(a_shard_anywhere_in_the_layout) {
    check_case({.offset = std::int64_t{3} << 32});
    check_case({.shift = 1});
}

BOOST_AUTO_TEST_CASE(nothing_is_touched_when_a_gradient_is_not_finite) {
    check_case({.not_finite_at = 8192});
    check_case({.not_finite_at = 9224});  // the group of one element
}

BOOST_AUTO_TEST_CASE(an_update_of_adafactor) {
    for (const std::int64_t shift : {0, 1}) {
        Streams s;
        const Shard shard(0);
        const auto n = static_cast<std::int64_t>(shard.list.size());
        const auto* raw = reinterpret_cast<const std::uint8_t*>(shard.list.data());
        const Twin segments(s, {n, static_cast<std::int64_t>(sizeof(Segment))}, Dtype::u8, [&](std::int64_t i) { return raw[i]; });
        const Twin weight(s, {shard.size}, Dtype::f32, 1, shift), m(s, {shard.size}, Dtype::f32, 2, shift),
            v(s, {shard.size}, Dtype::f32, [](std::int64_t i) { return 1e-3 * static_cast<double>(i % 17); }, shift),
            gradient(s, {shard.size}, Dtype::f32, [&](std::int64_t i) { return i >= shard.list.back().begin ? 0 : std::sin(static_cast<double>(i)); }, shift),
            other(s, {shard.size}, Dtype::f32, 9, shift);
        const auto on = [&](const Stream& stream) {
            return OptimizerShard{.weight = weight.on(stream), .m = m.on(stream), .v = v.on(stream), .gradient = gradient.on(stream), .segments = segments.on(stream)};
        };
        const Twin sums(s, {n, 3}, Dtype::f64, 3), dots(s, {n, 3}, Dtype::f64, 3), groups(s, {3, 3}, Dtype::f64, 4), rates(s, {3, 2}, Dtype::f64, 5);
        const double numbers[control_slots] = {0.01, 1, std::pow(7, -0.8), 0, 0.5, 1, -1, 0};
        const Twin control(s, {control_slots}, Dtype::f64, [&](std::int64_t i) { return numbers[i]; });
        const std::int32_t first[] = {0, 3, 4, 5};
        const double count[] = {9221, 1, 70};
        const Twin begin(s, {4}, Dtype::i32, [&](std::int64_t i) { return first[i]; }), counted(s, {3}, Dtype::u8, [](std::int64_t) { return 1; });
        const Twin sizes(s, {3}, Dtype::f64, [&](std::int64_t i) { return count[i]; });
        const double before = weight.at(0);
        s.run([&](Stream& stream) {
            gradient_sums(stream, on(stream), dots.on(stream), other.on(stream));
            adafactor_moments(stream, on(stream), control.on(stream), sums.on(stream));
            join_sums(stream, {.sums = sums.on(stream), .group_begin = begin.on(stream), .counted = counted.on(stream), .groups = groups.on(stream)});
            adafactor_rates(stream, {.groups = groups.on(stream), .sizes = sizes.on(stream), .control = control.on(stream), .rates = rates.on(stream)});
            apply_adafactor(stream, on(stream), 0.9, control.on(stream), rates.on(stream));
        });
        dots.check(1e-12, "dots");
        sums.check(1e-5, "sums");
        rates.check(1e-5, "rates");
        v.check("v");
        m.check("m");
        weight.check("weight");
        BOOST_TEST(weight.at(0) != before);
        BOOST_TEST(rates.at(4) == 0);
    }
}

BOOST_AUTO_TEST_CASE(sums_do_not_depend_on_where_a_segment_lies) {
    Streams s;
    std::vector<double> totals;
    for (const std::int64_t shift : {0, 1, 4}) {
        const Segment one{0, 1003, 0};
        const auto* raw = reinterpret_cast<const std::uint8_t*>(&one);
        const Twin segments(s, {1, static_cast<std::int64_t>(sizeof one)}, Dtype::u8, [&](std::int64_t i) { return raw[i]; });
        const Twin gradient(s, {1003}, Dtype::f32, 1, shift), sums(s, {1, 3}, Dtype::f64, 2);
        gradient_sums(s.cuda, {.weight = gradient.on(s.cuda), .m = {}, .v = {}, .gradient = gradient.on(s.cuda), .segments = segments.on(s.cuda)}, sums.on(s.cuda));
        double total[3];
        download(s.cuda, sums.on(s.cuda), total);
        totals.push_back(total[gradient_sum]);
        BOOST_TEST(total[weight_sum] == 0);
    }
    BOOST_TEST(totals[0] > 100);
    BOOST_TEST(totals[1] == totals[0]);
    BOOST_TEST(totals[2] == totals[0]);
}

BOOST_AUTO_TEST_CASE(long_groups_are_joined_and_uncounted_ones_are_zero) {
    Streams s;
    const std::int32_t first[] = {0, 1000, 1000, 1001, 1500};
    const Twin sums(s, {1500, 3}, Dtype::f64, 1), groups(s, {4, 3}, Dtype::f64, 2);
    const Twin begin(s, {5}, Dtype::i32, [&](std::int64_t i) { return first[i]; }), counted(s, {4}, Dtype::u8, [](std::int64_t i) { return i != 3; });
    s.run([&](Stream& stream) {
        join_sums(stream, {.sums = sums.on(stream), .group_begin = begin.on(stream), .counted = counted.on(stream), .groups = groups.on(stream)});
    });
    groups.check(1e-12, "groups");
    BOOST_TEST(groups.at(9) == 0);
}
