#pragma once
/// Signals and the time limit, looked at between updates.

#include <atomic>
#include <string>

namespace rf {

/// From now on SIGTERM, SIGUSR1 and SIGINT only leave a note; a second SIGINT ends the program at once.
void watch_signals();
/// The signal noted so far, or 0.
int noted_signal();

}  // namespace rf
