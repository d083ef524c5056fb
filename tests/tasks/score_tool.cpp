/// For tests/system/scorers_test.py, which computes the same figures independently.
///   score_tool cmrc                                     [[answer, [right, …]], …] on stdin -> [[exact match, f1], …]
///   score_tool task FILE DATA VOCAB SEED FOLDER         answers the task's test part partly right, by the seed, or with seed 0 as right as its
///                                                       cells are: writes answers.jsonl and the submission into FOLDER, prints the metrics

#include "io/files.hpp"
#include "io/json.hpp"
#include "tasks/answers.hpp"
#include "tasks/cmrc_score.hpp"
#include "tasks/metrics.hpp"
#include "tasks/submission.hpp"

#include <iostream>
#include <iterator>
#include <random>

namespace {

using namespace rf;
using namespace rf::tasks;

void score_pairs() {
    const std::string text{std::istreambuf_iterator<char>(std::cin), {}};
    const json::value pairs = json::parse(text, "stdin");
    boost::json::array out;
    for (const json::value& pair : pairs.as_array()) {
        const auto right = boost::json::value_to<std::vector<std::string>>(pair.at(1));
        const CmrcScore score = cmrc_score(std::string_view(pair.at(0).as_string()), right);
        out.push_back(boost::json::array{score.exact_match, score.f1});
    }
    std::cout << json::line(out) << '\n';
}

/// Outputs that a half-trained head might have.
class Guesser {
public:
    Guesser(const Task& task, const Prepared& prepared, unsigned seed) : task_(task), p_(prepared), knows_(seed == 0), random_(seed) {}

    Outputs run() {
        if (!info(task_.kind).has_cells) {
            out_.width = task_.kind == Kind::classify ? task_.label_count() : 1;
            for (std::int64_t e = 0; e < p_.examples(); ++e) guess_scores(e);
        } else {
            for (std::int64_t s = 0; s < p_.sequences(); ++s) task_.kind == Kind::span ? guess_span(s) : guess_cells(s);
        }
        return std::move(out_);
    }

private:
    double uniform() { return static_cast<double>(random_()) / 4294967296.0; }
    std::int32_t below(std::int32_t n) { return static_cast<std::int32_t>(uniform() * n); }

    void guess_scores(std::int64_t e) {
        const auto i = static_cast<std::size_t>(e);
        const std::int64_t n = (p_.example_begin[i + 1] - p_.example_begin[i]) * out_.width;
        // Grades and scores are known by themselves.
        const float* grades = p_.score.empty() || !knows_ ? nullptr : &p_.score[static_cast<std::size_t>(task_.kind == Kind::rank ? p_.example_begin[i] : e)];
        if (grades) {
            out_.logits.insert(out_.logits.end(), grades, grades + n);
            return;
        }
        for (std::int64_t k = 0; k < n; ++k) out_.logits.push_back(static_cast<float>(uniform() + (!p_.label.empty() && k == p_.label[i] ? (knows_ ? 2 : 0.4) : 0)));
    }
    FoundCell any_cell(std::int64_t s, std::int32_t type) {
        const Range r = p_.visible[static_cast<std::size_t>(s)];
        if (r.end <= r.begin) return {};
        const std::int32_t start = r.begin + below(r.end - r.begin);
        return {type, start, std::min(r.end - 1, start + below(12)), uniform()};
    }
    void guess_span(std::int64_t s) {
        FoundCell cell = any_cell(s, 0);
        for (const Cell& right : p_.cells_of(s))
            if (right.end > 0 && (knows_ || uniform() < 0.7)) cell = {0, right.start, right.end, (knows_ ? 1 : 0.5) + uniform()};
        out_.cells.push_back(cell), out_.cell_begin.push_back(static_cast<std::int64_t>(out_.cells.size()));
        const auto right = p_.cells_of(s);
        out_.probability.push_back(0.5), out_.no_answer.push_back(knows_ && !right.empty() && right.front().end == 0 ? 1 : 0);
    }
    void guess_cells(std::int64_t s) {
        for (const Cell& right : p_.cells_of(s))
            if ((knows_ || uniform() < 0.7)) out_.cells.push_back({right.type, right.start, right.end, uniform()});
        for (int more = knows_ ? 0 : below(3); more > 0; --more) out_.cells.push_back(any_cell(s, below(static_cast<std::int32_t>(task_.label_count()))));
        out_.cell_begin.push_back(static_cast<std::int64_t>(out_.cells.size()));
    }

    const Task& task_;
    const Prepared& p_;
    const bool knows_;
    std::mt19937 random_;
    Outputs out_;
};

void score_task(const std::string& file, const std::string& data, const std::string& vocab, unsigned seed, const std::filesystem::path& folder) {
    const Task task = read_tasks({file}, data).front();
    const Vocabulary vocabulary(vocab);
    const PreparedTask prepared = prepare(task, Tokenizer(vocabulary), {});
    const Prepared& test = prepared[Split::test];
    const Outputs outputs = Guesser(task, test, seed).run();
    std::string lines;
    for (const boost::json::object& answer : answers(task, test, outputs)) lines += json::line(answer) + "\n";
    write_submission(task, test, outputs, folder);
    std::filesystem::create_directories(folder);
    write_file_atomically(folder / "answers.jsonl", lines);
    boost::json::object out;
    for (const Metric& m : score(task, test, outputs)) out[m.name] = m.value;
    std::cout << json::line(out) << '\n';
}

}  // namespace

int main(int argc, char** argv) {
    try {
        const std::vector<std::string> words(argv + 1, argv + argc);
        if (words.size() == 1 && words[0] == "cmrc") score_pairs();
        else if (words.size() == 6 && words[0] == "task") score_task(words[1], words[2], words[3], static_cast<unsigned>(std::stoul(words[4])), words[5]);
        else fail_usage("score_tool cmrc, or score_tool task FILE DATA VOCAB SEED FOLDER");
    } catch (const std::exception& e) {
        std::cerr << e.what() << '\n';
        return 1;
    }
}
