#pragma once
/// A machine as a plan sees it: a few rates and sizes, read from a file of inputs/machine.

#include "core/tensor.hpp"
#include "io/json.hpp"

#include <boost/describe.hpp>

#include <string>

namespace rf {

/// By the dtype of the operands; 0: the machine has no products of this dtype.
struct RateByDtype {
    double f32 = 0;
    double bf16 = 0;
    double of(Dtype dtype) const { return dtype == Dtype::bf16 ? bf16 : f32; }
};
BOOST_DESCRIBE_STRUCT(RateByDtype, (), (f32, bf16))

/// Between two ranks, as one of them sees it while all communicate.
struct Link {
    double gb_per_s = 0;    ///< sent, while as much is received
    double latency_us = 0;  ///< of a collective of a few bytes
};
BOOST_DESCRIBE_STRUCT(Link, (), (gb_per_s, latency_us))

/// Rates are those that are reached, not the printed ones. They are of a worker: a GPU, which a rank has for itself, or a core, of which
/// the ranks of a node have even shares. Memory is a GPU's own; on the CPU the node's.
struct Machine {
    std::string about;                 ///< what it is, and where the figures come from
    std::string device;                ///< cpu or cuda
    std::int64_t ranks_per_node = 0;   ///< on a GPU machine its GPUs
    std::int64_t cores_per_node = 0;   ///< on the CPU: more ranks or threads than these share them
    double memory_gib = 0;
    double program_mib = 0;            ///< of a rank beside all that is counted: code, libraries, heap, scratch of its threads; on a GPU its context and NCCL
    RateByDtype product_gflops;        ///< matrix products of the model's shapes
    RateByDtype attention_gflops;      ///< of the model FLOPs of attention (4 C n² forward, twice that backward)
    double row_gb_per_s = 0;           ///< norms, dropout, softmax: bytes of operands and results
    double memory_gb_per_s = 0;        ///< sums of gradients, optimizer, casts: the same
    double launch_us = 0;              ///< that every kernel or parallel region costs besides
    Link inside;                       ///< of a node
    Link between;                      ///< nodes
    double storage_gb_per_s = 0;       ///< at which all ranks together write a checkpoint and flush it
    double node_mtbf_hours = 0;        ///< mean time between failures of a node that end a run on it, preemptions included

    bool is_gpu() const { return device == "cuda"; }
};
BOOST_DESCRIBE_STRUCT(Machine, (),
                      (about, device, ranks_per_node, cores_per_node, memory_gib, program_mib, product_gflops, attention_gflops, row_gb_per_s,
                       memory_gb_per_s, launch_us, inside, between, storage_gb_per_s, node_mtbf_hours))

/// A machine named by file, by {"file": …, key: override}, or given whole; every key must be there. Errors are UsageErrors naming file and
/// key.
Machine read_machine(const json::value& v, const json::Place& place);

}  // namespace rf
