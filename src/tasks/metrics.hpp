#pragma once
/// Scores of outputs against what the data say.

#include "tasks/outputs.hpp"
#include "tasks/prepared.hpp"

#include <set>
#include <span>
#include <string>
#include <vector>

namespace rf::tasks {

struct Metric {
    std::string name;
    double value = 0;
};

/// The task's own metric, then the others of its kind (`kinds()`), last "examples", the number that were scored: those whose answer is known.
/// Where none is, the others are NaN. All but the correlations lie between 0 and 1.
///
///   accuracy           classify, multiple_choice: the greatest score is the right one's. rank: the best candidate's score is above all others
///   assigned_accuracy  the same when the choices of a group must differ (tasks with `group` only)
///   spearman, pearson  correlation of score and grade (of their ranks, equals sharing the mean); 0 where one of them does not vary
///   exact_match, f1    as CMRC 2018 scores answers (cmrc_score.hpp); of a question without an answer both are 1 for saying so, else 0
///   span_accuracy      the answer's tokens are those to learn in its window: the dev figure of the published RoFormerV2 code
///   micro_f1           precision and recall of the sets of (type, start, end), of relations (type, subject, object) as texts, over all examples
///   macro_f1           the mean of the types' F1 (classify: of the classes'); a type neither in the data nor answered does not count
///   ndcg               gain 2^grade - 1, discount log2(1 + rank), over the whole list
///   mrr                1 / rank of the first candidate of the best grade
///
/// An F1 of nothing right, nothing found is 0. Lists whose grades are all equal ask for no order and are not scored. Of candidates of equal
/// scores the lower grade is ranked first, so that scores that tell nothing earn nothing.
std::vector<Metric> score(const Task& task, const Prepared& prepared, const Outputs& outputs);

/// What F1 is made of, for one type.
struct Matches {
    std::int64_t right = 0, found = 0, both = 0;
    double f1() const { return right + found > 0 ? 2 * static_cast<double>(both) / static_cast<double>(right + found) : 0; }
};
double micro_f1(std::span<const Matches> types);
double macro_f1(std::span<const Matches> types);

double pearson(std::span<const double> a, std::span<const double> b);
double spearman(std::span<const double> a, std::span<const double> b);

/// Of one list with different grades.
struct RankScore {
    double ndcg = 0, mrr = 0, accuracy = 0;
};
RankScore rank_score(std::span<const float> scores, std::span<const float> grades);

}  // namespace rf::tasks
