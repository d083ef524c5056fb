#include "train/clue.hpp"

#include "core/build.hpp"
#include "core/log.hpp"
#include "io/files.hpp"
#include "io/folder_lock.hpp"
#include "io/hdf5.hpp"
#include "io/schema.hpp"

#include <algorithm>
#include <limits>

namespace rf {

namespace fs = std::filesystem;

namespace {

/// One of the eleven, and what became of it.
struct Entry {
    std::string name, file, missing;
};

/// The first training file that is not there, or empty.
std::string missing_data(const json::value& file, const fs::path& base) {
    const auto* train = file.as_object().if_contains("train");
    if (!train) return {};
    const auto absent = [&](const json::value& path) {
        return path.is_string() && path.as_string().find_first_of("*?[") == std::string_view::npos && !fs::exists(base / std::string(path.as_string()));
    };
    if (absent(*train)) return std::string(train->as_string());
    if (train->is_array())
        for (const json::value& one : train->as_array())
            if (absent(one)) return std::string(one.as_string());
    return {};
}

std::vector<Entry> entries_of(const ClueInput& in, const json::Place& place) {
    if (in.output.empty()) fail_usage(place.at("output"), ": expected an output folder");
    if (in.checkpoint.empty()) fail_usage(place.at("checkpoint"), ": expected a checkpoint to start from");
    if (in.tasks.empty()) fail_usage(place.at("tasks"), ": expected task files");
    std::vector<Entry> entries;
    for (const std::string& path : in.tasks) {
        const json::value file = json::parse_file(path);
        const auto* name = file.is_object() ? file.as_object().if_contains("name") : nullptr;
        if (!name || !name->is_string()) fail_usage(path, ": name: expected the name of the task");
        entries.push_back({std::string(name->as_string()), path, missing_data(file, in.data.empty() ? fs::path(path).parent_path() : fs::path(in.data))});
    }
    for (const char* key : {"finetune", "settings"})
        if (const json::value& given = key == std::string_view("finetune") ? in.finetune : in.settings; !given.is_object())
            json::fail_type(place.at(key), "an object { … }", given);
    for (const auto& item : in.settings.as_object())
        if (!ClueInput().settings.as_object().contains(item.key()) && std::none_of(entries.begin(), entries.end(), [&](const Entry& e) { return e.name == item.key(); }))
            fail_usage(place.at("settings"), ": none of the tasks is called ", item.key());
    return entries;
}

FinetuneInput finetune_input(const ClueInput& in, const Entry& entry, const json::Place& place) {
    FinetuneInput out;
    out.checkpoint = in.checkpoint, out.vocab = in.vocab, out.task = entry.file, out.data = in.data, out.seed = in.seed, out.device = in.device;
    out.dtype = in.dtype, out.parallel = in.parallel, out.time_limit = in.time_limit;
    out.cache = in.cache.empty() ? in.output + "/prepared" : in.cache;
    json::read(in.finetune, out, place.at("finetune"));
    for (const json::value& settings : {ClueInput().settings, in.settings})
        if (const auto* own = settings.as_object().if_contains(entry.name)) json::read(*own, out, place.at("settings." + entry.name));
    out.output = in.output + "/" + entry.name;
    if (out.replay > 0) fail_usage(place.at("finetune.replay"), ": belongs to `finetune` on the task's own folder ", out.output);
    return out;
}

void write_clue(const ClueInput& in, const std::vector<Entry>& entries) {
    const fs::path path = fs::path(in.output) / "clue.h5", partial = fs::path(in.output) / "clue.h5.partial";
    {
        const auto hold = h5::lock();
        h5::File file = h5::create_file(partial, seal_bytes);
        h5::set_attribute(file, schema::kind, schema::kind_results);
        h5::set_attribute(file, schema::version, std::int64_t{1});
        h5::set_attribute(file, "program", message("roformer ", program_version));
        h5::set_attribute(file, "input", json::pretty(json::write(in)));
        const h5::Group all = h5::create_group(file, "clue");
        for (const Entry& entry : entries) {
            const h5::Group group = h5::create_group(all, entry.name);
            h5::set_attribute(group, "missing", entry.missing);
            if (!entry.missing.empty()) {
                h5::set_attribute(group, "metric", std::string());
                continue;
            }
            const json::value outcome = json::parse_file((fs::path(in.output) / entry.name / "metrics.json").string());
            const auto& runs = outcome.at("runs").as_array();
            const auto& figures = outcome.at("best").at("metrics").as_object();
            const h5::Group metrics = h5::create_group(group, "metrics");
            for (const auto& figure : figures) {
                std::vector<double> values;
                for (const json::value& run : runs) {
                    const auto* value = run.at("metrics").as_object().if_contains(figure.key());
                    values.push_back(value ? value->to_number<double>() : std::numeric_limits<double>::quiet_NaN());
                }
                h5::write_vector(metrics, std::string(figure.key()), values, {"1", "dev figure of each run's best epoch"});
                if (figure.key() == figures.begin()->key()) h5::write_vector(group, "dev", values, {"1", "the task's main dev figure of each run"});
            }
            std::vector<std::int64_t> seeds;
            for (const json::value& run : runs) seeds.push_back(run.at("seed").as_int64());
            h5::write_vector(group, "seed", seeds, {"1", "of each run"});
            h5::set_attribute(group, "metric", std::string(figures.begin()->key()));
            h5::set_attribute(group, "dev_examples", outcome.at("dev_examples").as_int64());
            h5::set_attribute(group, "train_examples", outcome.at("train_examples").as_int64());
        }
        h5::close_file(file, partial.string());
    }
    seal_file(partial);
    rename_durably(partial, path);
    fs::create_directories(fs::path(in.output) / "submission");
    for (const Entry& entry : entries)
        if (const fs::path from = fs::path(in.output) / entry.name / "submission"; fs::is_directory(from))
            for (const auto& one : fs::directory_iterator(from)) write_file_atomically(fs::path(in.output) / "submission" / one.path().filename(), read_file(one.path()));
}

}  // namespace

int clue(const ClueInput& in, const json::Place& place, World& world, bool restart) {
    std::vector<Entry> entries = entries_of(in, place);
    for (const Entry& entry : entries)  // what is wrong with any of them is said before the first begins
        finetune_input(in, entry, place);
    RunInput run;
    run.output = in.output, run.parallel = in.parallel, run.device = in.device;
    Ranks ranks(world, run, place);
    const FolderLock lock = lock_folder(in.output, message(place.at("output")), ranks.grid.world);
    for (const Entry& entry : entries) {
        if (!entry.missing.empty()) {
            log::info("task ", entry.name, " left out: ", entry.missing, " is not there");
            continue;
        }
        if (const int code = finetune(finetune_input(in, entry, place), place, ranks, restart); code != 0) return code;
    }
    if (ranks.grid.world.rank() == 0) write_clue(in, entries);
    log::info("done: ", in.output, "/clue.h5 and ", in.output, "/submission");
    ranks.grid.world.barrier();
    return 0;
}

}  // namespace rf
