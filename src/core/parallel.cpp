#include "core/parallel.hpp"

#include <omp.h>

#include <algorithm>
#include <exception>
#include <vector>

namespace rf {

void for_each_parallel(std::size_t n, const std::function<void(std::size_t)>& act) {
    std::vector<std::exception_ptr> trouble(n);
#pragma omp parallel for schedule(dynamic, 1) if (n > 1)
    for (std::size_t i = 0; i < n; ++i) {
        try {
            act(i);
        } catch (...) {
            trouble[i] = std::current_exception();
        }
    }
    for (const std::exception_ptr& e : trouble)
        if (e) std::rethrow_exception(e);
}

void for_each_run(std::int64_t n, const std::function<void(std::int64_t, std::int64_t)>& act) {
    const std::int64_t runs = std::min<std::int64_t>(n, omp_get_max_threads());
    for_each_parallel(static_cast<std::size_t>(runs), [&](std::size_t t) {
        const auto i = static_cast<std::int64_t>(t);
        act(n * i / runs, n * (i + 1) / runs);
    });
}

}  // namespace rf
