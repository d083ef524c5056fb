#include "app/command.hpp"
#include "core/log.hpp"
#include "io/files.hpp"
#include "io/text_input.hpp"
#include "text/unicode.hpp"
#include "text/vocab_builder.hpp"

#include <boost/describe.hpp>

namespace rf::app {

namespace fs = std::filesystem;

namespace {

struct BuildVocabInput {
    json::value text = "";
    std::string output;               ///< vocab.txt, or a folder to put it in
    std::int64_t size = 12000;
    std::int64_t min_frequency = 2;   ///< rarer characters and pieces are left out
    std::int64_t max_bad_lines = 0;   ///< malformed lines passed over, counted
};
BOOST_DESCRIBE_STRUCT(BuildVocabInput, (), (text, output, size, min_frequency, max_bad_lines))

}  // namespace

int run_build_vocab(const Invocation& invocation, World& world) {
    if (world.communicator().size() > 1) fail_usage("build-vocab runs on one rank");
    json::Place place;
    const BuildVocabInput input = resolve<BuildVocabInput>(invocation, place);
    if (input.output.empty()) fail_usage(place.at("output"), ": expected a vocab.txt or a folder");
    if (input.size < 110 || input.size > 65536) fail_usage(place.at("size"), ": expected 110 to 65536, found ", input.size);
    if (input.min_frequency < 1) fail_usage(place.at("min_frequency"), ": expected at least 1, found ", input.min_frequency);
    fs::path output = input.output;
    if (output.extension() != ".txt") output /= "vocab.txt";
    LineReader lines(expand_paths(input.text, place.at("text")));
    VocabBuilder builder;
    std::int64_t bad = 0;
    for (std::string line; lines.next(line);) {
        try {
            const bool is_json = without_compression(lines.path()).ends_with(".jsonl");
            builder.add(is_json ? text_of_record(line).text : line);
        } catch (const Error& e) {
            if (++bad > input.max_bad_lines) fail_usage(lines.path(), ":", lines.line_number(), ": ", e.what());
        }
        if (lines.line_number() % 1000 == 0) log::live(message("read ", lines.path(), " line ", lines.line_number()));
    }
    if (builder.words_seen() == 0) fail_usage(place.at("text"), ": the text holds no words");
    std::string text;
    const std::vector<std::string> tokens = builder.build(input.size, input.min_frequency);
    for (const std::string& token : tokens) text += token + '\n';
    try {
        if (output.has_parent_path()) fs::create_directories(output.parent_path());
        write_file_atomically(output, text);
    } catch (const std::exception& e) {
        fail_usage(place.at("output"), ": cannot write ", output.string(), " (", e.what(), ")");
    }
    log::info(tokens.size(), " tokens from ", builder.words_seen(), " words -> ", output.string(), bad ? message("; ", bad, " bad lines passed over") : "");
    return 0;
}

json::value build_vocab_defaults() { return defaults_of<BuildVocabInput>(); }

}  // namespace rf::app
