#include "tasks/heads.hpp"

#include "tasks/dense_head.hpp"
#include "tasks/pair_head.hpp"

namespace rf::tasks {

namespace {

/// Types of a token-pair head that run from start to end stand first.
std::int64_t ordered_types(const Task& task) {
    std::int64_t ordered = 0;
    while (ordered < task.cell_types() && task.cell_is_ordered(ordered)) ++ordered;
    return ordered;
}

}  // namespace

std::unique_ptr<TaskHead> make_head(const ModelConfig& model, const Task& task, std::int64_t choices, ParamLayout& layout) {
    const std::string& name = task.file.name;
    const auto dense = [&](DenseLoss loss, std::int64_t outputs) {
        return std::make_unique<DenseHead>(model, DenseHead::Spec{.task = name, .loss = loss, .outputs = outputs}, layout);
    };
    const auto pairs = [&](TokenPairKind kind) {
        const bool one = kind == TokenPairKind::softmax;
        return std::make_unique<PairHead>(model, PairHead::Spec{.task = name, .types = task.cell_types(), .ordered = ordered_types(task), .size = task.file.head.size,
                                                                .efficient = !one, .kind = kind, .first_is_visible = one}, layout);
    };
    switch (task.kind) {
        case Kind::classify: return dense(DenseLoss::classes, task.label_count());
        case Kind::regress: return dense(DenseLoss::square, 1);
        case Kind::multiple_choice: return dense(DenseLoss::choices, choices);
        case Kind::rank: return dense(task.file.grades.empty() ? DenseLoss::pairwise : DenseLoss::listwise, 1);
        case Kind::span: return pairs(TokenPairKind::softmax);
        case Kind::entities:
        case Kind::relations:
        case Kind::events: return pairs(TokenPairKind::multilabel);
        case Kind::mlm: break;
    }
    fail("task ", name, ": masked language modelling has no head of its own");
}

}  // namespace rf::tasks
