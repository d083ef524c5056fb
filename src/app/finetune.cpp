#include "train/finetune.hpp"

#include "app/command.hpp"

namespace rf::app {

int run_finetune(const Invocation& invocation, World& world) {
    FinetuneInput input;
    json::Place place;
    const json::value given = read_input(invocation, place);
    json::read(given, input, place);
    Ranks ranks(world, input, place);
    return finetune(std::move(input), place, ranks, invocation.restart);
}

json::value finetune_defaults() { return defaults_of<FinetuneInput>(); }

}  // namespace rf::app
