#pragma once
/// What an update needs and costs on a described machine, for any split over ranks: computed from shapes, nothing is run. Memory is
/// counted by the functions and in the order that the run itself allocates; time is work over the machine's rates.

#include "model/config.hpp"
#include "train/machine.hpp"

#include <boost/describe.hpp>

#include <string>
#include <vector>

namespace rf {

/// What is trained, and what of its input decides sizes.
struct Job {
    ModelConfig model;
    Dtype dtype = Dtype::f32;
    std::int64_t sequences = 512;   ///< of an update
    std::int64_t lanes = 8;         ///< of a micro-step
    std::int64_t micro_steps = 1;
    bool mixes = false;             ///< micro-steps' gradients are normalised or several
    bool keeps = false;             ///< and all kept now and then
    std::int64_t max_length = 512;
    double length = 512;            ///< tokens of a sequence on average
    double predicted = 0.15;        ///< share of the tokens between [CLS] and [SEP]
    std::int64_t evaluated = 0;     ///< sequences of an evaluation group; 0: nothing is evaluated
    bool checkpoints = true;
    std::int64_t threads = 0;       ///< of a rank; 0: the cores of the node shared evenly
    double checkpoint_seconds = 0;  ///< that writing one takes, as measured; 0: its bytes at the machine's storage_gb_per_s
};

struct RankSplit {
    std::int64_t tensor = 1, data = 1;
    std::int64_t ranks() const { return tensor * data; }
};

/// Bytes of the rank that needs most, on its device.
struct MemoryNeed {
    std::int64_t weights = 0;        ///< working weights
    std::int64_t gradients = 0;      ///< of its lanes, their sums, the mixture
    std::int64_t optimizer = 0;      ///< master weights that are no working weights, both moments
    std::int64_t activations = 0;    ///< the arena: of one lane, or of a group that is evaluated
    std::int64_t workspaces = 0;     ///< of products, tables, segments and batches
    std::int64_t communication = 0;  ///< what other ranks send
    std::int64_t checkpoint = 0;     ///< CPU: the copy that is written behind the run, at its largest
    std::int64_t program = 0;        ///< code and libraries
    std::int64_t total() const { return weights + gradients + optimizer + activations + workspaces + communication + checkpoint + program; }
};
BOOST_DESCRIBE_STRUCT(MemoryNeed, (), (weights, gradients, optimizer, activations, workspaces, communication, checkpoint, program))

/// Bytes that one rank sends in an update.
struct Traffic {
    double tensor_all_reduce = 0;  ///< activations and their gradients, over the tensor ranks
    double tensor_all_gather = 0;  ///< shares of the softmax
    double gradients = 0;          ///< pieces of its subtrees, to the data ranks that own them
    double weights = 0;            ///< all-gather of new ones
    double sums = 0;               ///< of segments, for norms
    double total() const { return tensor_all_reduce + tensor_all_gather + gradients + weights + sums; }
};
BOOST_DESCRIBE_STRUCT(Traffic, (), (tensor_all_reduce, tensor_all_gather, gradients, weights, sums))

/// Seconds of an update by what they are spent on.
struct StepTime {
    double compute = 0;  ///< products and attention
    double memory = 0;   ///< moving operands
    double network = 0;  ///< moving messages, as far as nothing hides it
    double latency = 0;  ///< starting kernels and collectives
    double hidden = 0;   ///< messages beside backward; not in the sum
    double total() const { return compute + memory + network + latency; }
    /// The largest of the four, by its name.
    std::string bound() const;
};
BOOST_DESCRIBE_STRUCT(StepTime, (), (compute, memory, network, latency, hidden))

/// How often to write a checkpoint where runs end at random and go on from the last one.
struct CheckpointRhythm {
    double bytes = 0;           ///< master weights and both moments, f32
    double write_seconds = 0;   ///< δ, until it is durable
    double mtbf_seconds = 0;    ///< M, mean time between failures of all nodes of the run
    double interval = 0;        ///< seconds between two
    double updates = 0;         ///< the same in updates, at least one
    double lost = 0;            ///< share of the time that goes into writing and doing again
};
BOOST_DESCRIBE_STRUCT(CheckpointRhythm, (), (bytes, write_seconds, mtbf_seconds, interval, updates, lost))

/// √(2 δ M): J. W. Young, A first order approximation to the optimum checkpoint interval, Communications of the ACM 17 (1974) 530. It is the least of
/// δ / interval + interval / (2 M). (J. T. Daly, Future Generation Computer Systems 22 (2006) 303, adds terms of the order of δ / M.) Here the run goes on
/// while a checkpoint is written, so that δ counts more than it costs; but one must be written before the next is begun, hence never below δ.
CheckpointRhythm checkpoint_rhythm(double bytes, double write_seconds, double mtbf_seconds, double update_seconds);

struct Plan {
    std::int64_t parameters = 0;
    double tokens = 0;
    double flops = 0;  ///< model FLOPs of an update, all ranks
    MemoryNeed memory;
    std::int64_t memory_limit = 0;
    Traffic sent;
    StepTime seconds;
    CheckpointRhythm checkpoints;
    bool fits() const { return memory.total() <= memory_limit; }
};

/// Why the job cannot be split like this; empty: it can.
std::string obstacle(const Job& job, const RankSplit& split);
/// For a split that has no obstacle.
Plan make_plan(const Job& job, const RankSplit& split, const Machine& machine);
/// Every tensor × data split of so many ranks, obstacles or not, fewest tensor ranks first.
std::vector<RankSplit> splits_of(std::int64_t ranks);

/// Settings that would fit.
struct Remedy {
    std::string settings;  ///< "batch.lanes=32", as --set takes them
    Plan plan;
};
/// The smallest changes of lanes, tensor ranks, ranks, evaluation group and dtype that fit, one for each set of settings changed together;
/// as few of them as any fits with. Empty: no change of up to three of them does.
std::vector<Remedy> find_remedies(const Job& job, const RankSplit& split, const Machine& machine);

}  // namespace rf
