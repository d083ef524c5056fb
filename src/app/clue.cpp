#include "train/clue.hpp"

#include "app/command.hpp"

namespace rf::app {

int run_clue(const Invocation& invocation, World& world) {
    json::Place place;
    const ClueInput input = resolve<ClueInput>(invocation, place);
    return clue(input, place, world, invocation.restart);
}

json::value clue_defaults() { return defaults_of<ClueInput>(); }

}  // namespace rf::app
