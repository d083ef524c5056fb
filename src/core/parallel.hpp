#pragma once
/// Work whose parts may fail, on OpenMP's threads.

#include <cstddef>
#include <cstdint>
#include <functional>

namespace rf {

/// Runs act(i) for 0 … n-1 on OpenMP's threads, the next free thread the next number. The first exception in the order of numbers goes on.
void for_each_parallel(std::size_t n, const std::function<void(std::size_t)>& act);
/// Runs act(begin, end) on OpenMP's threads, each a run of its own of 0 … n-1; exceptions as above.
void for_each_run(std::int64_t n, const std::function<void(std::int64_t, std::int64_t)>& act);

}  // namespace rf
