#include "train/multitask.hpp"

#include "app/command.hpp"

namespace rf::app {

int run_multitask(const Invocation& invocation, World& world) {
    if (invocation.check) return run_multitask_check(invocation, world);
    MultitaskInput input;
    json::Place place;
    const json::value given = read_input(invocation, place);
    json::read(given, input, place);
    return multitask(std::move(input), place, world, invocation.restart);
}

json::value multitask_defaults() { return defaults_of<MultitaskInput>(); }

}  // namespace rf::app
