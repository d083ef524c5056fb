#pragma once
/// What this rank does in the collectives of its groups: noted by the main thread at each, read by the watchdog's.

#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

namespace rf {

class Progress {
public:
    /// One group of ranks that this one belongs to.
    struct Group {
        std::vector<int> ranks;    ///< of the world, in the group's order
        std::int64_t entered = 0;  ///< collectives begun; the same call has the same number on all of its ranks
    };
    /// The collective begun last.
    struct Call {
        int group = -1;            ///< index into groups; -1: none yet
        const char* name = "";
        double bytes = 0;
        double since = 0;          ///< seconds of the steady clock when it began, or when it ended
        bool inside = false;
    };
    struct State {
        std::vector<Group> groups;
        Call call;
    };

    /// Returns the group's index. `ranks` is the same on all of them.
    int add_group(std::vector<int> ranks);
    void enter(int group, const char* name, double bytes);
    void leave();
    State state() const;
    /// Seconds that this rank has spent in collectives: working on them and waiting for others.
    double seconds_inside() const;

private:
    mutable std::mutex mutex_;
    State state_;
    double inside_ = 0;
};

/// One collective, from construction to destruction. Those that one makes of others, of bf16 say, are noted one by one.
class CollectiveScope {
public:
    CollectiveScope(Progress& progress, int group, const char* name, double bytes) : progress_(progress) { progress_.enter(group, name, bytes); }
    ~CollectiveScope() { progress_.leave(); }
    CollectiveScope(const CollectiveScope&) = delete;
    CollectiveScope& operator=(const CollectiveScope&) = delete;

private:
    Progress& progress_;
};

}  // namespace rf
