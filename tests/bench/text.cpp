/// Tokenizer and segmenter on one core: `bench_text VOCAB DICTIONARY LINES`, a document a line. Prints one line of JSON; text.py runs it.

#include "io/text_input.hpp"
#include "text/segmenter.hpp"
#include "text/tokenizer.hpp"

#include <boost/json.hpp>

#include <ctime>
#include <iostream>
#include <limits>

using namespace rf;

namespace {

double processor_seconds() {
    timespec t{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

/// Of the quickest of three passes: what other programs take from the caches counts least.
template <class Pass>
double quickest(Pass pass) {
    double best = std::numeric_limits<double>::infinity();
    for (int i = 0; i < 3; ++i) {
        const double begin = processor_seconds();
        pass();
        best = std::min(best, processor_seconds() - begin);
    }
    return best;
}

}  // namespace

int main(int argc, char** argv) {
    try {
        RF_REQUIRE(argc == 4, "usage: bench_text VOCAB DICTIONARY LINES");
        const Vocabulary vocabulary(argv[1]);
        const Tokenizer tokenizer(vocabulary);
        const std::unique_ptr<Segmenter> segmenter = make_segmenter("jieba", argv[2]);
        std::vector<std::string> documents;
        std::int64_t bytes = 0;
        LineReader lines({argv[3]});
        for (std::string line; lines.next(line);) {
            bytes += static_cast<std::int64_t>(line.size());
            documents.push_back(line);
        }
        std::int64_t tokens = 0, words = 0;
        // Both from UTF-8.
        const double tokenizing = quickest([&] {
            tokens = 0;
            for (const std::string& text : documents) tokens += static_cast<std::int64_t>(tokenizer.encode(text).size());
        });
        std::u32string characters;
        std::vector<std::uint8_t> starts;
        const double segmenting = quickest([&] {
            words = 0;
            for (const std::string& text : documents) {
                decode_utf8(text, characters);
                segmenter->segment(characters, starts);
                words += std::count(starts.begin(), starts.end(), 1);
            }
        });
        std::cout << boost::json::object{{"bytes", bytes}, {"tokens", tokens}, {"words", words}, {"tokenizer_seconds", tokenizing}, {"segmenter_seconds", segmenting}} << '\n';
    } catch (const std::exception& e) {
        std::cerr << "bench_text: " << e.what() << '\n';
        return 1;
    }
}
