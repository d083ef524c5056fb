#include "train/stop.hpp"

#include <csignal>

namespace rf {

namespace {
volatile std::sig_atomic_t noted = 0;

extern "C" void note(int signal) {
    if (signal == SIGINT && noted == SIGINT) std::signal(SIGINT, SIG_DFL);
    noted = signal;
}
}  // namespace

void watch_signals() {
    struct sigaction action {};
    action.sa_handler = &note;
    action.sa_flags = SA_RESTART;
    for (const int signal : {SIGTERM, SIGUSR1, SIGINT}) sigaction(signal, &action, nullptr);
}

int noted_signal() { return noted; }

}  // namespace rf
