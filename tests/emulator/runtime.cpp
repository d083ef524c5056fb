#include "emulator/machine.hpp"

namespace rf::emulator {
void enqueue_kernel(cudaStream_t, const KernelInfo& kernel, std::function<void()> body) { run_grid(kernel, body); }
}  // namespace rf::emulator
