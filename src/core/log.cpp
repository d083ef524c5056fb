#include "core/log.hpp"

#include <unistd.h>

#include <cstdio>
#include <mutex>

namespace rf::log {

namespace {
struct State {
    std::mutex mutex;
    int rank = 0;
    std::FILE* file = nullptr;
    bool live_line = false;
};
State& state() {
    static State s;
    return s;
}
}  // namespace

void set_rank(int rank, int) { state().rank = rank; }
int rank() { return state().rank; }

void set_file(const std::string& path) {
    State& s = state();
    const std::lock_guard hold(s.mutex);
    if (s.file) std::fclose(s.file);
    s.file = path.empty() ? nullptr : std::fopen(path.c_str(), "a");
    if (!path.empty() && !s.file) fail("cannot write ", path);
}

void write_line(std::string_view line) {
    State& s = state();
    const std::lock_guard hold(s.mutex);
    std::string text = s.live_line ? "\r\033[K" : "";
    s.live_line = false;
    text.append(line).push_back('\n');
    std::fwrite(text.data(), 1, text.size(), stderr);
    if (s.file) {
        std::fwrite(line.data(), 1, line.size(), s.file);
        std::fputc('\n', s.file);
        std::fflush(s.file);
    }
}

void live(std::string_view line) {
    if (!is_terminal() || rank() != 0) return;
    State& s = state();
    const std::lock_guard hold(s.mutex);
    std::fprintf(stderr, "\r\033[K%.*s", static_cast<int>(line.size()), line.data());
    s.live_line = true;
}

bool is_terminal() {
    static const bool terminal = isatty(STDERR_FILENO) == 1;
    return terminal;
}

}  // namespace rf::log
