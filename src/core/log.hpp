#pragma once
/// Text for people. Numbers meant for plots go to the results file, not here.

#include "core/check.hpp"

#include <string>
#include <string_view>

namespace rf::log {

/// Called once by `main`; until then lines are printed as if there were one rank.
void set_rank(int rank, int size);
int rank();
/// Also append every line of `info` and `warning` to this file (rank 0). An empty path closes it.
void set_file(const std::string& path);

/// One line on standard error, whole. Ends a live line first.
void write_line(std::string_view line);
/// Overwrites one line on a terminal; does nothing elsewhere.
void live(std::string_view line);
/// Standard error is a terminal.
bool is_terminal();

/// Rank 0 prints.
template <class... Parts>
void info(const Parts&... parts) {
    if (rank() == 0) write_line(message(parts...));
}
template <class... Parts>
void warning(const Parts&... parts) {
    if (rank() == 0) write_line(message("warning: ", parts...));
}
/// Every rank prints, with its number.
template <class... Parts>
void all(const Parts&... parts) {
    write_line(message("[rank ", rank(), "] ", parts...));
}

}  // namespace rf::log
