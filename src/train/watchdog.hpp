#pragma once
/// Notices that a run hangs and says who keeps the others waiting.
///
/// Each rank has a thread that looks at how long the present update takes. Past max(seconds, factor x median of the updates so far) it
/// lays what its rank is doing into a file of the output folder, which all ranks share, waits for the others to do the same, and the
/// lowest rank that did prints the answers. No message passes through MPI, which is what hangs. A rank that has no answer is
/// stopped, its host is down, or it does not reach the folder. While nothing hangs no file is written. A rank alone has no watchdog, and the
/// first update, whose time nobody knows, may take ten times the limit.

#include "comm/progress.hpp"

#include <boost/describe.hpp>

#include <condition_variable>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

namespace rf {

struct WatchdogInput {
    double seconds = 60;  ///< an update that takes longer is looked into; 0: never
    double factor = 20;   ///< if it also takes this many times the median update
    bool abort = false;   ///< then, if a rank waits for another, end all ranks with exit code 1
};
BOOST_DESCRIBE_STRUCT(WatchdogInput, (), (seconds, factor, abort))

/// What one rank says it is doing.
struct RankAnswer {
    int rank = 0;
    std::string work;             ///< "update 12"
    double seconds = 0;           ///< that it has worked on this
    Progress::State progress;
    double call_seconds = 0;      ///< since its last collective began, or ended
};

/// Whether a rank waits for others in a collective, or gave no answer. Otherwise all work, and may do so for long.
bool waits(const std::vector<RankAnswer>& answers, std::size_t ranks);
/// The answers and who did not come, in lines for people. `places` says of each rank where it runs.
std::string describe_hang(const std::vector<RankAnswer>& answers, const std::vector<std::string>& places);

class Watchdog {
public:
    /// `places` [ranks]; `run` tells this run's files from those of an earlier one. The folder is made when it is needed.
    Watchdog(const WatchdogInput& input, std::filesystem::path folder, std::string run, int rank, std::vector<std::string> places, const Progress& progress);
    ~Watchdog();
    Watchdog(const Watchdog&) = delete;
    Watchdog& operator=(const Watchdog&) = delete;

    /// What the rank begins to work on. Work other than an update may take ten times as long.
    void begin_update(std::int64_t update);
    void begin(std::string work);
    /// Seconds that an update took.
    void note_update(double seconds);

private:
    void enter(std::string work, double share);
    void watch();
    void report(std::unique_lock<std::mutex>& lock);
    void answer(std::string work, double seconds) const;
    std::vector<RankAnswer> answers() const;
    std::filesystem::path file_of(int rank) const;
    double limit() const;

    WatchdogInput input_;
    std::filesystem::path folder_;
    std::string run_;
    int rank_;
    std::vector<std::string> places_;
    const Progress& progress_;

    std::mutex mutex_;
    std::condition_variable changed_;
    std::string work_;
    double since_ = 0, share_ = 1;
    std::int64_t number_ = 0;        ///< of the work
    std::vector<double> updates_;    ///< seconds of the last ones
    bool stop_ = false;
    std::thread thread_;
};

}  // namespace rf
