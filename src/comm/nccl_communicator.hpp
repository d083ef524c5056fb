#pragma once
/// CUDA builds only.

#include "comm/communicator.hpp"

namespace rf {

/// Collectives on GPU streams by NCCL, on CPU streams by `host`, which it is made from and whose ranks it has. One NCCL
/// communicator a group, made by `split` (for the world: at its first collective on a GPU, so not inside a captured step).
/// All ranks call it together, each with its GPU current.
std::unique_ptr<Communicator> make_nccl_communicator(std::unique_ptr<Communicator> host);

/// What tells the current GPU from every other one of this host.
std::string gpu_identity();

}  // namespace rf
