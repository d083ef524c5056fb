#include "tasks/answers.hpp"

#include "tasks/decode.hpp"
#include "text/unicode.hpp"

namespace rf::tasks {

using boost::json::array;
using boost::json::object;

namespace {

array numbers(std::span<const double> list) { return array(list.begin(), list.end()); }

void classify(const Task& task, std::span<const float> scores, object& out) {
    const std::vector<double> p = softmax(scores);
    const auto best = static_cast<std::size_t>(greatest(scores));
    out["label"] = task.labels[best], out["probability"] = p[best], out["probabilities"] = numbers(p);
}

void choose(std::span<const float> scores, object& out) {
    const std::vector<double> p = softmax(scores);
    const std::int64_t best = greatest(scores);
    out["choice"] = best, out["probability"] = p[static_cast<std::size_t>(best)], out["probabilities"] = numbers(p);
}

void rank(std::span<const float> scores, object& out) {
    out["scores"] = array(scores.begin(), scores.end());
    out["best"] = greatest(scores);
}

void answer(const Task& task, const SpanAnswer& found, object& out) {
    out["answer"] = found.text;
    if (!task.file.no_answer.empty()) out["no_answer"] = found.none;
    if (found.none) return;
    out["probability"] = found.probability, out["start"] = found.characters.begin, out["end"] = found.characters.end;
}

object stretch(std::u32string_view text, Range characters) { return {{"text", cut(text, characters)}, {"start", characters.begin}, {"end", characters.end}}; }

array list(const Task& task, std::u32string_view text, const std::vector<Entity>& found) {
    array out;
    for (const Entity& e : found) {
        object item{{"type", task.labels[static_cast<std::size_t>(e.type)]}};
        for (const auto& [name, value] : stretch(text, e.characters)) item[name] = value;
        item["probability"] = sigmoid(e.score);
        out.push_back(std::move(item));
    }
    return out;
}

array list(const Task& task, std::u32string_view text, const std::vector<Triple>& found) {
    array out;
    for (const Triple& t : found)
        out.push_back(object{{"type", task.labels[static_cast<std::size_t>(t.type)]},
                             {"subject", stretch(text, t.subject)},
                             {"object", stretch(text, t.object)},
                             {"probability", sigmoid(t.score)}});
    return out;
}

}  // namespace

std::vector<object> answers(const Task& task, const Prepared& prepared, const Outputs& outputs) {
    check_outputs(task, prepared, outputs);
    std::vector<object> out;
    for (std::int64_t e = 0; e < prepared.examples(); ++e) out.push_back({{"id", prepared.id[e]}});
    const auto fill = [&](const auto& act) {
        for (std::int64_t e = 0; e < prepared.examples(); ++e) act(e, out[static_cast<std::size_t>(e)]);
    };
    const auto scores = [&](std::int64_t e) { return scores_of(prepared, outputs, e); };
    const auto in = [](const auto& all, std::int64_t e) -> const auto& { return all[static_cast<std::size_t>(e)]; };
    switch (task.kind) {
        case Kind::mlm: break;
        case Kind::classify: fill([&](auto e, object& o) { classify(task, scores(e), o); }); break;
        case Kind::regress: fill([&](auto e, object& o) { o["score"] = scores(e)[0]; }); break;
        case Kind::rank: fill([&](auto e, object& o) { rank(scores(e), o); }); break;
        case Kind::multiple_choice: {
            fill([&](auto e, object& o) { choose(scores(e), o); });
            if (prepared.group.empty()) break;
            const auto assigned = assigned_choices(prepared, outputs);
            fill([&](auto e, object& o) { o["assigned"] = in(assigned, e); });
            break;
        }
        case Kind::span: {
            const auto found = span_answers(task, prepared, outputs);
            fill([&](auto e, object& o) { answer(task, in(found, e), o); });
            break;
        }
        case Kind::entities:
        case Kind::events: {
            const auto found = entities(prepared, outputs);
            fill([&](auto e, object& o) { o["entities"] = list(task, decode_utf8(prepared.text[e]), in(found, e)); });
            break;
        }
        case Kind::relations: {
            const auto found = triples(task, prepared, outputs);
            fill([&](auto e, object& o) { o["relations"] = list(task, decode_utf8(prepared.text[e]), in(found, e)); });
            break;
        }
    }
    return out;
}

}  // namespace rf::tasks
