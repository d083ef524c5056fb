#include "train/clue.hpp"

#include "app/command.hpp"

namespace rf::app {

int run_clue(const Invocation& invocation, World& world) {
    ClueInput input;
    json::Place place;
    const json::value given = read_input(invocation, place);
    json::read(given, input, place);
    return clue(input, place, world, invocation.restart);
}

json::value clue_defaults() { return defaults_of<ClueInput>(); }

}  // namespace rf::app
