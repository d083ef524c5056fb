/// The command line: roformer <command> [input.json] [--set key.path=value …]. Exit codes: 0 done, 1 failed, 2 bad usage
/// or input, 75 stopped after a durable checkpoint.

#include "app/command.hpp"
#include "core/build.hpp"
#include "core/log.hpp"
#include "train/stop.hpp"

#include <malloc.h>

#include <algorithm>
#include <iostream>
#include <new>

namespace rf::app {

namespace {

void print_help(std::ostream& out) {
    out << "roformer " << program_version << ": trains RoFormerV2 encoders\n\n"
        << "usage: [mpirun -n N] roformer <command> [input.json] [--set key.path=value ...] [--defaults] [--help] [--version]\n\n";
    for (const Command& c : commands()) {
        const std::string left = c.name + " " + c.arguments;
        out << "  " << left << std::string(left.size() < 58 ? 60 - left.size() : 2, ' ') << c.summary << '\n';
    }
    out << "\nAn input is strict JSON; --defaults prints every key of a command. --restart starts over in the output folder.\n"
           "Exit codes: 0 done, 1 failed, 2 bad usage or input, 75 stopped after a durable checkpoint (run the same command again).\n";
}

void print_help(const Command& c, std::ostream& out) {
    out << "usage: roformer " << c.name << ' ' << c.arguments
        << (c.takes_input ? " [--set key.path=value ...]" : "") << (c.restarts ? " [--restart]" : "") << "\n\n  " << c.summary << "\n\n"
        << (c.takes_input ? "  --set key.path=value  overrides a key of the input; may be given many times\n"
                            "  --defaults            prints every key with its default\n"
                          : "")
        << (c.restarts ? "  --restart             starts over in the output folder\n" : "")
        << (c.checks ? "  --check FILE...       reads these task files and all their rows, and reports\n" : "")
        << "\nExit codes: 0 done, 1 failed, 2 bad usage or input"
        << (c.restarts && c.name != "build-corpus" ? ", 75 stopped after a durable checkpoint (run it again)" : "") << ".\n";
}

const Command& find_command(const std::string& name) {
    for (const Command& c : commands())
        if (c.name == name) return c;
    std::string known;
    std::vector<std::string> names;
    for (const Command& c : commands()) names.push_back(c.name), known += (known.empty() ? "" : ", ") + c.name;
    const std::string meant = json::nearest(name, names);
    fail_usage("unknown command \"", name, "\"", meant.empty() ? "" : " (did you mean \"" + meant + "\"?)", "; commands: ", known);
}

/// What is left of the command line once help, version and defaults are dealt with.
struct Parsed {
    Invocation invocation;
    bool help = false, version = false, defaults = false;
};

Parsed parse(const Command& command, const std::vector<std::string>& words) {
    Parsed parsed;
    Invocation& call = parsed.invocation;
    call.command = command.name;
    for (std::size_t i = 0; i < words.size(); ++i) {
        const std::string& word = words[i];
        if (!word.starts_with("--")) {
            call.positional.push_back(word);
            continue;
        }
        std::string name = word.substr(2), value;
        const std::size_t equals = name.find('=');
        const bool inside = equals != std::string::npos;
        if (inside) value = name.substr(equals + 1), name.resize(equals);
        if (!inside && name == "help") parsed.help = true;
        else if (!inside && name == "version") parsed.version = true;
        else if (!inside && name == "defaults") parsed.defaults = true;
        else if (!inside && name == "restart" && command.restarts) call.restart = true;
        else if (!inside && name == "check" && command.checks) call.check = true;
        else if (name == "set" || std::count(command.options.begin(), command.options.end(), name)) {
            if (!inside && i + 1 == words.size()) fail_usage("--", name, " needs a value");
            if (!inside) value = words[++i];
            if (name == "set") call.assignments.push_back(value);
            else call.options[name] = value;
        } else {
            std::string known = "--help, --version";
            if (command.takes_input) known += ", --set, --defaults";
            if (command.restarts) known += ", --restart";
            if (command.checks) known += ", --check";
            for (const std::string& option : command.options) known += ", --" + option;
            fail_usage("unknown option ", word, " of ", command.name, "; known: ", known);
        }
    }
    if (command.takes_input && !call.check && call.positional.size() > 1) fail_usage(command.name, " takes one input file, found ", call.positional.size());
    if (!command.takes_input && !call.assignments.empty()) fail_usage(command.name, " takes no --set");
    return parsed;
}

int run(const std::vector<std::string>& words, World& world) {
    if (words.empty()) {
        if (world.communicator().rank() == 0) print_help(std::cerr);
        return 2;
    }
    if (words[0] == "--help" || words[0] == "-h" || words[0] == "help") {
        if (world.communicator().rank() == 0) print_help(std::cout);
        return 0;
    }
    const auto print_version = [&] {
        if (world.communicator().rank() == 0) std::cout << "roformer " << program_version << '\n';
        return 0;
    };
    if (words[0] == "--version") return print_version();
    if (words[0].starts_with("-")) fail_usage("expected a command, found ", words[0], "; roformer --help lists the commands");
    const Command& command = find_command(words[0]);
    const Parsed parsed = parse(command, {words.begin() + 1, words.end()});
    if (parsed.version) return print_version();
    if (parsed.help) {
        if (world.communicator().rank() == 0) print_help(command, std::cout);
        return 0;
    }
    if (parsed.defaults) {
        if (!command.defaults) fail_usage(command.name, " has no input and so no defaults");
        if (world.communicator().rank() == 0) std::cout << json::pretty(command.defaults());
        return 0;
    }
    return command.run(parsed.invocation, world);
}

}  // namespace

const std::vector<Command>& commands() {
    static const std::vector<Command> table = {
        {"build-vocab", "[input.json]", "text -> vocab.txt", {}, true, false, &run_build_vocab, &build_vocab_defaults},
        {"build-corpus", "[input.json]", "text, vocab.txt -> HDF5 corpus shards", {}, true, true, &run_build_corpus, &build_corpus_defaults},
        {"tokenize", "--vocab V", "lines on stdin -> a line of ids each", {"vocab"}, false, false, &run_tokenize, nullptr},
        {"pretrain", "[input.json] [--device cpu|cuda|auto]", "corpus, model -> checkpoints, results.h5", {"device"}, true, true, &run_pretrain, &pretrain_defaults},
        {"multitask", "[input.json] [--device cpu|cuda|auto] | --check TASK.json...", "checkpoint, task files, corpus -> checkpoints, results.h5", {"device"}, true, true,
         &run_multitask, &multitask_defaults, true},
        {"finetune", "[input.json] [--device cpu|cuda|auto]", "checkpoint, one task -> best checkpoint, metrics, predictions", {"device"}, true, true, &run_finetune,
         &finetune_defaults},
        {"clue", "[input.json] [--device cpu|cuda|auto]", "checkpoint -> the eleven CLUE tasks -> clue.h5, submission/", {"device"}, true, true, &run_clue, &clue_defaults},
        {"predict", "--checkpoint C [--vocab V] [--dtype f32|bf16] [--device cpu|cuda|auto]", "lines or JSONL on stdin -> JSONL answers",
         {"checkpoint", "vocab", "dtype", "device"}, false, false, &run_predict, nullptr},
        {"encode", "--checkpoint C --out F.h5 [--vocab V] [--dtype f32|bf16] [--device cpu|cuda|auto]", "lines on stdin -> hidden states", {"checkpoint", "vocab", "out", "dtype", "device"},
         false, false, &run_encode, nullptr},
        {"fill-mask", "--checkpoint C [--vocab V] [--top K] [--dtype f32|bf16] [--device cpu|cuda|auto]", "lines with [MASK] on stdin -> candidates",
         {"checkpoint", "vocab", "top", "dtype", "device"}, false, false, &run_fill_mask, nullptr},
        {"plan", "[input.json] [--json F.json]", "input of pretrain or multitask, machine -> memory, communication, time, nothing is run", {"json"}, true, false,
         &run_plan, &plan_defaults},
        {"convert", "--from rf|hf|tf|keras-h5 --to rf|hf|tf|keras-h5 [--family F] [--config C] [--vocab V] [--weights safetensors|zip] [--alpha keep|fold] IN OUT",
         "weights in and out: checkpoints, PyTorch, TensorFlow, Keras", {"from", "to", "family", "config", "vocab", "weights", "alpha"}, false, false, &run_convert, nullptr},
        {"inspect", "FILE...", "any file of this program -> what it is", {}, false, false, &run_inspect, nullptr},
        {"verify", "PATH...", "corpus or checkpoint -> recomputes every digest", {}, false, false, &run_verify, nullptr},
        {"bench", "[input.json] [--device cpu|cuda|auto] [--trace T.json]", "model, lengths -> tokens/s, FLOP/s -> a row of bench.h5", {"device", "trace"}, true, false, &run_bench, &bench_defaults},
    };
    return table;
}

const std::string& Invocation::need(const std::string& name) const {
    const auto found = options.find(name);
    if (found == options.end()) fail_usage(command, " needs --", name);
    return found->second;
}

std::string Invocation::option(const std::string& name, const std::string& otherwise) const {
    const auto found = options.find(name);
    return found == options.end() ? otherwise : found->second;
}

json::value read_input(const Invocation& invocation, json::Place& place) {
    json::value input = boost::json::object{};
    place = {"--set", ""};
    if (!invocation.positional.empty()) {
        place.file = invocation.positional[0];
        input = json::parse_file(place.file);
    }
    for (const std::string& assignment : invocation.assignments) json::set(input, assignment);
    if (invocation.options.contains("device")) json::set(input, "device=" + invocation.options.at("device"));
    return input;
}

}  // namespace rf::app

namespace {

/// Says what went wrong once, however many ranks met it, and ends them all with the exit code.
int fail_together(rf::World& world, std::string text, int code) {
    rf::Communicator& all = world.communicator();
    const std::string own = text;
    constexpr double patience = 1;  // seconds: ranks that meet the same trouble come within milliseconds of one another
    const bool together = world.all_arrive(patience, text);
    if (together && all.rank() == 0) rf::log::write_line("error: " + own);
    else if (!together || own != text) rf::log::write_line(rf::message("[rank ", all.rank(), "] error: ", own));
    // The others may be waiting for this rank for ever.
    if (!together) world.abort(code);
    return code;
}

}  // namespace

int main(int argc, char** argv) {
    // Large blocks stay apart from the heap and go back when they are freed. By itself glibc moves this threshold up to 32 MiB once such a block was freed, and heaps grew by holes: 60 to 110 MiB of a rank.
    mallopt(M_MMAP_THRESHOLD, 4 << 20);
    rf::hold_signals();
    rf::World world(argc, argv);
    rf::log::set_rank(world.communicator().rank(), world.communicator().size());
    try {
        return rf::app::run({argv + 1, argv + argc}, world);
    } catch (const rf::UsageError& e) {
        return fail_together(world, e.what(), 2);
    } catch (const std::bad_alloc&) {
        return fail_together(world, "out of memory (use more ranks, a smaller batch or a smaller model)", 1);
    } catch (const std::exception& e) {
        return fail_together(world, e.what(), 1);
    }
}
