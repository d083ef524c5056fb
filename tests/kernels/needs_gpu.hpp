#pragma once
/// A program that compares a GPU (or its emulator) with the CPU is skipped where there is none.

#include "core/device_memory.hpp"

#include <boost/test/unit_test.hpp>

#include <cstdlib>
#include <iostream>
#include <string>

namespace rf::test {

struct NeedsGpu {
    NeedsGpu() {
        std::string why;
        if (cuda::device_count(&why) > 0) return;
        std::cerr << "skipped: no GPU (" << why << ")\n";
        std::exit(77);
    }
};
BOOST_TEST_GLOBAL_FIXTURE(NeedsGpu);

}  // namespace rf::test
