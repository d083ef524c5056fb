#include "train/multitask.hpp"

#include "app/command.hpp"

namespace rf::app {

int run_multitask(const Invocation& invocation, World& world) {
    if (invocation.check) return run_multitask_check(invocation, world);
    json::Place place;
    MultitaskInput input = resolve<MultitaskInput>(invocation, place);
    return multitask(std::move(input), place, world, invocation.restart);
}

json::value multitask_defaults() { return defaults_of<MultitaskInput>(); }

}  // namespace rf::app
