#include "text/vocabulary.hpp"

#include "core/check.hpp"

#include <boost/test/unit_test.hpp>

using namespace rf;

namespace {
const std::string specials = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n";

/// The message of the UsageError that the file's bytes give.
std::string refusal(const std::string& content) {
    try {
        const Vocabulary vocabulary(content, "v.txt");
    } catch (const UsageError& e) {
        return e.what();
    }
    return "accepted";
}
}  // namespace

BOOST_AUTO_TEST_CASE(the_id_is_the_number_of_the_line) {
    const Vocabulary v(specials + "中\n##x\r\n##", "v.txt");  // no end of line at the end; CRLF
    BOOST_TEST(v.size() == 8);
    BOOST_TEST(v.find("中") == 5);
    BOOST_TEST(v.find("##x") == 6);
    BOOST_TEST(v.find("x") == -1);
    BOOST_TEST(v.token(5) == "中");
    BOOST_TEST(v.continues_word(6));
    BOOST_TEST(!v.continues_word(7));  // "##" alone is a word of two signs
    BOOST_TEST((std::vector<std::int32_t>{v.pad(), v.unknown(), v.cls(), v.sep(), v.mask()} == std::vector<std::int32_t>{0, 1, 2, 3, 4}));
}

BOOST_AUTO_TEST_CASE(equal_bytes_have_equal_digests) {
    BOOST_TEST(Vocabulary(specials + "a", "x").digest() == Vocabulary(specials + "a", "y").digest());
    BOOST_TEST(Vocabulary(specials + "a", "x").digest() != Vocabulary(specials + "b", "x").digest());
}

BOOST_AUTO_TEST_CASE(errors_name_file_and_line) {
    const auto says = [](const std::string& content, const char* part) {
        const std::string text = refusal(content);
        BOOST_TEST(text.find(part) != std::string::npos, text << " lacks " << part);
    };
    says("", "v.txt: the vocabulary is empty");
    says(specials + "a\n\nb\n", "v.txt:7: empty line");
    says(specials + "a\nb\na\n", "v.txt:8: the token \"a\" stands in line 6 already");
    says(specials + "a\n\xFF\n", "v.txt:7: not UTF-8");
    says("[PAD]\n[UNK]\n[CLS]\n[SEP]\n", "[MASK] is missing");
    std::string big = specials;
    for (int i = 0; i < 65536; ++i) big += "t" + std::to_string(i) + "\n";
    says(big, "v.txt:65537: more than 65536 tokens");
    BOOST_CHECK_THROW(Vocabulary(std::string("nowhere/vocab.txt")), UsageError);
}
