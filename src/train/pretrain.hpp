#pragma once
/// Masked-language-model pre-training from an input to an output folder: resume, the loop, checkpoints, signals.

#include "train/run.hpp"

#include <boost/describe.hpp>

#include <string>

namespace rf {

struct BatchInput {
    std::int64_t sequences = 512;   ///< of one update, over all ranks
    std::int64_t max_length = 512;  ///< [CLS] and [SEP] included
    std::int64_t lanes = 8;         ///< gradient lanes (micro-batches) of one update; data ranks divide it
    std::string window = "head";    ///< of a document longer than max_length: its "head" (the recipe), or a "random" window

    void check(const json::Place& place) const;
};
BOOST_DESCRIBE_STRUCT(BatchInput, (), (sequences, max_length, lanes, window))

struct EvaluationInput {
    std::int64_t documents = 500;  ///< held out of training: a fixed draw from the corpus (at most a tenth of it)
    std::int64_t group = 32;       ///< sequences worked on at once
};
BOOST_DESCRIBE_STRUCT(EvaluationInput, (), (documents, group))

struct PretrainInput : RunInput {
    json::value model = boost::json::string("inputs/model/small.json");
    json::value corpus = "";
    std::string vocab;
    std::string checkpoint;         ///< initial weights; empty: from the seed
    std::int64_t steps = 1000000;
    BatchInput batch;
    Masking masking;
    EvaluationInput evaluation;
    std::int64_t eval_every = 1000;
    std::int64_t dump_batches = 0;  ///< first updates whose batches, and the initial weights, go to replay.h5 (tests/parity/replay.py)
};
BOOST_DESCRIBE_STRUCT(PretrainInput, (RunInput), (model, corpus, vocab, checkpoint, steps, batch, masking, evaluation, eval_every, dump_batches))

/// Every rank checks its share of the shards and all hear of the first damage, a UsageError, before any of them opens one.
void check_corpus(const json::value& corpus, const json::Place& place, Communicator& world);

/// The exit code: 0 done, 75 stopped by a signal or the time limit after a durable checkpoint. `restart` removes what an
/// earlier run left in the output folder.
int pretrain(PretrainInput input, const json::Place& place, World& world, bool restart);

}  // namespace rf
