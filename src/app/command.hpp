#pragma once
/// What every command shares: its entry in the table of commands and the way from the command line to an input struct.

#include "comm/communicator.hpp"
#include "io/json.hpp"

#include <map>
#include <string>
#include <vector>

namespace rf::app {

/// A parsed command line: roformer <command> [positional …] [--set k=v …] [--restart] [--option value …]
struct Invocation {
    std::string command;
    std::vector<std::string> positional;   ///< the input file, or the files that inspect and verify take
    std::vector<std::string> assignments;  ///< of --set, in order
    std::map<std::string, std::string> options;
    bool restart = false;
    bool check = false;                    ///< --check: the positionals are files to check

    /// The value of `--name`; a UsageError naming the option when it is missing.
    const std::string& need(const std::string& name) const;
    std::string option(const std::string& name, const std::string& otherwise) const;
};

struct Command {
    std::string name;
    std::string arguments;              ///< as the usage line shows them
    std::string summary;                ///< reads → writes
    std::vector<std::string> options;   ///< names taken with a value: "vocab", …
    bool takes_input;                   ///< input.json, --set and --defaults apply
    bool restarts;                      ///< --restart applies
    int (*run)(const Invocation&, World&);
    json::value (*defaults)();          ///< the input struct with its defaults, or null
    bool checks = false;                ///< --check FILE… applies
};

/// Every command, in the order of the help text.
const std::vector<Command>& commands();

/// The input as JSON: the file of the command line (none: an empty object), then --set in order, then --device.
/// `place` names the file for messages.
json::value read_input(const Invocation& invocation, json::Place& place);

/// The input struct of a command: defaults, then what the input says; `place` as of read_input. Errors are UsageErrors naming file and path.
template <class Input>
Input resolve(const Invocation& invocation, json::Place& place) {
    Input input;
    json::read(read_input(invocation, place), input, place);
    return input;
}

template <class Input>
json::value defaults_of() {
    const Input input;  // named: g++ 12 takes members of a temporary for uninitialised
    return json::write(input);
}

/// Rank 0 does `work`, which says what is wrong, or nothing; that, or the error it meets, is returned on every rank, so that all end.
template <class Work>
std::string trouble_on_rank_0(Communicator& world, const Work& work) {
    std::string trouble;
    if (world.rank() == 0) {
        try {
            trouble = work();
        } catch (const std::exception& e) {
            trouble = e.what();
        }
    }
    world.broadcast(trouble, 0);
    return trouble;
}

int run_tokenize(const Invocation&, World&);
int run_build_vocab(const Invocation&, World&);
int run_build_corpus(const Invocation&, World&);
int run_pretrain(const Invocation&, World&);
int run_encode(const Invocation&, World&);
int run_fill_mask(const Invocation&, World&);
int run_inspect(const Invocation&, World&);
int run_verify(const Invocation&, World&);
int run_bench(const Invocation&, World&);
int run_multitask(const Invocation&, World&);
int run_multitask_check(const Invocation&, World&);
int run_finetune(const Invocation&, World&);
int run_clue(const Invocation&, World&);
int run_predict(const Invocation&, World&);
int run_plan(const Invocation&, World&);
int run_convert(const Invocation&, World&);

json::value build_vocab_defaults();
json::value build_corpus_defaults();
json::value pretrain_defaults();
json::value bench_defaults();
json::value multitask_defaults();
json::value finetune_defaults();
json::value clue_defaults();
json::value plan_defaults();

}  // namespace rf::app
