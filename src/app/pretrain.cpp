#include "app/command.hpp"
#include "train/pretrain.hpp"

namespace rf::app {

int run_pretrain(const Invocation& invocation, World& world) {
    PretrainInput input;
    json::Place place;
    const json::value given = read_input(invocation, place);
    json::read(given, input, place);
    return pretrain(std::move(input), place, world, invocation.restart);
}

json::value pretrain_defaults() { return defaults_of<PretrainInput>(); }

}  // namespace rf::app
