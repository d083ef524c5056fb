#include "app/command.hpp"
#include "data/corpus_build.hpp"

namespace rf::app {

int run_build_corpus(const Invocation& invocation, World& world) {
    json::Place place;
    const BuildCorpusInput input = resolve<BuildCorpusInput>(invocation, place);
    build_corpus(input, place, world.communicator(), invocation.restart);
    return 0;
}

json::value build_corpus_defaults() { return defaults_of<BuildCorpusInput>(); }

}  // namespace rf::app
