#include "app/command.hpp"
#include "train/pretrain.hpp"

namespace rf::app {

int run_pretrain(const Invocation& invocation, World& world) {
    json::Place place;
    PretrainInput input = resolve<PretrainInput>(invocation, place);
    return pretrain(std::move(input), place, world, invocation.restart);
}

json::value pretrain_defaults() { return defaults_of<PretrainInput>(); }

}  // namespace rf::app
