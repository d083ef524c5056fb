#include "optim/gradient_mix.hpp"

#include <boost/test/unit_test.hpp>

#include <cmath>

using namespace rf;

namespace {

Communicator& world() {
    static int argc = 0;
    static char** argv = nullptr;
    static World all(argc, argv);
    return all.communicator();
}

/// A shared tensor over several segments, one of three slices, and a head, over the data ranks of `comm`.
struct Layouts {
    ParamLayout layout;
    ParallelGrid grid;
    ParamState state;
    Stream stream;
    GradientMix mix;
    static constexpr std::int64_t shared_groups = 4, bucket = 4096;  // so small that a rank owns several pieces

    explicit Layouts(Communicator& comm, Dtype dtype = Dtype::f64)
        : grid(comm, 1), state(add(layout), grid, Device::cpu, dtype, false, bucket), mix(state, grid, shared_groups, stream) {}
    static const ParamLayout& add(ParamLayout& layout) {
        layout.add({.name = "word", .shape = {300, 301}});
        layout.add({.name = "qkv", .shape = {3, 7}, .tensors = 3});
        layout.add({.name = "task/a/dense", .shape = {2, 5}});
        return layout;
    }
    /// This rank's shard of a gradient that is value(i) at element i of the layout, in tensors only.
    template <class F>
    std::vector<double> gradient(const F& value) const {
        std::vector<double> g(static_cast<std::size_t>(state.shard_size()), 0);
        for (const ParamEntry& entry : layout.entries())
            for (std::int64_t i = entry.offset; i < entry.offset + entry.local.count(); ++i) {
                const std::int64_t at = state.shards().owned_before(i, state.data_rank());
                if (state.shards().owned_before(i + 1, state.data_rank()) > at) g[static_cast<std::size_t>(at)] = value(i);
            }
        return g;
    }
    Tensor see(std::vector<double>& g) const { return view(g.data(), {state.shard_size()}); }
    double norm(std::vector<double>& g, Normalise rule) {
        double result = -7;
        mix.norm(stream, see(g), rule, view(&result, {1}));
        return result;
    }
};

/// A layout of two numbers that are shared and two that are a head's.
struct Pair {
    ParamLayout layout;
    std::unique_ptr<Communicator> self = make_self_communicator();
    ParallelGrid grid{*self, 1};
    ParamState state{add(layout), grid, Device::cpu, Dtype::f64, false};
    Stream stream;
    GradientMix mix{state, grid, 1, stream};
    std::int64_t head = layout.entries()[1].offset;
    static const ParamLayout& add(ParamLayout& layout) {
        layout.add({.name = "p", .shape = {2}});
        layout.add({.name = "task/a/dense", .shape = {2}});
        return layout;
    }
    std::vector<double> put(double a, double b, double c = 0, double d = 0) const {
        std::vector<double> g(static_cast<std::size_t>(state.shard_size()), 0);
        g[0] = a, g[1] = b, g[static_cast<std::size_t>(head)] = c, g[static_cast<std::size_t>(head) + 1] = d;
        return g;
    }
    Tensor see(std::vector<double>& g) const { return view(g.data(), {state.shard_size()}); }
};

/// Numbers of very different size, so that any other order of additions shows.
double uneven(std::int64_t i) { return std::ldexp(std::sin(static_cast<double>(1 + i)), static_cast<int>(i * 7 % 41)); }

}  // namespace

BOOST_AUTO_TEST_CASE(each_task_counts_with_norm_one) {
    Pair p;
    // The published pair; the heads' parts are divided by the shared norms 5 and 10, or by the norms of all, 13 and 26.
    const std::vector<double> expected[] = {{3, 14, 12, 24}, {0.6, 1.8, 2.4, 2.4}, {3. / 13, 4. / 13 + 10. / 26, 12. / 13, 24. / 26}};
    for (const Normalise rule : {Normalise::none, Normalise::shared, Normalise::all}) {
        std::vector<double> total = p.put(0, 0), one = p.put(3, 4, 12, 0), two = p.put(0, 10, 0, 24);
        for (std::vector<double>* g : {&one, &two}) {
            double norm = 0;
            p.mix.norm(p.stream, p.see(*g), rule, view(&norm, {1}));
            BOOST_TEST(norm == (g == &one ? (rule == Normalise::all ? 13 : 5) : rule == Normalise::all ? 26 : 10));
            GradientMix::add(p.stream, p.see(*g), 1, rule, view(&norm, {1}), p.see(total));
        }
        const auto h = static_cast<std::size_t>(p.head);
        const std::vector<double> got{total[0], total[1], total[h], total[h + 1]};
        const auto& wanted = expected[static_cast<int>(rule)];
        if (rule == Normalise::shared) {
            BOOST_TEST(std::abs(got[0] - 0.6) < 1e-15);
            BOOST_TEST(std::abs(got[1] - 1.8) < 1e-15);
            BOOST_TEST(std::abs(got[2] - 2.4) < 1e-15);
            BOOST_TEST(std::abs(got[3] - 2.4) < 1e-15);
        } else {
            for (std::size_t i = 0; i < 4; ++i) BOOST_TEST(std::abs(got[i] - wanted[i]) < 1e-15);
        }
    }
}

BOOST_AUTO_TEST_CASE(a_weight_multiplies_and_a_gradient_of_nothing_adds_nothing) {
    Pair p;
    std::vector<double> total = p.put(1, 2, 3, 4), g = p.put(3, 4), none = p.put(0, 0, 5, 5);
    double norm = 5, zero = 0;
    GradientMix::add(p.stream, p.see(g), 2, Normalise::shared, view(&norm, {1}), p.see(total));
    BOOST_TEST(std::abs(total[0] - 2.2) < 1e-15);
    BOOST_TEST(std::abs(total[1] - 3.6) < 1e-15);
    const std::vector<double> before = total;
    GradientMix::add(p.stream, p.see(none), 1, Normalise::shared, view(&zero, {1}), p.see(total));
    BOOST_TEST(total == before);
    std::vector<double> bad = p.put(INFINITY, 1);
    p.mix.norm(p.stream, p.see(bad), Normalise::shared, view(&norm, {1}));
    GradientMix::add(p.stream, p.see(bad), 1, Normalise::shared, view(&norm, {1}), p.see(total));
    BOOST_TEST(!std::isfinite(total[0]));
}

BOOST_AUTO_TEST_CASE(norms_and_inner_products_do_not_depend_on_the_data_ranks) {
    const auto self = make_self_communicator();
    Layouts alone(*self), shared(world());
    const auto one = [](std::int64_t i) { return uneven(i); };
    const auto two = [](std::int64_t i) { return uneven(i + 5) / (1 + static_cast<double>(i)); };
    auto a = alone.gradient(one), b = alone.gradient(two), part_a = shared.gradient(one), part_b = shared.gradient(two);
    for (const Normalise rule : {Normalise::shared, Normalise::all}) BOOST_TEST(shared.norm(part_a, rule) == alone.norm(a, rule));
    BOOST_TEST(shared.norm(part_a, Normalise::none) == alone.norm(a, Normalise::shared));
    const Tensor whole[] = {alone.see(a), alone.see(b)}, parts[] = {shared.see(part_a), shared.see(part_b)};
    const std::vector<double> gram = alone.mix.gram(alone.stream, whole), other = shared.mix.gram(shared.stream, parts);
    BOOST_TEST(gram == other);
    // Against plain sums over the shared tensors.
    long double square = 0, product = 0;
    for (const ParamEntry& entry : alone.layout.entries()) {
        if (entry.spec.name == "task/a/dense") continue;
        for (std::int64_t i = entry.offset; i < entry.offset + entry.local.count(); ++i) square += one(i) * one(i), product += one(i) * two(i);
    }
    BOOST_TEST(std::abs(gram[0] / static_cast<double>(square) - 1) < 1e-13);
    BOOST_TEST(std::abs(gram[1] - static_cast<double>(product)) < 1e-13 * std::sqrt(gram[0] * gram[3]));
    BOOST_TEST(gram[1] == gram[2]);
    BOOST_TEST(std::abs(alone.norm(a, Normalise::shared) - std::sqrt(gram[0])) < 1e-13 * std::sqrt(gram[0]));
    BOOST_TEST(alone.norm(a, Normalise::all) > alone.norm(a, Normalise::shared));
}

BOOST_AUTO_TEST_CASE(the_smallest_mixture_of_two_is_the_published_one) {
    Pair p;
    std::vector<double> a = p.put(3, 4), b = p.put(0, -10);
    const Tensor both[] = {p.see(a), p.see(b)};
    const std::vector<double> w = min_norm_weights(p.mix.gram(p.stream, both));
    BOOST_TEST(std::abs(w[1] - 0.3170731707) < 5e-11);  // ten digits given
    BOOST_TEST(std::abs(w[0] * 3 - 2.0487804878) < 5e-11);
    BOOST_TEST(std::abs(w[0] * 4 - w[1] * 10 + 0.4390243902) < 5e-11);
}

BOOST_AUTO_TEST_CASE(the_smallest_mixture_falls_along_every_gradient) {
    // Three axes of lengths 1, 2, 4: weights 1 / length^2, scaled to sum 1.
    const double axes[] = {1, 0, 0, 0, 4, 0, 0, 0, 16};
    const std::vector<double> w = min_norm_weights(axes);
    // The square is at most 1e-9 * 16 above the smallest, 16 / 21; a weight is then off by the root of that over its curvature.
    for (int i = 0; i < 3; ++i) BOOST_TEST(std::abs(w[static_cast<std::size_t>(i)] - std::ldexp(16. / 21, -2 * i)) < 2 * std::sqrt(1.6e-8));
    // One that lies within the others' reach gets nothing, and equals share evenly.
    const double same[] = {1, 1, 1, 1};
    BOOST_TEST((min_norm_weights(same) == std::vector<double>{0.5, 0.5}));
    const double longer[] = {1, 1, 1, 4};  // [1, 0] and [1, sqrt(3)]
    BOOST_TEST(std::abs(min_norm_weights(longer)[0] - 1) < 1e-9);
    const double one[] = {9};
    BOOST_TEST((min_norm_weights(one) == std::vector<double>{1}));
    const double ragged[] = {1, 2, 3}, infinite[] = {INFINITY};
    BOOST_CHECK_THROW(min_norm_weights(ragged), Error);
    BOOST_CHECK_THROW(min_norm_weights(infinite), Error);
}
