#include "train/finetune.hpp"

#include "app/command.hpp"

namespace rf::app {

int run_finetune(const Invocation& invocation, World& world) {
    json::Place place;
    FinetuneInput input = resolve<FinetuneInput>(invocation, place);
    Ranks ranks(world, input, place);
    return finetune(std::move(input), place, ranks, invocation.restart);
}

json::value finetune_defaults() { return defaults_of<FinetuneInput>(); }

}  // namespace rf::app
