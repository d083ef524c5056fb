#include "comm/device_choice.hpp"

#include "comm/nccl_communicator.hpp"
#include "core/build.hpp"
#include "core/device_memory.hpp"
#include "core/log.hpp"

#include <unistd.h>

#include <algorithm>

namespace rf {

namespace {

/// FNV-1a; GPUs are told apart by a number that ranks can exchange.
std::int64_t hash(const std::string& text) {
    std::uint64_t h = 0xcbf29ce484222325U;
    for (const char c : text) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3U;
    return static_cast<std::int64_t>(h);
}

std::string host_name() {
    char name[256] = "";
    ::gethostname(name, sizeof name - 1);
    return name;
}

/// Why some rank has no GPU, in its own words; empty when every rank has one. The same on all ranks.
std::string missing_gpu(World& world) {
    Communicator& all = world.communicator();
    std::string why;
    const std::vector<std::int64_t> counts = all.gather(cuda::device_count(&why));
    const auto first = std::find(counts.begin(), counts.end(), 0);
    if (first == counts.end()) return "";
    const int rank = static_cast<int>(first - counts.begin());
    if (all.size() > 1) why = message("rank ", rank, " on ", host_name(), ": ", why);
    all.broadcast(why, rank);
    return why;
}

/// Makes this rank's GPU current.
void take_gpu(World& world) {
    Communicator& all = world.communicator();
    const int gpus = cuda::device_count();
    cuda::use_device(world.local_rank() % gpus);
    const std::vector<std::int64_t> taken = all.gather(hash(host_name() + '/' + gpu_identity()));
    const std::vector<std::int64_t> visible = all.gather(gpus), ranks = all.gather(world.local_size());
    for (std::size_t r = 0; r < taken.size(); ++r) {
        const auto other = static_cast<std::size_t>(std::find(taken.begin(), taken.end(), taken[r]) - taken.begin());
        if (other == r) continue;
        fail_usage("ranks ", other, " and ", r, " share a GPU: ", ranks[r], " ranks on that host, ", visible[r],
                   " GPUs visible to each (one rank a GPU: start as many ranks a host as it has GPUs, or use device \"cpu\")");
    }
    world.serve_gpu();
}

}  // namespace

Device choose_device(World& world, const std::string& name) {
    if (name != "auto" && name != "cpu" && name != "cuda") fail_usage("device is \"auto\", \"cpu\" or \"cuda\", not \"", name, '"');
    if (name == "cpu") return Device::cpu;
    if constexpr (has_cuda) {
        const std::string missing = missing_gpu(world);
        if (missing.empty()) {
            take_gpu(world);
            return Device::cuda;
        }
        if (name == "cuda") fail_usage("device \"cuda\": no GPU can be used (", missing, "); device \"cpu\" or \"auto\" works without");
        log::info("no GPU can be used (", missing, "): working on the CPU");
    } else {
        if (name == "cuda") fail_usage("device \"cuda\": this program was built without CUDA (preset gpu-release has it)");
    }
    return Device::cpu;
}

}  // namespace rf
