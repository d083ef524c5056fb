#pragma once
/// Fine-tuning on one task: epochs with dev selection, several seeds and learning rates by one command, the best weights kept.

#include "train/run.hpp"
#include "train/task_set.hpp"

namespace rf {

struct FinetuneBatch {
    std::int64_t sequences = 32;  ///< of one update, over all ranks: examples of the task, or windows of token-pair kinds
    std::int64_t lanes = 2;       ///< gradient lanes; data ranks divide it
};
BOOST_DESCRIBE_STRUCT(FinetuneBatch, (), (sequences, lanes))

struct FinetuneInput : RunInput {
    FinetuneInput();                   ///< AdaFactor with a constant learning rate of 5e-4 (RoFormerV2's CLUE code)
    std::string checkpoint;            ///< where the weights come from; empty: from the seed, by `model`
    json::value model = boost::json::object{};  ///< with a checkpoint: keys that differ, such as dropout
    std::string vocab;                 ///< empty: the checkpoint's
    std::string task;                  ///< the task file
    std::string data;                  ///< folder that its paths start from; empty: the folder of the file
    std::string cache;                 ///< folder for prepared rows; empty: OUTPUT/prepared
    std::int64_t epochs = 10;
    FinetuneBatch batch;
    std::int64_t runs = 1;             ///< with seeds seed, seed + 1, …
    std::vector<double> learning_rates;  ///< each of them with every seed; empty: optimizer.lr alone
    std::int64_t early_stop = 0;       ///< a run ends after so many epochs without a better dev figure; 0: never before `epochs`
    bool corrupt = false;              ///< masked_encode on training rows
    LimitInput limit;
    std::int64_t dump_batches = 0;     ///< updates whose batches, and the initial weights, go to replay.h5 (tests/parity/finetune_replay.py)
};
BOOST_DESCRIBE_STRUCT(FinetuneInput, (RunInput),
                      (checkpoint, model, vocab, task, data, cache, epochs, batch, runs, learning_rates, early_stop, corrupt, limit, dump_batches))

/// In the output folder: `runs/<name>/` for each run; at the end `checkpoints/` with the best run's best weights, `results.h5` with that
/// run's tables, `/runs` (a row a run) and `/predictions/<task>` of dev (of test: its group `test`), `metrics.json` with every run's figures, and `submission/` where
/// the task has one. The exit code is as of `pretrain`; runs that are done are not done again.
int finetune(FinetuneInput input, const json::Place& place, Ranks& ranks, bool restart);

}  // namespace rf
