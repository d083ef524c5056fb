#include "train/stop.hpp"

#include <atomic>
#include <csignal>
#include <thread>

namespace rf {

namespace {

constexpr int stop_signals[] = {SIGTERM, SIGUSR1, SIGINT};
std::atomic<bool> watching{false};
std::atomic<int> noted{0};

sigset_t set_of(auto... signals) {
    sigset_t set;
    sigemptyset(&set);
    (sigaddset(&set, signals), ...);
    return set;
}
sigset_t all_stop_signals() { return set_of(stop_signals[0], stop_signals[1], stop_signals[2]); }

bool ignored(int signal) {
    struct sigaction now {};
    sigaction(signal, nullptr, &now);
    return now.sa_handler == SIG_IGN;
}

/// What would have happened had nobody held it.
void let_through(int signal) {
    if (ignored(signal)) return;
    const sigset_t one = set_of(signal);
    pthread_sigmask(SIG_UNBLOCK, &one, nullptr);
    std::raise(signal);
}

void wait_for_signals() {
    const sigset_t set = all_stop_signals();
    for (int signal = 0; sigwait(&set, &signal) == 0;) {
        if (!watching || (signal == SIGINT && noted == SIGINT))
            let_through(signal);
        else
            noted = signal;
    }
}

}  // namespace

void hold_signals() {
    const sigset_t set = all_stop_signals();
    pthread_sigmask(SIG_BLOCK, &set, nullptr);
    std::thread(wait_for_signals).detach();
}

void watch_signals() { watching = true; }
int noted_signal() { return noted; }

}  // namespace rf
