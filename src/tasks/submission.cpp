#include "tasks/submission.hpp"

#include "io/files.hpp"
#include "io/json.hpp"
#include "tasks/decode.hpp"
#include "text/unicode.hpp"

#include <algorithm>
#include <charconv>
#include <set>

namespace rf::tasks {

using boost::json::array;
using boost::json::object;
using json::value;

namespace {

/// A number where the text is one in plain form: "007" and "" are none.
value id_of(std::string_view id) {
    std::int64_t number = 0;
    const auto [end, error] = std::from_chars(id.data(), id.data() + id.size(), number);
    if (error == std::errc{} && end == id.data() + id.size() && std::to_string(number) == id) return number;
    return boost::json::string(id);
}

/// What each example's line or key says.
std::vector<value> labels(const Task& task, const Prepared& test, const Outputs& outputs) {
    std::vector<value> out;
    for (std::int64_t e = 0; e < test.examples(); ++e) {
        const std::int64_t best = greatest(scores_of(test, outputs, e));
        out.emplace_back(task.kind == Kind::classify ? task.labels[static_cast<std::size_t>(best)] : std::to_string(best));
    }
    return out;
}

std::vector<value> choices(const Prepared& test, const Outputs& outputs) {
    std::vector<value> out;
    if (!test.group.empty()) {
        for (const std::int64_t choice : assigned_choices(test, outputs)) out.emplace_back(choice);
        return out;
    }
    for (std::int64_t e = 0; e < test.examples(); ++e) out.emplace_back(greatest(scores_of(test, outputs, e)));
    return out;
}

std::vector<value> answer_texts(const Task& task, const Prepared& test, const Outputs& outputs) {
    std::vector<value> out;
    for (const SpanAnswer& answer : span_answers(task, test, outputs)) out.emplace_back(answer.text);
    return out;
}

/// Types, then texts, in the order in which they first stand in the text.
std::vector<value> entity_tables(const Task& task, const Prepared& test, const Outputs& outputs) {
    std::vector<value> out;
    const std::vector<std::vector<Entity>> found = entities(test, outputs);
    for (std::int64_t e = 0; e < test.examples(); ++e) {
        const std::u32string text = decode_utf8(test.text[e]);
        object table;
        for (const Entity& x : found[static_cast<std::size_t>(e)]) {
            value& type = table[task.labels[static_cast<std::size_t>(x.type)]];
            if (type.is_null()) type = object();
            value& places = type.as_object()[cut(text, x.characters)];
            if (places.is_null()) places = array();
            places.as_array().push_back(array{x.characters.begin, x.characters.end - 1});
        }
        out.emplace_back(std::move(table));
    }
    return out;
}

std::vector<value> findings(const Task& task, const Prepared& test, const Outputs& outputs) {
    const std::string& form = task.file.submission.form;
    if (form == "labels") return labels(task, test, outputs);
    if (form == "choices") return choices(test, outputs);
    if (form == "answers") return answer_texts(task, test, outputs);
    return entity_tables(task, test, outputs);
}

}  // namespace

void write_submission(const Task& task, const Prepared& test, const Outputs& outputs, const std::filesystem::path& folder) {
    const Submission& s = task.file.submission;
    if (s.files.empty()) return;
    check_outputs(task, test, outputs);
    const std::vector<value> found = findings(task, test, outputs);
    const bool lines = s.form == "labels" || s.form == "entities";
    std::vector<std::string> content(s.files.size());
    std::vector<std::set<std::string_view>> seen(s.files.size());
    for (std::int64_t e = 0; e < test.examples(); ++e) {
        const auto source = static_cast<std::size_t>(test.source[static_cast<std::size_t>(e)]);
        RF_REQUIRE(source < s.files.size(), "example \"", test.id[e], "\" is of source ", source, " of ", s.files.size());
        const value& item = found[static_cast<std::size_t>(e)];
        if (!seen[source].insert(test.id[e]).second)
            fail_usage(task.place, ": two examples of test have the id \"", test.id[e], "\", which ", s.files[source], " tells them apart by");
        std::string& text = content[source];
        if (lines) text += json::line(object{{"id", id_of(test.id[e])}, {"label", item}}) + "\n";
        else text += (text.empty() ? "{\n    " : ",\n    ") + json::line(boost::json::string(test.id[e])) + ": " + json::line(item);
    }
    for (std::size_t i = 0; i < content.size(); ++i)
        if (content[i].empty()) fail_usage(task.place.at("submission"), ": test has no example for ", s.files[i]);
    std::filesystem::create_directories(folder);
    for (std::size_t i = 0; i < content.size(); ++i) write_file_atomically(folder / s.files[i], lines ? content[i] : content[i] + "\n}\n");
}

}  // namespace rf::tasks
