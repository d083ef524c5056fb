#pragma once
/// The supervised phase (RoFormerV2, Su 2022): many tasks and masked language modelling behind one encoder, one of them a micro-step,
/// each micro-step's gradient divided by its norm.

#include "train/pretrain.hpp"
#include "train/task_set.hpp"

namespace rf {

struct MixInput {
    std::int64_t micro_steps = 8;       ///< of an update, each of one task (the recipe's accumulation)
    /// How often a task is drawn: by its file's weight ("given"), times its training examples ("proportional"), or times their root
    /// ("square_root").
    std::string draw = "given";
    std::string normalise = "shared";   ///< gradients: none, shared (norm over the encoder), all (and the head)
    bool min_norm = false;              ///< micro-steps weighted for the least norm of their sum, in place of evenly
    std::int64_t cosine_every = 100;    ///< updates between those whose cosines to the sum are measured; 0: none
};
BOOST_DESCRIBE_STRUCT(MixInput, (), (micro_steps, draw, normalise, min_norm, cosine_every))

struct TaskBatchInput {
    std::int64_t sequences = 512;  ///< of one update, over all ranks; a micro-step has an even share of them
    std::int64_t lanes = 4;        ///< gradient lanes of one micro-step; data ranks divide it
};
BOOST_DESCRIBE_STRUCT(TaskBatchInput, (), (sequences, lanes))

struct MultitaskInput : RunInput {
    MultitaskInput();                  ///< the recipe's second phase: learning rate 1.76e-4
    std::string checkpoint;            ///< where the weights come from; empty: from scratch, by `model`
    json::value model = boost::json::object{};  ///< with a checkpoint: keys that differ
    std::string vocab;                 ///< empty: the checkpoint's
    std::vector<std::string> tasks;    ///< task files
    std::string data;                  ///< folder that their paths start from; empty: the folder of each
    std::string cache;                 ///< folder for prepared rows; empty: OUTPUT/prepared
    json::value corpus = "";           ///< text of tasks of kind mlm
    Masking masking;
    std::int64_t steps = 750000;
    TaskBatchInput batch;
    MixInput mix;
    LimitInput limit;
    EvaluationInput evaluation;        ///< of masked language modelling
    std::int64_t eval_every = 5000;
};
BOOST_DESCRIBE_STRUCT(MultitaskInput, (RunInput),
                      (checkpoint, model, vocab, tasks, data, cache, corpus, masking, steps, batch, mix, limit, evaluation, eval_every))

/// The exit code, as of `pretrain`. Tasks may be added to a run between its starts; the state of what was there is kept.
int multitask(MultitaskInput input, const json::Place& place, World& world, bool restart);

}  // namespace rf
