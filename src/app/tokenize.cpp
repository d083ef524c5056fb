#include "app/command.hpp"
#include "text/tokenizer.hpp"

#include <charconv>
#include <iostream>

namespace rf::app {

int run_tokenize(const Invocation& invocation, World& world) {
    if (world.communicator().size() > 1) fail_usage("tokenize runs on one rank");
    const Vocabulary vocab(invocation.need("vocab"));
    const Tokenizer tokenizer(vocab);
    std::ios::sync_with_stdio(false);
    std::vector<std::int32_t> ids;
    std::string line, out;
    std::u32string text;
    std::int64_t number = 0;
    while (std::getline(std::cin, line)) {
        ++number;
        ids.assign(1, vocab.cls());
        try {
            decode_utf8(line, text);
            tokenizer.encode(text, ids);
        } catch (const Utf8Error& e) {
            std::cout << std::flush;
            fail_usage("standard input, line ", number, ": ", e.what());
        }
        ids.push_back(vocab.sep());
        out.clear();
        for (const std::int32_t id : ids) {
            char digits[16];
            out.append(digits, std::to_chars(digits, digits + sizeof digits, id).ptr).push_back(' ');
        }
        out.back() = '\n';
        if (!std::cout.write(out.data(), static_cast<std::streamsize>(out.size()))) return 0;  // the reader went away
    }
    if (number == 0) fail_usage("no text on standard input");
    return 0;
}

}  // namespace rf::app
