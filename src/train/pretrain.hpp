#pragma once
/// Masked-language-model pre-training from an input to an output folder: resume, the loop, checkpoints, signals.

#include "model/config.hpp"
#include "train/trainer.hpp"

#include <boost/describe.hpp>

#include <string>

namespace rf {

struct ParallelInput {
    std::int64_t tensor = 1;   ///< ranks that split one copy of the model
    std::int64_t threads = 0;  ///< OpenMP threads of a rank; 0: the cores of the host shared evenly by its ranks
    bool graphs = true;        ///< on GPUs: capture each step shape once as a CUDA graph and replay it
};
BOOST_DESCRIBE_STRUCT(ParallelInput, (), (tensor, threads, graphs))

struct BatchInput {
    std::int64_t sequences = 512;   ///< of one update, over all ranks
    std::int64_t max_length = 512;  ///< [CLS] and [SEP] included
    std::int64_t lanes = 8;         ///< gradient lanes (micro-batches) of one update; data ranks divide it
    std::string window = "head";    ///< of a document longer than max_length: its "head" (the recipe), or a "random" window
};
BOOST_DESCRIBE_STRUCT(BatchInput, (), (sequences, max_length, lanes, window))

/// Points [[update, value], …], straight lines between them.
struct ScheduleInput {
    /// Times optimizer.lr; the recipe's keys divided by its accumulation of 8.
    json::value lr = boost::json::parse("[[0,0],[4000,1],[40000,0.5],[160000,0.1],[320000,0.01]]");
    /// Residual weight where model.residual_mode is "alpha". The article gives no length; the end of the learning rate's
    /// first decay is taken.
    json::value alpha = boost::json::parse("[[0,0],[40000,1]]");
};
BOOST_DESCRIBE_STRUCT(ScheduleInput, (), (lr, alpha))

struct EvaluationInput {
    std::int64_t documents = 500;  ///< held out of training: a fixed draw from the corpus (at most a tenth of it)
    std::int64_t group = 32;       ///< sequences worked on at once
};
BOOST_DESCRIBE_STRUCT(EvaluationInput, (), (documents, group))

struct PretrainInput {
    json::value model = boost::json::string("inputs/model/small.json");
    json::value corpus = "";
    std::string vocab;
    std::string output;
    std::string checkpoint;         ///< initial weights; empty: from the seed
    std::int64_t seed = 1;
    std::int64_t steps = 1000000;
    std::string device = "auto";
    std::string dtype = "auto";
    ParallelInput parallel;
    BatchInput batch;
    Masking masking;
    OptimizerConfig optimizer;
    ScheduleInput schedule;
    EvaluationInput evaluation;
    std::int64_t log_every = 10;
    std::int64_t eval_every = 1000;
    std::int64_t checkpoint_every = 1000;
    std::int64_t keep = 3;          ///< newest checkpoints that stay
    double time_limit = 0;          ///< seconds; 0: none
    std::int64_t dump_batches = 0;  ///< first updates whose batches, and the initial weights, go to replay.h5 (tests/parity/replay.py)
};
BOOST_DESCRIBE_STRUCT(PretrainInput, (),
                      (model, corpus, vocab, output, checkpoint, seed, steps, device, dtype, parallel, batch, masking, optimizer,
                       schedule, evaluation, log_every, eval_every, checkpoint_every, keep, time_limit, dump_batches))

/// Threads of this rank by default, set; returns the sentence that says what was taken.
std::string share_cores(const World& world, std::int64_t threads);

/// The exit code: 0 done, 75 stopped by a signal or the time limit after a durable checkpoint. `restart` removes what an
/// earlier run left in the output folder.
int pretrain(PretrainInput input, const json::Place& place, World& world, bool restart);

}  // namespace rf
