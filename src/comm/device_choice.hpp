#pragma once

#include "comm/communicator.hpp"

#include <string>

namespace rf {

/// The device this run works on, the same for all ranks, from its name in an input:
/// "cpu"; "cuda", a UsageError where a rank finds no GPU; "auto", CUDA where every rank finds a GPU, else the CPU, and a log
/// line says why. On CUDA rank i of a host takes GPU i modulo the GPUs it sees and makes it current, two ranks on one GPU
/// are a UsageError, and the world's communicator serves GPU streams from then on. All ranks call it together.
Device choose_device(World& world, const std::string& name);

}  // namespace rf
