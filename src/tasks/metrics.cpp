#include "tasks/metrics.hpp"

#include "tasks/cmrc_score.hpp"
#include "tasks/decode.hpp"
#include "text/unicode.hpp"

#include <boost/json.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <tuple>

namespace rf::tasks {

namespace {

/// Metrics by name, before they are put in order.
using Values = std::map<std::string, double>;

template <class T>
const T& at(const std::vector<T>& all, std::int64_t i) {
    return all[static_cast<std::size_t>(i)];
}

double mean(double sum, std::int64_t n) { return n > 0 ? sum / static_cast<double>(n) : std::numeric_limits<double>::quiet_NaN(); }

/// How often `answer` names the label of an example, of those whose label is known.
double accuracy(const Prepared& p, const std::vector<std::int64_t>& answer) {
    std::int64_t known = 0, right = 0;
    for (std::int64_t e = 0; e < p.examples(); ++e) {
        if (at(p.label, e) < 0) continue;
        ++known;
        right += at(answer, e) == at(p.label, e) ? 1 : 0;
    }
    return mean(static_cast<double>(right), known);
}

std::int64_t known_labels(const Prepared& p) {
    return std::count_if(p.label.begin(), p.label.end(), [](std::int32_t label) { return label >= 0; });
}

std::vector<std::int64_t> greatest_of_each(const Prepared& p, const Outputs& outputs) {
    std::vector<std::int64_t> out;
    for (std::int64_t e = 0; e < p.examples(); ++e) out.push_back(greatest(scores_of(p, outputs, e)));
    return out;
}

std::int64_t score_classes(const Task& task, const Prepared& p, const Outputs& outputs, Values& out) {
    const std::vector<std::int64_t> answer = greatest_of_each(p, outputs);
    std::vector<Matches> classes(task.labels.size());
    for (std::int64_t e = 0; e < p.examples(); ++e) {
        if (at(p.label, e) < 0) continue;
        const auto right = static_cast<std::size_t>(at(p.label, e)), found = static_cast<std::size_t>(at(answer, e));
        ++classes[right].right, ++classes[found].found;
        if (right == found) ++classes[right].both;
    }
    out["accuracy"] = accuracy(p, answer), out["macro_f1"] = macro_f1(classes);
    return known_labels(p);
}

std::int64_t score_choices(const Prepared& p, const Outputs& outputs, Values& out) {
    out["accuracy"] = accuracy(p, greatest_of_each(p, outputs));
    if (!p.group.empty()) out["assigned_accuracy"] = accuracy(p, assigned_choices(p, outputs));
    return known_labels(p);
}

std::int64_t score_regression(const Prepared& p, const Outputs& outputs, Values& out) {
    std::vector<double> found, right;
    for (std::int64_t e = 0; e < p.examples(); ++e)
        if (!std::isnan(at(p.score, e))) found.push_back(scores_of(p, outputs, e)[0]), right.push_back(at(p.score, e));
    out["pearson"] = pearson(found, right), out["spearman"] = spearman(found, right);
    return static_cast<std::int64_t>(found.size());
}

std::int64_t score_lists(const Prepared& p, const Outputs& outputs, Values& out) {
    RankScore sum;
    std::int64_t lists = 0;
    for (std::int64_t e = 0; e < p.examples(); ++e) {
        const std::span<const float> scores = scores_of(p, outputs, e);
        const auto grades = std::span(p.score).subspan(static_cast<std::size_t>(at(p.example_begin, e)), scores.size());
        const auto [low, high] = std::minmax_element(grades.begin(), grades.end());
        if (std::any_of(grades.begin(), grades.end(), [](float g) { return std::isnan(g); }) || *low == *high) continue;
        if (*low < 0) fail_usage("list \"", p.id[e], "\": a grade of ", *low, "; ranks are scored by grades from 0");
        const RankScore one = rank_score(scores, grades);
        sum.ndcg += one.ndcg, sum.mrr += one.mrr, sum.accuracy += one.accuracy;
        ++lists;
    }
    out["ndcg"] = mean(sum.ndcg, lists), out["mrr"] = mean(sum.mrr, lists), out["accuracy"] = mean(sum.accuracy, lists);
    return lists;
}

/// Whether a window's cell is the one to learn there, or no window has one and none is found.
bool is_right_span(const Prepared& p, std::int64_t example, const SpanAnswer& answer, bool none) {
    if (none || answer.none) return none && answer.none;
    if (answer.sequence < 0) return false;
    const auto cells = p.cells_of(answer.sequence);
    RF_REQUIRE(!cells.empty(), "example ", p.id[example], " has an answer and no cell");
    return cells.front().end > 0 && cells.front() == Cell{0, answer.cell.start, answer.cell.end};
}

std::int64_t score_spans(const Task& task, const Prepared& p, const Outputs& outputs, Values& out) {
    const std::vector<SpanAnswer> answers = span_answers(task, p, outputs);
    CmrcScore sum;
    double right = 0;
    std::int64_t known = 0;
    for (std::int64_t e = 0; e < p.examples(); ++e) {
        if (p.gold[e].empty()) continue;
        const boost::json::value gold = boost::json::parse({p.gold[e].data(), p.gold[e].size()});
        const bool none = gold.at("none").as_bool();
        const SpanAnswer& answer = at(answers, e);
        const double same = none && answer.none ? 1 : 0;
        const CmrcScore one = none || answer.none ? CmrcScore{same, same}
                                                  : cmrc_score(answer.text, boost::json::value_to<std::vector<std::string>>(gold.at("answers")));
        sum.exact_match += one.exact_match, sum.f1 += one.f1;
        right += is_right_span(p, e, answer, none) ? 1 : 0;
        ++known;
    }
    out["exact_match"] = mean(sum.exact_match, known), out["f1"] = mean(sum.f1, known), out["span_accuracy"] = mean(right, known);
    return known;
}

/// Adds the findings of an example to the counts of their types; the first member of a finding is its type.
template <class T>
void count(const std::set<T>& right, const std::set<T>& found, std::vector<Matches>& types) {
    for (const T& x : right) ++types[static_cast<std::size_t>(std::get<0>(x))].right;
    for (const T& x : found) {
        Matches& type = types[static_cast<std::size_t>(std::get<0>(x))];
        ++type.found;
        if (right.contains(x)) ++type.both;
    }
}

/// Calls act(example, its marks) for every example whose marks are known; returns how many.
template <class Act>
std::int64_t for_each_gold(const Prepared& p, const Act& act) {
    std::int64_t known = 0;
    for (std::int64_t e = 0; e < p.examples(); ++e) {
        if (p.gold[e].empty()) continue;
        act(e, boost::json::parse({p.gold[e].data(), p.gold[e].size()}).as_array());
        ++known;
    }
    return known;
}

std::int64_t type_of(const Task& task, const boost::json::value& mark) {
    const std::int64_t type = task.find_label(std::string_view(mark.at("type").as_string()));
    RF_REQUIRE(type >= 0, "task ", task.file.name, " has no type ", std::string_view(mark.at("type").as_string()));
    return type;
}

std::int64_t score_entities(const Task& task, const Prepared& p, const Outputs& outputs, Values& out) {
    using Mark = std::tuple<std::int64_t, std::int64_t, std::int64_t>;
    const std::vector<std::vector<Entity>> answers = entities(p, outputs);
    std::vector<Matches> types(task.labels.size());
    const std::int64_t known = for_each_gold(p, [&](std::int64_t e, const boost::json::array& marks) {
        std::set<Mark> right, found;
        for (const auto& mark : marks) right.emplace(type_of(task, mark), mark.at("start").as_int64(), mark.at("end").as_int64());
        for (const Entity& x : at(answers, e)) found.emplace(x.type, x.characters.begin, x.characters.end);
        count(right, found, types);
    });
    out["micro_f1"] = micro_f1(types), out["macro_f1"] = macro_f1(types);
    return known;
}

std::int64_t score_triples(const Task& task, const Prepared& p, const Outputs& outputs, Values& out) {
    using Mark = std::tuple<std::int64_t, std::string, std::string>;
    const std::vector<std::vector<Triple>> answers = triples(task, p, outputs);
    std::vector<Matches> types(task.labels.size());
    const std::int64_t known = for_each_gold(p, [&](std::int64_t e, const boost::json::array& marks) {
        std::set<Mark> right, found;
        const std::u32string text = decode_utf8(p.text[e]);
        for (const auto& mark : marks)
            right.emplace(type_of(task, mark), std::string(mark.at("subject").as_string()), std::string(mark.at("object").as_string()));
        for (const Triple& x : at(answers, e)) found.emplace(x.type, cut(text, x.subject), cut(text, x.object));
        count(right, found, types);
    });
    out["micro_f1"] = micro_f1(types), out["macro_f1"] = macro_f1(types);
    return known;
}

/// Places in order from 1; equals share the mean of theirs.
std::vector<double> ranks(std::span<const double> list) {
    std::vector<std::size_t> order(list.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return list[a] < list[b]; });
    std::vector<double> out(list.size());
    for (std::size_t from = 0, to = 0; from < order.size(); from = to) {
        while (to < order.size() && list[order[to]] == list[order[from]]) ++to;
        for (std::size_t i = from; i < to; ++i) out[order[i]] = static_cast<double>(from + 1 + to) / 2;
    }
    return out;
}

}  // namespace

double micro_f1(std::span<const Matches> types) {
    Matches sum;
    for (const Matches& t : types) sum.right += t.right, sum.found += t.found, sum.both += t.both;
    return sum.f1();
}

double macro_f1(std::span<const Matches> types) {
    double sum = 0;
    std::int64_t n = 0;
    for (const Matches& t : types)
        if (t.right + t.found > 0) sum += t.f1(), ++n;
    return n > 0 ? sum / static_cast<double>(n) : 0;
}

double pearson(std::span<const double> a, std::span<const double> b) {
    const auto n = static_cast<double>(a.size());
    if (a.empty()) return std::numeric_limits<double>::quiet_NaN();
    const double mean_a = std::accumulate(a.begin(), a.end(), 0.0) / n, mean_b = std::accumulate(b.begin(), b.end(), 0.0) / n;
    double ab = 0, aa = 0, bb = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
        const double x = a[i] - mean_a, y = b[i] - mean_b;
        ab += x * y, aa += x * x, bb += y * y;
    }
    return aa > 0 && bb > 0 ? ab / std::sqrt(aa * bb) : 0;
}

double spearman(std::span<const double> a, std::span<const double> b) { return pearson(ranks(a), ranks(b)); }

RankScore rank_score(std::span<const float> scores, std::span<const float> grades) {
    std::vector<std::size_t> order(scores.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return std::pair(scores[a], grades[b]) > std::pair(scores[b], grades[a]); });
    std::vector<float> ideal(grades.begin(), grades.end());
    std::sort(ideal.begin(), ideal.end(), std::greater<>());
    RankScore out;
    double best = 0;
    for (std::size_t i = 0; i < order.size(); ++i) {
        const double discount = std::log2(static_cast<double>(i) + 2);
        out.ndcg += (std::exp2(grades[order[i]]) - 1) / discount, best += (std::exp2(ideal[i]) - 1) / discount;
        if (out.mrr == 0 && grades[order[i]] == ideal[0]) out.mrr = 1 / static_cast<double>(i + 1);
    }
    out.ndcg /= best;
    out.accuracy = out.mrr == 1 ? 1 : 0;
    return out;
}

std::vector<Metric> score(const Task& task, const Prepared& prepared, const Outputs& outputs) {
    check_outputs(task, prepared, outputs);
    Values values;
    const std::int64_t known = [&] {
        switch (task.kind) {
            case Kind::classify: return score_classes(task, prepared, outputs, values);
            case Kind::regress: return score_regression(prepared, outputs, values);
            case Kind::multiple_choice: return score_choices(prepared, outputs, values);
            case Kind::span: return score_spans(task, prepared, outputs, values);
            case Kind::rank: return score_lists(prepared, outputs, values);
            case Kind::relations: return score_triples(task, prepared, outputs, values);
            default: return score_entities(task, prepared, outputs, values);
        }
    }();
    std::vector<Metric> out;
    const auto put = [&](const std::string& name) {
        if (const auto found = values.find(name); found != values.end())
            out.push_back({name, known > 0 ? found->second : std::numeric_limits<double>::quiet_NaN()});
    };
    put(task.file.metric);
    for (const std::string& name : info(task.kind).metrics)
        if (name != task.file.metric) put(name);
    out.push_back({"examples", static_cast<double>(known)});
    return out;
}

}  // namespace rf::tasks
