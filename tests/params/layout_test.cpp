#include "params/layout.hpp"

#include "core/buffer.hpp"

#include <boost/test/unit_test.hpp>

#include <set>

using namespace rf;

namespace {

/// Tensors of every kind: split on each axis, whole, of several groups, of one element, longer than a segment.
void fill(ParamLayout& layout) {
    layout.add({.name = "word", .shape = {1001, 12}, .split_axis = 0, .fan = 12});
    layout.add({.name = "segment", .shape = {2, 12}, .fan = 12});
    layout.add({.name = "qkv", .shape = {3, 4, 6, 12}, .split_axis = 1, .fan = 12, .tensors = 3});
    layout.add({.name = "down", .shape = {12, 130}, .split_axis = 1, .fan = 130});
    layout.add({.name = "scale", .shape = {1}});
    layout.add({.name = "large", .shape = {3, 5000}, .tensors = 3});
}

/// Global flat indices of an entry's elements, in the order of the local part.
std::vector<std::int64_t> global_indices(const ParamEntry& e) {
    std::vector<std::int64_t> out;
    const Shape &whole = e.spec.shape, &local = e.local;
    for (std::int64_t i = 0; i < local.count(); ++i) {
        std::int64_t rest = i, global = 0, stride = 1;
        for (int axis = local.rank - 1; axis >= 0; --axis) {
            std::int64_t at = rest % local[axis];
            rest /= local[axis];
            if (axis == e.spec.split_axis) at += e.split_begin;
            global += at * stride;
            stride *= whole[axis];
        }
        out.push_back(global);
    }
    return out;
}

}  // namespace

BOOST_AUTO_TEST_CASE(entries_are_aligned_and_do_not_overlap) {
    for (const int size : {1, 2, 4})
        for (int rank = 0; rank < size; ++rank) {
            ParamLayout layout(rank, size);
            fill(layout);
            std::int64_t end = 0;
            for (const ParamEntry& e : layout.entries()) {
                // 128 bytes, the line of a GPU's cache, in the narrowest dtype that a flat buffer has.
                BOOST_TEST(e.offset * size_of(Dtype::bf16) % 128 == 0, e.spec.name << " starts at element " << e.offset);
                BOOST_TEST(e.offset >= end);
                BOOST_TEST(e.offset - end < 128 / size_of(Dtype::bf16));
                end = e.offset + e.local.count();
            }
            BOOST_TEST(layout.size() >= end);
        }
}

BOOST_AUTO_TEST_CASE(tensor_ranks_together_hold_every_element_once) {
    for (const int size : {1, 2, 4}) {
        std::vector<ParamLayout> layouts;
        for (int rank = 0; rank < size; ++rank) fill(layouts.emplace_back(rank, size));
        for (std::size_t i = 0; i < layouts[0].entries().size(); ++i) {
            const ParamSpec& spec = layouts[0].entries()[i].spec;
            std::vector<int> seen(static_cast<std::size_t>(spec.shape.count()), 0);
            for (const ParamLayout& layout : layouts)
                for (const std::int64_t at : global_indices(layout.entries()[i])) ++seen[static_cast<std::size_t>(at)];
            const int expected = spec.split_axis < 0 ? size : 1;
            BOOST_TEST(std::count(seen.begin(), seen.end(), expected) == spec.shape.count(), spec.name << " over " << size << " ranks");
        }
        for (const ParamLayout& layout : layouts) {
            BOOST_TEST(layout.parameter_count() == layouts[0].parameter_count());
            BOOST_TEST(layout.group_count() == layouts[0].group_count());
        }
    }
}

BOOST_AUTO_TEST_CASE(parts_differ_by_at_most_one) {
    for (const std::int64_t n : {4, 5, 6, 7, 1001})
        for (const int size : {1, 2, 3, 4}) {
            BOOST_TEST(part_begin(n, 0, size) == 0);
            BOOST_TEST(part_begin(n, size, size) == n);
            for (int r = 0; r < size; ++r) {
                const std::int64_t length = part_begin(n, r + 1, size) - part_begin(n, r, size);
                BOOST_TEST((length == n / size || length == n / size + 1));
            }
        }
}

BOOST_AUTO_TEST_CASE(segments_cover_their_tensors_and_stay_inside_blocks) {
    for (const int size : {1, 2, 4})
        for (int rank = 0; rank < size; ++rank) {
            ParamLayout layout(rank, size);
            fill(layout);
            std::vector<std::int32_t> group_at(static_cast<std::size_t>(layout.size()), -1);
            std::int64_t end = 0;
            for (const Segment& s : layout.segments()) {
                BOOST_TEST(s.begin >= end);  // in order
                BOOST_TEST(s.begin < s.end);
                BOOST_TEST(s.begin / 4096 == (s.end - 1) / 4096);  // optimizer shards are cut at multiples of 4096
                for (std::int64_t i = s.begin; i < s.end; ++i) group_at[static_cast<std::size_t>(i)] = s.group;
                end = s.end;
            }
            // Each element has the group of its tensor, and gaps have none.
            std::vector<std::int32_t> expected(group_at.size(), -1);
            for (const ParamEntry& e : layout.entries())
                for (std::int64_t i = 0; i < e.local.count(); ++i)
                    expected[static_cast<std::size_t>(e.offset + i)] = e.first_group + static_cast<std::int32_t>(i / (e.local.count() / e.spec.tensors));
            BOOST_TEST((group_at == expected));
        }
}

BOOST_AUTO_TEST_CASE(groups_have_names_of_their_own) {
    ParamLayout layout;
    fill(layout);
    BOOST_TEST(layout.group_count() == 10);
    std::set<std::string> names;
    for (std::int32_t g = 0; g < layout.group_count(); ++g) names.insert(layout.group_name(g));
    BOOST_TEST(names.size() == 10U);
    BOOST_TEST(names.count("qkv[1]") == 1U);
    BOOST_TEST(names.count("down") == 1U);
}

BOOST_AUTO_TEST_CASE(views_show_an_entry_under_its_shape) {
    ParamLayout layout;
    fill(layout);
    const ParamId id = layout.add({.name = "last", .shape = {2, 3}});
    const Buffer buffer(layout.size() * 4);
    const ParamView view(layout, buffer.tensor({layout.size()}, Dtype::f32));
    BOOST_TEST((view[id].shape == Shape{2, 3}));
    BOOST_TEST(static_cast<std::byte*>(view[id].data) - buffer.data() == layout[id].offset * 4);
}

BOOST_AUTO_TEST_CASE(an_axis_shorter_than_the_tensor_group_is_bad_usage) {
    ParamLayout layout(0, 4);
    BOOST_CHECK_THROW(layout.add({.name = "narrow", .shape = {3, 8}, .split_axis = 0}), UsageError);
}
