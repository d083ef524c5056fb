#pragma once
/// The CLUE benchmark (Xu et al. 2020): one task after the other is fine-tuned, judged and answered.

#include "train/finetune.hpp"

namespace rf {

struct ClueInput {
    std::string output;
    std::string checkpoint;
    std::string vocab;        ///< empty: the checkpoint's
    std::vector<std::string> tasks{"inputs/tasks/iflytek.json", "inputs/tasks/tnews.json",  "inputs/tasks/afqmc.json",   "inputs/tasks/cmnli.json",
                                   "inputs/tasks/ocnli.json",   "inputs/tasks/cluewsc2020.json", "inputs/tasks/csl.json", "inputs/tasks/cmrc2018.json",
                                   "inputs/tasks/c3.json",      "inputs/tasks/chid.json",   "inputs/tasks/cluener.json"};
    std::string data;         ///< folder that their paths start from; empty: the folder of each
    std::string cache;        ///< folder for prepared rows; empty: OUTPUT/prepared
    std::int64_t seed = 1;
    std::string device = "auto";
    std::string dtype = "auto";
    ParallelInput parallel;
    double time_limit = 0;    ///< seconds for all tasks together; 0: none
    json::value finetune = boost::json::object{};  ///< keys of `finetune` for every task
    /// The same for single tasks, by name. Epochs and batches of RoFormerV2's CLUE code where they differ from finetune's defaults; the same
    /// examples an update (accumulation included). What an input says is read over these.
    json::value settings = boost::json::parse(R"({"cluewsc2020": {"epochs": 30}, "c3": {"batch": {"sequences": 16}}, "chid": {"epochs": 5, "batch": {"sequences": 24}}})");
};
BOOST_DESCRIBE_STRUCT(ClueInput, (), (output, checkpoint, vocab, tasks, data, cache, seed, device, dtype, parallel, time_limit, finetune, settings))

/// In the output folder: a folder a task as `finetune` leaves it, `clue.h5` (`/clue/<task>`: `dev` and all `metrics` of every run), and
/// `submission/`. A task whose data are not there is skipped and said so in `clue.h5`. What is done is not done again. The exit code is as of
/// `pretrain`.
int clue(const ClueInput& input, const json::Place& place, World& world, bool restart);

}  // namespace rf
