#include "train/task_set.hpp"

#include "core/log.hpp"
#include "core/parallel.hpp"
#include "data/corpus.hpp"
#include "tasks/rows_of.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>

namespace rf {

namespace {

/// Tokens worked on at once in an evaluation.
constexpr std::int64_t group_tokens = 4096;
constexpr std::uint64_t limit_seed = 0x6c696d69746564;  // "limited"

std::vector<TaskData> prepare_all(const TaskSources& sources, const Tokenizer& tokenizer) {
    const std::vector<tasks::Task> all = tasks::read_tasks(sources.files, sources.data);
    const tasks::Guard guard(tasks::guards_beside(sources.files, sources.data), tokenizer);
    std::vector<TaskData> out(all.size());
    std::atomic<std::size_t> done{0};
    for_each_parallel(all.size(), [&](std::size_t i) {
        out[i].task = all[i];
        if (all[i].kind == tasks::Kind::mlm) return;
        out[i].prepared = sources.cache.empty() ? tasks::prepare(out[i].task, tokenizer, guard) : tasks::prepare(out[i].task, tokenizer, guard, sources.cache);
        out[i].choices = tasks::choices_of(out[i].task, out[i].prepared);
        log::live(message("prepared ", ++done, " of ", all.size(), " tasks"));
    });
    return out;
}

void draw(tasks::Prepared& part, std::int64_t limit) {
    const std::int64_t n = part.examples();
    if (limit <= 0 || limit >= n) return;
    std::vector<std::int64_t> drawn;
    for (std::int64_t i = 0; i < limit; ++i) drawn.push_back(permute(i, n, limit_seed, 0));
    std::sort(drawn.begin(), drawn.end());
    part = tasks::subset(part, drawn);
}

/// First examples of groups, and the number of all. Choices of one group are of one number.
std::vector<std::int64_t> groups_of(const tasks::Task& task, const tasks::Prepared& prepared) {
    std::vector<std::int64_t> first{0};
    const auto token_of = [&](std::int64_t example) { return prepared.sequence_begin[static_cast<std::size_t>(prepared.example_begin[static_cast<std::size_t>(example)])]; };
    const auto sequences = [&](std::int64_t example) { return prepared.example_begin[static_cast<std::size_t>(example) + 1] - prepared.example_begin[static_cast<std::size_t>(example)]; };
    for (std::int64_t e = 1; e < prepared.examples(); ++e)
        if (token_of(e + 1) - token_of(first.back()) > group_tokens || (task.kind == tasks::Kind::multiple_choice && sequences(e) != sequences(e - 1))) first.push_back(e);
    if (prepared.examples() > 0) first.push_back(prepared.examples());
    return first;
}

/// What every rank made, one after the other, on every rank.
template <class T>
void share(Communicator& data, std::vector<T>& list) {
    std::vector<T> all;
    for (int r = 0; r < data.size(); ++r) {
        std::string bytes(reinterpret_cast<const char*>(list.data()), r == data.rank() ? list.size() * sizeof(T) : 0);
        data.broadcast(bytes, r);
        const auto* items = reinterpret_cast<const T*>(bytes.data());
        all.insert(all.end(), items, items + bytes.size() / sizeof(T));
    }
    list = std::move(all);
}

void share(Communicator& data, tasks::Outputs& outputs) {
    if (data.size() == 1) return;
    std::vector<std::int64_t> cells;  // of each sequence
    for (std::size_t i = 1; i < outputs.cell_begin.size(); ++i) cells.push_back(outputs.cell_begin[i] - outputs.cell_begin[i - 1]);
    outputs.width = static_cast<std::int64_t>(data.max(static_cast<double>(outputs.width)));
    share(data, outputs.logits), share(data, outputs.cells), share(data, cells), share(data, outputs.probability), share(data, outputs.no_answer);
    outputs.cell_begin.assign(1, 0);
    for (const std::int64_t n : cells) outputs.cell_begin.push_back(outputs.cell_begin.back() + n);
}

}  // namespace

std::vector<TaskData> load_tasks(const TaskSources& sources, const Tokenizer& tokenizer, Communicator& world) {
    std::vector<TaskData> all;
    std::string trouble;
    if (world.rank() == 0) {
        try {
            all = prepare_all(sources, tokenizer);
        } catch (const std::exception& e) {
            trouble = e.what();
        }
    }
    world.broadcast(trouble, 0);
    if (!trouble.empty()) throw UsageError(trouble);
    if (world.rank() != 0) all = prepare_all(sources, tokenizer);
    for (TaskData& one : all) {
        draw(one.prepared.part[0], sources.limit.train);
        draw(one.prepared.part[1], sources.limit.dev);
        draw(one.prepared.part[2], sources.limit.test);
    }
    return all;
}

std::vector<EncoderModel::Head> heads_of(const std::vector<TaskData>& all) {
    std::vector<EncoderModel::Head> heads;
    for (const TaskData& one : all)
        if (one.task.kind != tasks::Kind::mlm) heads.push_back({one.task, one.choices});
    return heads;
}

Judged judge(EncoderModel& model, ParallelGrid& grid, const tasks::Task& task, const tasks::Prepared& prepared, int head, double alpha) {
    const std::vector<std::int64_t> first = groups_of(task, prepared);
    const std::int64_t groups = static_cast<std::int64_t>(first.size()) - 1;
    const tasks::LaneBatchMaker maker(task, prepared, head);
    std::vector<double> sums(static_cast<std::size_t>(std::max<std::int64_t>(groups, 1) * 2), 0);
    Judged result;
    // Neighbouring groups to a rank, so that outputs stand in their order when put one after the other.
    for (std::int64_t g = part_begin(groups, grid.data->rank(), grid.data->size()); g < part_begin(groups, grid.data->rank() + 1, grid.data->size()); ++g) {
        tasks::LaneBatch batch = maker.empty();
        for (std::int64_t e = first[static_cast<std::size_t>(g)]; e < first[static_cast<std::size_t>(g) + 1]; ++e) maker.add_example(batch, e, static_cast<std::uint64_t>(e));
        tasks::Outputs outputs;
        const HeadSums one = model.evaluate(batch, alpha, &outputs);
        result.outputs.append(outputs);
        sums[static_cast<std::size_t>(2 * g)] = one.loss;
        sums[static_cast<std::size_t>(2 * g + 1)] = static_cast<double>(one.count);
    }
    Stream host;
    grid.data->all_reduce(host, view(sums.data(), {static_cast<std::int64_t>(sums.size())}), ReduceOp::sum);
    share(*grid.data, result.outputs);
    double count = 0;
    for (std::size_t g = 0; g < sums.size(); g += 2) result.loss += sums[g], count += sums[g + 1];
    if (count > 0) result.loss /= count;
    result.metrics = tasks::score(task, prepared, result.outputs);
    // To 12 places: of numbers of up to 15 digits Boost.JSON gives back the very bits, of longer ones not always the last. A run that goes
    // on compares its figures with those that it has written.
    for (tasks::Metric& metric : result.metrics) metric.value = std::round(metric.value * 1e12) / 1e12;
    return result;
}

}  // namespace rf
