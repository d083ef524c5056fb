#pragma once
/// From the scores of a head to what it found in each example. Answers, metrics and submissions are all made from these.

#include "tasks/outputs.hpp"
#include "tasks/prepared.hpp"

#include <span>
#include <string>
#include <vector>

namespace rf::tasks {

/// Throws unless the outputs are of these sequences and of this kind of task.
void check_outputs(const Task& task, const Prepared& prepared, const Outputs& outputs);

/// The scores of an example: of its classes, of its choices, of its candidates; of a regression its one number.
std::span<const float> scores_of(const Prepared& prepared, const Outputs& outputs, std::int64_t example);
/// Place of the greatest; of equals the first.
std::int64_t greatest(std::span<const float> scores);
std::vector<double> softmax(std::span<const float> scores);
double sigmoid(double score);

/// multiple_choice with groups: for each example the choice it takes when those of a group must differ (assignment.hpp).
std::vector<std::int64_t> assigned_choices(const Prepared& prepared, const Outputs& outputs);

/// Characters of a text.
std::string cut(std::u32string_view text, Range characters);

/// What a span task answers: the best cell of the window in which it scores highest.
struct SpanAnswer {
    std::int64_t sequence = -1;  ///< the window; -1: none has an answer
    FoundCell cell;
    Range characters;
    std::string text;
    double probability = 0;
    bool none = false;  ///< every window says that the question has no answer
};
/// One an example. Where the task file has `no_answer`, windows that say so give no answer; elsewhere every window gives its best.
std::vector<SpanAnswer> span_answers(const Task& task, const Prepared& prepared, const Outputs& outputs);

/// A stretch of the text; of events too.
struct Entity {
    std::int32_t type = 0;
    Range characters;
    double score = 0;
};
struct Triple {
    std::int32_t type = 0;
    Range subject, object;
    double score = 0;  ///< the least of its four cells
};
/// Of each example, its windows joined, in the order of the text, none twice. Of the cells of one type at most as many as the window has
/// tokens are looked at, the best: a head that says yes to more has learned nothing yet, and pairs of pairs would be tried without end.
std::vector<std::vector<Entity>> entities(const Prepared& prepared, const Outputs& outputs);
/// A subject (type 0) and an object (type 1) of which some label says yes to the pair of first tokens and to the pair of last tokens.
std::vector<std::vector<Triple>> triples(const Task& task, const Prepared& prepared, const Outputs& outputs);

}  // namespace rf::tasks
