#pragma once
/// What this build can do. The only place where a CUDA build differs from a CPU build at the preprocessor.

#include <string_view>

namespace rf {

#ifdef RF_WITH_CUDA
inline constexpr bool has_cuda = true;
#else
inline constexpr bool has_cuda = false;
#endif

#ifdef __CUDACC__
#define RF_HOST_DEVICE __host__ __device__
#else
#define RF_HOST_DEVICE
#endif

inline constexpr std::string_view program_version = RF_VERSION;

}  // namespace rf
