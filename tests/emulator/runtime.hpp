#pragma once
#include <cuda_runtime_api.h>
#include <functional>
namespace rf::emulator {
void enqueue(cudaStream_t, const char*, std::function<void()>);
void enqueue_transfer(cudaStream_t, const char*, std::function<std::function<bool()>()>);
bool is_device_range(const void*, std::size_t);
}
