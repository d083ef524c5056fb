/// Reads lines, writes them with U+0001 between the words of the segmenter "jieba": for comparison with jieba itself.

#include "text/segmenter.hpp"

#include <iostream>

int main() {
    try {
        const auto segmenter = rf::make_segmenter("jieba", rf::default_dictionary);
        std::vector<std::uint8_t> starts;
        for (std::string line, out; std::getline(std::cin, line); std::cout << out << '\n') {
            const std::u32string text = rf::decode_utf8(line);
            segmenter->segment(text, starts);
            out.clear();
            for (std::size_t i = 0; i < text.size(); ++i) {
                if (starts[i] && i > 0) out += '\x01';
                rf::append_utf8({&text[i], 1}, out);
            }
        }
    } catch (const std::exception& e) {
        std::cerr << e.what() << '\n';
        return 1;
    }
}
