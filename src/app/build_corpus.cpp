#include "app/command.hpp"
#include "data/corpus_build.hpp"

namespace rf::app {

int run_build_corpus(const Invocation& invocation, World& world) {
    BuildCorpusInput input;
    json::Place place;
    json::read(read_input(invocation, place), input, place);
    build_corpus(input, place, world.communicator(), invocation.restart);
    return 0;
}

json::value build_corpus_defaults() { return defaults_of<BuildCorpusInput>(); }

}  // namespace rf::app
