#include "train/watchdog.hpp"

#include "core/log.hpp"
#include "io/json.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <utility>

namespace rf {

namespace fs = std::filesystem;

namespace {

constexpr std::size_t remembered_updates = 101;  // of which the median is taken
constexpr double other_work = 10;                // evaluations and the like, and the first update, may take this many times as long
constexpr std::size_t most_lines = 32;           // of answers; a run of a thousand ranks is not printed whole

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

/// "0, 2 and 5", long lists cut.
std::string list_of(const std::vector<int>& ranks) {
    std::string text;
    const std::size_t shown = std::min(ranks.size(), most_lines);
    for (std::size_t i = 0; i < shown; ++i) text += message(i == 0 ? "" : i + 1 == ranks.size() ? " and " : ", ", ranks[i]);
    return shown < ranks.size() ? message(text, " and ", ranks.size() - shown, " more") : text;
}

std::string short_number(double x) {
    char text[32];
    std::snprintf(text, sizeof text, x < 10 ? "%.1f" : "%.0f", x);
    return text;
}

std::string size_text(double bytes) {
    return bytes < 1024 ? message(std::llround(bytes), " bytes") : bytes < 1024 * 1024 ? short_number(bytes / 1024) + " KiB" : short_number(bytes / 1024 / 1024) + " MiB";
}

std::string line_of(const RankAnswer& a, const std::string& place) {
    const Progress::Call& call = a.progress.call;
    std::string text = message("  rank ", a.rank, " (", place, "), ", a.work, ": ");
    if (call.group < 0) return text + "has not been in any collective";
    const Progress::Group& group = a.progress.groups[static_cast<std::size_t>(call.group)];
    const std::string name = message(call.name, " number ", group.entered, " of ranks ", list_of(group.ranks), ", ", size_text(call.bytes));
    if (call.inside) return message(text, "waits since ", short_number(a.call_seconds), " s in ", name);
    return message(text, "is in no collective; left ", name, ", ", short_number(a.call_seconds), " s ago");
}

boost::json::object written(const RankAnswer& a, const std::string& run) {
    boost::json::array groups;
    for (const Progress::Group& g : a.progress.groups) groups.push_back(boost::json::object{{"ranks", boost::json::value_from(g.ranks)}, {"entered", g.entered}});
    const Progress::Call& c = a.progress.call;
    return {{"run", run}, {"rank", a.rank}, {"work", a.work}, {"seconds", a.seconds}, {"groups", groups}, {"group", c.group},
            {"call", c.name}, {"bytes", c.bytes}, {"inside", c.inside}, {"call_seconds", a.call_seconds}};
}

/// The names of collectives outlive what was read: they are among these.
const char* known_name(std::string_view name) {
    for (const char* known : {"barrier", "all_reduce", "all_gather", "broadcast", "all_to_all"})
        if (name == known) return known;
    return "collective";
}

RankAnswer read_answer(const boost::json::object& o) {
    RankAnswer a{.rank = o.at("rank").to_number<int>(), .work = std::string(o.at("work").as_string()), .seconds = o.at("seconds").to_number<double>(),
                 .progress = {}, .call_seconds = o.at("call_seconds").to_number<double>()};
    for (const auto& g : o.at("groups").as_array())
        a.progress.groups.push_back({.ranks = boost::json::value_to<std::vector<int>>(g.at("ranks")), .entered = g.at("entered").to_number<std::int64_t>()});
    a.progress.call = {.group = o.at("group").to_number<int>(), .name = known_name(o.at("call").as_string()), .bytes = o.at("bytes").to_number<double>(),
                       .since = 0, .inside = o.at("inside").as_bool()};
    return a;
}

}  // namespace

bool waits(const std::vector<RankAnswer>& answers, std::size_t ranks) {
    return answers.size() < ranks || std::any_of(answers.begin(), answers.end(), [](const RankAnswer& a) { return a.progress.call.inside; });
}

std::string describe_hang(const std::vector<RankAnswer>& answers, const std::vector<std::string>& places) {
    const auto place = [&](int rank) { return places[static_cast<std::size_t>(rank)]; };
    std::string text = message(answers.size(), " of ", places.size(), " ranks answer:");
    for (std::size_t i = 0; i < std::min(answers.size(), most_lines); ++i) text += '\n' + line_of(answers[i], place(answers[i].rank));
    if (answers.size() > most_lines) text += message("\n  and ", answers.size() - most_lines, " more");

    // How far each group has come, and who of it has not come so far.
    std::map<std::vector<int>, std::int64_t> furthest;
    for (const RankAnswer& a : answers)
        for (const Progress::Group& g : a.progress.groups) furthest[g.ranks] = std::max(furthest[g.ranks], g.entered);
    std::set<int> silent, behind;
    for (int r = 0; r < static_cast<int>(places.size()); ++r) silent.insert(r);
    for (const RankAnswer& a : answers) {
        silent.erase(a.rank);
        for (const Progress::Group& g : a.progress.groups)
            if (g.entered < furthest[g.ranks] && !a.progress.call.inside) behind.insert(a.rank);
    }
    if (!waits(answers, places.size())) return text + "\nno rank waits for another: all work, so this may simply take long";
    if (silent.empty() && behind.empty())
        return text + "\nno rank is missing: all have reached the collectives they wait in, so the network or the MPI library keeps them";
    text += "\ndid not arrive:";
    const char* separator = "";
    for (const int r : silent) {
        text += message(separator, " rank ", r, " (", place(r), ", no answer: its process is stopped, its host is down, or it does not reach the output folder)");
        separator = ",";
    }
    for (const int r : behind) {
        text += message(separator, " rank ", r, " (", place(r), ", runs but is outside the collective)");
        separator = ",";
    }
    return text;
}

Watchdog::Watchdog(const WatchdogInput& input, fs::path folder, std::string run, int rank, std::vector<std::string> places, const Progress& progress)
    : input_(input), folder_(std::move(folder)), run_(std::move(run)), rank_(rank), places_(std::move(places)), progress_(progress) {
    if (input_.seconds > 0 && places_.size() > 1) thread_ = std::thread([this] { watch(); });
}

Watchdog::~Watchdog() {
    {
        const std::lock_guard lock(mutex_);
        stop_ = true;
    }
    changed_.notify_all();
    if (thread_.joinable()) thread_.join();
}

void Watchdog::begin_update(std::int64_t update) { enter(message("update ", update), 1); }
void Watchdog::begin(std::string work) { enter(std::move(work), other_work); }

void Watchdog::enter(std::string work, double share) {
    const std::lock_guard lock(mutex_);
    work_ = std::move(work);
    since_ = seconds();
    share_ = share;
    ++number_;
}

void Watchdog::note_update(double taken) {
    const std::lock_guard lock(mutex_);
    if (updates_.size() == remembered_updates) updates_.erase(updates_.begin());
    updates_.push_back(taken);
}

double Watchdog::limit() const {
    double median = 0;
    if (!updates_.empty()) {
        std::vector<double> sorted = updates_;
        const auto middle = sorted.begin() + static_cast<std::ptrdiff_t>(sorted.size() / 2);
        std::nth_element(sorted.begin(), middle, sorted.end());
        median = *middle;
    }
    return (updates_.empty() ? other_work : share_) * std::max(input_.seconds, input_.factor * median);
}

void Watchdog::watch() {
    std::unique_lock lock(mutex_);
    const auto pause = std::chrono::duration<double>(std::clamp(input_.seconds / 20, 0.05, 1.0));
    std::int64_t reported = 0;
    while (!changed_.wait_for(lock, pause, [this] { return stop_; })) {
        if (number_ == 0 || number_ == reported || seconds() - since_ < limit()) continue;
        reported = number_;
        report(lock);
    }
}

fs::path Watchdog::file_of(int rank) const { return folder_ / message("rank-", rank, ".json"); }

void Watchdog::answer(std::string work, double taken) const {
    RankAnswer a{.rank = rank_, .work = std::move(work), .seconds = taken, .progress = progress_.state(), .call_seconds = 0};
    a.call_seconds = seconds() - a.progress.call.since;
    std::error_code ignored;
    fs::create_directories(folder_, ignored);
    const fs::path path = file_of(rank_), partial = path.string() + ".partial";
    std::ofstream(partial) << boost::json::serialize(written(a, run_));
    fs::rename(partial, path, ignored);
}

std::vector<RankAnswer> Watchdog::answers() const {
    std::vector<RankAnswer> all;
    for (int r = 0; r < static_cast<int>(places_.size()); ++r) {
        std::ifstream in(file_of(r));
        std::stringstream text;
        text << in.rdbuf();
        boost::system::error_code error;
        const json::value v = boost::json::parse(text.str(), error);
        if (!error && v.is_object() && v.as_object().contains("run") && v.at("run") == boost::json::value(run_)) all.push_back(read_answer(v.as_object()));
    }
    return all;
}

/// Waits without the lock's owner: the main thread may go on meanwhile, which ends the alarm.
void Watchdog::report(std::unique_lock<std::mutex>& lock) {
    const std::string work = work_;
    const double taken = seconds() - since_, allowed = limit();
    const std::int64_t number = number_;
    std::error_code ignored;
    lock.unlock();
    answer(work, taken);
    lock.lock();
    // The others began at about the same time, and notice within a twentieth of their own limit.
    const auto grace = std::chrono::duration<double>(std::clamp(allowed / 4, 1.0, 10.0));
    const bool went_on = changed_.wait_for(lock, grace, [&] { return stop_ || number_ != number; });
    lock.unlock();
    if (!went_on) {
        const std::vector<RankAnswer> all = answers();
        const bool speaks = !all.empty() && all.front().rank == rank_, ends = input_.abort && waits(all, places_.size());
        if (speaks || all.empty())
            log::write_line(message("watchdog: ", work, " is not done after ", short_number(taken + grace.count()), " s (limit ", short_number(allowed), " s); ",
                                    describe_hang(all, places_), ends ? "\nending all ranks (watchdog.abort)" : ""));
        if (ends) {
            // The launcher ends the ranks that cannot end themselves. Those that answered end after the one that speaks.
            if (!speaks) std::this_thread::sleep_for(std::chrono::seconds(2));
            std::_Exit(1);
        }
    }
    lock.lock();
    while (!stop_ && number_ == number) changed_.wait_for(lock, grace);
    fs::remove(file_of(rank_), ignored);
    if (!went_on && !stop_ && rank_ == 0) log::write_line(message("watchdog: ", work, " went on"));
}

}  // namespace rf
