/// roformer multitask --check: reads task files and all their rows, and reports; trains nothing.

#include "app/command.hpp"
#include "core/log.hpp"
#include "core/parallel.hpp"
#include "tasks/lane_batch.hpp"
#include "tasks/report.hpp"
#include "tasks/rows_of.hpp"

#include <boost/describe.hpp>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <iostream>

namespace rf::app {

namespace {

struct CheckInput {
    std::string data;  ///< folder that the paths in task files start from; empty: the folder of each task file
    std::string vocab;
    std::string cache;  ///< folder for the prepared tasks; empty: nothing is kept
};
BOOST_DESCRIBE_STRUCT(CheckInput, (), (data, vocab, cache))

/// Numbers of the tasks, those with the most bytes to read first, so that no thread is left with a long one at the end.
std::vector<std::size_t> largest_first(const std::vector<tasks::Task>& all) {
    std::vector<std::uintmax_t> bytes(all.size());
    for (std::size_t i = 0; i < all.size(); ++i)
        for (const tasks::Split split : tasks::splits)
            for (const tasks::Source& source : all[i].source(split))
                for (const std::string& file : source.files) bytes[i] += std::filesystem::file_size(file) * (all[i].file.max_length > 256 ? 4 : 1);
    std::vector<std::size_t> order(all.size());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return bytes[a] > bytes[b]; });
    return order;
}

}  // namespace

int run_multitask_check(const Invocation& invocation, World& world) {
    if (world.communicator().size() > 1) fail_usage("multitask --check runs on one rank");
    if (invocation.positional.empty())
        fail_usage("multitask --check needs task files: multitask --check inputs/tasks/*.json --set data=FOLDER --set vocab=FILE");
    CheckInput input;
    json::value given = boost::json::object{};
    for (const std::string& assignment : invocation.assignments) json::set(given, assignment);
    const json::Place place{"--set", ""};
    json::read(given, input, place);
    if (input.vocab.empty()) fail_usage(place.at("vocab"), ": expected a vocab.txt");

    const Vocabulary vocabulary(input.vocab);
    const Tokenizer tokenizer(vocabulary);
    const std::vector<tasks::Task> all = tasks::read_tasks(invocation.positional, input.data);
    const tasks::Guard guard(tasks::guards_beside(invocation.positional, input.data), tokenizer);
    const std::vector<std::size_t> order = largest_first(all);
    std::vector<std::string> reports(all.size());
    std::atomic<std::int64_t> rows{0}, sequences{0}, tokens{0};
    std::atomic<std::size_t> done{0};
    for_each_parallel(all.size(), [&](std::size_t i) {
        const tasks::Task& task = all[order[i]];
        const tasks::PreparedTask prepared =
            input.cache.empty() ? tasks::prepare(task, tokenizer, guard) : tasks::prepare(task, tokenizer, guard, input.cache);
        tasks::choices_of(task, prepared);
        std::ostringstream out;
        tasks::print_report(task, prepared, out);
        reports[order[i]] = out.str();
        for (const tasks::Counts& c : prepared.counts) rows += c.kept, sequences += c.sequences, tokens += c.tokens;
        log::live(message(++done, " of ", all.size(), " tasks read"));
    });
    for (const std::string& report : reports) std::cout << report;
    std::cout << all.size() << " tasks, " << rows << " rows, " << sequences << " sequences, " << tokens << " tokens; " << guard.size()
              << " texts of guarded dev and test parts\n";
    return 0;
}

}  // namespace rf::app
