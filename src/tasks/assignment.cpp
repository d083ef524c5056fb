#include "tasks/assignment.hpp"

#include "core/check.hpp"

#include <boost/graph/adjacency_list.hpp>
#include <boost/graph/successive_shortest_path_nonnegative_weights.hpp>

#include <algorithm>
#include <cmath>

namespace rf::tasks {

namespace {

using Traits = boost::adjacency_list_traits<boost::vecS, boost::vecS, boost::directedS>;
using EdgeProperties = boost::property<
    boost::edge_capacity_t, std::int64_t,
    boost::property<boost::edge_residual_capacity_t, std::int64_t,
                    boost::property<boost::edge_reverse_t, Traits::edge_descriptor, boost::property<boost::edge_weight_t, std::int64_t>>>>;
using Graph = boost::adjacency_list<boost::vecS, boost::vecS, boost::directedS, boost::no_property, EdgeProperties>;

/// An edge and the one that flow comes back on.
void connect(Graph& graph, std::size_t from, std::size_t to, std::int64_t capacity, std::int64_t cost) {
    const auto there = add_edge(from, to, graph).first, back = add_edge(to, from, graph).first;
    put(boost::edge_capacity, graph, there, capacity), put(boost::edge_capacity, graph, back, 0);
    put(boost::edge_weight, graph, there, cost), put(boost::edge_weight, graph, back, -cost);
    put(boost::edge_reverse, graph, there, back), put(boost::edge_reverse, graph, back, there);
}

}  // namespace

std::vector<std::int64_t> assign(std::span<const float> scores, std::int64_t choices) {
    RF_REQUIRE(choices > 0 && scores.size() % static_cast<std::size_t>(choices) == 0, scores.size(), " scores are no rows of ", choices);
    if (scores.empty()) return {};
    RF_REQUIRE(std::all_of(scores.begin(), scores.end(), [](float s) { return std::isfinite(s); }), "a score is not a finite number");
    const auto columns = static_cast<std::size_t>(choices), rows = scores.size() / columns;
    const auto [low, high] = std::minmax_element(scores.begin(), scores.end());
    const double best = *high, spread = *high > *low ? best - *low : 1;

    // source, rows, choices, sink.
    const std::size_t source = 0, sink = rows + columns + 1;
    Graph graph(sink + 1);
    for (std::size_t r = 0; r < rows; ++r) {
        connect(graph, source, 1 + r, 1, 0);
        for (std::size_t c = 0; c < columns; ++c)
            connect(graph, 1 + r, 1 + rows + c, 1, std::llround((best - scores[r * columns + c]) / spread * 0x1p40));
    }
    for (std::size_t c = 0; c < columns; ++c) connect(graph, 1 + rows + c, sink, static_cast<std::int64_t>((rows + columns - 1) / columns), 0);
    boost::successive_shortest_path_nonnegative_weights(graph, source, sink);

    std::vector<std::int64_t> out(rows, -1);
    for (std::size_t r = 0; r < rows; ++r)
        for (auto [edge, end] = out_edges(1 + r, graph); edge != end; ++edge)
            if (get(boost::edge_capacity, graph, *edge) == 1 && get(boost::edge_residual_capacity, graph, *edge) == 0)
                out[r] = static_cast<std::int64_t>(target(*edge, graph) - 1 - rows);
    return out;
}

}  // namespace rf::tasks
