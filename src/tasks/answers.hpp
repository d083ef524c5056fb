#pragma once
/// What a user reads of a task's outputs.

#include "tasks/outputs.hpp"
#include "tasks/prepared.hpp"

#include <boost/json.hpp>

#include <vector>

namespace rf::tasks {

/// One object an example, in their order, each a line of JSON. Beside "id":
///   classify         "label", its "probability", the "probabilities" of all classes in the table's order
///   regress          "score"
///   multiple_choice  "choice" from 0, its "probability", "probabilities" of all; where the choices of a group must differ, "assigned"
///   rank             "scores" of the candidates, "best" of them from 0
///   span             "answer", "probability", "start" and "end" (exclusive), characters of the text; where a question may have none, "no_answer"
///   entities, events "entities": a list of "type", "text", "start", "end" (exclusive), "probability"
///   relations        "relations": a list of "type", "subject" and "object" ("text", "start", "end"), "probability"
std::vector<boost::json::object> answers(const Task& task, const Prepared& prepared, const Outputs& outputs);

}  // namespace rf::tasks
