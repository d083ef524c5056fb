#include "train/run_input.hpp"

#include "comm/device_choice.hpp"
#include "core/cpu.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>

namespace rf {

void RunInput::check(const json::Place& place) const {
    const json::Requirements require{place};
    require(!output.empty(), "output", "expected an output folder");
    require(parallel.tensor >= 1, "parallel.tensor", "expected at least 1, found ", parallel.tensor);
    require(parallel.threads >= 0, "parallel.threads", "expected 0 (share the cores) or a number of threads, found ", parallel.threads);
    require(log_every >= 1, "log_every", "expected at least 1, found ", log_every);
    require(checkpoint_every >= 1, "checkpoint_every", "expected at least 1, found ", checkpoint_every);
    require(checkpoint_failures_allowed >= 0, "checkpoint_failures_allowed", "expected at least 0, found ", checkpoint_failures_allowed);
    require(keep >= 1, "keep", "expected at least 1, found ", keep);
    require(time_limit >= 0, "time_limit", "expected 0 (none) or seconds, found ", time_limit);
    require(skips_allowed >= 0, "skips_allowed", "expected at least 0, found ", skips_allowed);
    require(self_check_every >= 0, "self_check_every", "expected 0 (never) or a number of updates, found ", self_check_every);
    require(replay >= 0, "replay", "expected 0 (off) or the number of an update, found ", replay);
    require(watchdog.seconds >= 0, "watchdog.seconds", "expected 0 (off) or seconds, found ", watchdog.seconds);
    require(watchdog.factor >= 1, "watchdog.factor", "expected at least 1, found ", watchdog.factor);
    optimizer.check(place.at("optimizer"));
}

std::string share_cores(const World& world, std::int64_t threads) {
    set_thread_count(threads > 0 ? static_cast<int>(threads) : world.local_cores());
    return message(world.local_size(), world.local_size() == 1 ? " rank" : " ranks", " on this host, ", thread_count(),
                   thread_count() == 1 ? " thread" : " threads", " each");
}

Ranks::Ranks(World& world, const ParallelInput& parallel, const std::string& wanted, std::string shared)
    : start(std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count()), cores(std::move(shared)), device(choose_device(world, wanted)), progress(world.progress()), grid(world.communicator(), parallel.tensor) {}

std::string difference(const json::value& there, const json::value& here, const std::string& path) {
    if (there == here) return {};
    if (there.is_object() && here.is_object())
        for (const auto& [key, value] : here.as_object()) {
            const auto* other = there.as_object().if_contains(key);
            const std::string name = path.empty() ? std::string(key) : path + "." + std::string(key);
            const std::string inner = other ? difference(*other, value, name) : name + ": absent there";
            if (!inner.empty()) return inner;
        }
    return message(path, ": ", boost::json::serialize(there), " there, ", boost::json::serialize(here), " here");
}

std::string duration(double s) {
    char text[40];
    const auto n = static_cast<long long>(s);
    std::snprintf(text, sizeof text, n >= 3600 ? "%lld:%02lld:%02lld" : "%02lld:%02lld", n >= 3600 ? n / 3600 : n / 60,
                  n >= 3600 ? n / 60 % 60 : n % 60, n % 60);
    return text;
}

}  // namespace rf
