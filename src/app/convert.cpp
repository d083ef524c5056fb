/// roformer convert: weights from one format to another.

#include "app/command.hpp"
#include "convert/convert.hpp"
#include "core/log.hpp"

#include <chrono>
#include <cmath>
#include <utility>

namespace rf::app {

namespace {

/// The value of an option, as one of a table of words.
template <class T, std::size_t N>
T one_of(const std::string& option, const std::string& word, const std::pair<const char*, T> (&table)[N]) {
    std::string known;
    for (const auto& [name, value] : table) {
        if (word == name) return value;
        known += (known.empty() ? "" : ", ") + std::string(name);
    }
    fail_usage("--", option, ": expected one of ", known, "; found \"", word, "\"");
}

convert::Format read_format(const Invocation& invocation, const char* option) {
    using convert::Format;
    return one_of<Format>(option, invocation.need(option), {{"rf", Format::rf}, {"hf", Format::hf}, {"tf", Format::tf}, {"keras-h5", Format::keras}});
}

}  // namespace

int run_convert(const Invocation& invocation, World& world) {
    convert::ConvertOptions options;
    options.from = read_format(invocation, "from");
    options.to = read_format(invocation, "to");
    options.torch_file = one_of<convert::TorchFile>("weights", invocation.option("weights", "safetensors"),
                                                    {{"safetensors", convert::TorchFile::safetensors}, {"zip", convert::TorchFile::zip}});
    options.alpha = one_of<convert::AlphaRule>("alpha", invocation.option("alpha", "keep"), {{"keep", convert::AlphaRule::keep}, {"fold", convert::AlphaRule::fold}});
    options.origin = {.family = one_of<const char*>("family", invocation.option("family", "roformer_v2"),
                                                    {{"roformer_v2", "roformer_v2"}, {"roformer", "roformer"}, {"bert", "bert"}, {"roberta", "roberta"}}),
                      .config = invocation.option("config", ""), .vocab = invocation.option("vocab", "")};
    if (options.to != convert::Format::hf && invocation.options.contains("weights")) fail_usage("--weights belongs to --to hf");
    if (options.from == convert::Format::rf && (invocation.options.contains("family") || !options.origin.config.empty() || !options.origin.vocab.empty()))
        fail_usage("--family, --config and --vocab belong to other formats than rf, whose checkpoints hold all three");
    if (options.from == convert::Format::keras && options.origin.family != "roformer_v2") fail_usage("--family ", options.origin.family, ": of keras-h5 only RoFormerV2 is read");
    if (invocation.positional.size() != 2) fail_usage("convert needs IN and OUT, found ", invocation.positional.size(), invocation.positional.size() == 1 ? " path" : " paths");
    options.in = invocation.positional[0];
    options.out = invocation.positional[1];
    if (world.communicator().size() != 1) fail_usage("convert runs on one rank, found ", world.communicator().size());
    const auto started = std::chrono::steady_clock::now();
    const convert::Converted done = convert::convert(options);
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
    for (const std::string& note : done.notes) log::info(note);
    log::info("converted and read back ", done.tensors, " tensors, ", done.parameters, " parameters in ", std::round(100 * seconds) / 100, " s -> ", options.out.string());
    return 0;
}

}  // namespace rf::app
