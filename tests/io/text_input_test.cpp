#include "io/text_input.hpp"

#include "tests/scratch.hpp"

#include <boost/iostreams/copy.hpp>
#include <boost/iostreams/filter/gzip.hpp>
#include <boost/iostreams/filter/lzma.hpp>
#include <boost/iostreams/filter/zstd.hpp>
#include <boost/iostreams/filtering_stream.hpp>
#include <boost/test/unit_test.hpp>

#include <sstream>

using namespace rf;
using test::refusal;
namespace bio = boost::iostreams;

namespace {

std::vector<std::string> lines_of(const std::vector<std::string>& paths) {
    LineReader reader(paths);
    std::vector<std::string> lines;
    for (std::string line; reader.next(line);) lines.push_back(std::filesystem::path(reader.path()).filename().string() + ":" + std::to_string(reader.line_number()) + ":" + line);
    return lines;
}

template <class Compressor>
std::string pack(const std::string& text) {
    std::istringstream in(text);
    std::ostringstream out;
    bio::filtering_ostream packed;
    packed.push(Compressor());
    packed.push(out);
    bio::copy(in, packed);
    packed.reset();
    return out.str();
}

using List = std::vector<std::string>;

}  // namespace

BOOST_AUTO_TEST_CASE(lines_come_without_ends_and_byte_order_mark) {
    const test::Scratch scratch;
    test::write(scratch / "a", "\xEF\xBB\xBFone\r\n\ntwo\n");
    test::write(scratch / "b", "");
    test::write(scratch / "c", "last");
    BOOST_TEST((lines_of({scratch("a"), scratch("b"), scratch("c")}) == List{"a:1:one", "a:2:", "a:3:two", "c:1:last"}));
}

BOOST_AUTO_TEST_CASE(lines_across_the_read_buffer_are_whole) {
    const test::Scratch scratch;
    // 256 KiB is the buffer's size; lines end just before, at and after its end.
    std::string text, expected;
    for (const std::size_t n : {(1U << 18) - 1, 1U << 18, (1U << 18) + 1, 600000U, 0U, 1U}) text += std::string(n, static_cast<char>('a' + n % 7)) + '\n';
    test::write(scratch / "a", text);
    LineReader reader({scratch("a")});
    std::string again;
    for (std::string line; reader.next(line);) again += line + '\n';
    BOOST_TEST((again == text));
}

BOOST_AUTO_TEST_CASE(lines_passed_over_are_those_that_begin_in_the_passage) {
    const test::Scratch scratch;
    std::string text = "\xEF\xBB\xBF";
    std::uint32_t random = 1;
    const auto draw = [&](std::uint32_t below) { return (random = random * 1664525 + 1013904223) / 65536 % below; };
    // Some lines are longer than the buffer, some empty, some end in \r\n, the last one not at all.
    while (text.size() < (3U << 20)) text += std::string(draw(400) == 0 ? draw(65536) * 10 : draw(300), static_cast<char>('a' + draw(26))) + (draw(3) == 0 ? "\r\n" : "\n");
    test::write(scratch / "a", text + "end");
    LineReader all({scratch("a")}), some({scratch("a")});
    std::string expected, line;
    std::int64_t passed = 0;
    while (some.next(line)) {
        BOOST_REQUIRE(all.next(expected));
        BOOST_REQUIRE(line == expected);
        BOOST_REQUIRE_EQUAL(some.line_number(), all.line_number());
        BOOST_REQUIRE_EQUAL(some.position(), all.position());
        const std::int64_t bytes = draw(4) == 0 ? draw(65536) * 8 : draw(2) == 0 ? draw(500) : 0, end = some.position() + bytes;
        some.pass(bytes);
        for (; all.position() < end && all.next(expected); ++passed) {}
    }
    BOOST_TEST(!all.next(expected));
    BOOST_TEST(passed > 1000);
}

BOOST_AUTO_TEST_CASE(compressed_files_read_like_plain_ones) {
    const test::Scratch scratch;
    std::string text;
    for (int i = 0; i < 20000; ++i) text += "第" + std::to_string(i * 7919) + "行\n";
    test::write(scratch / "t", text);
    test::write(scratch / "t.gz", pack<bio::gzip_compressor>(text));
    test::write(scratch / "t.xz", pack<bio::lzma_compressor>(text));
    test::write(scratch / "t.zst", pack<bio::zstd_compressor>(text));
    const auto text_of = [&](const char* name) {
        LineReader reader({scratch(name)});
        std::string again;
        for (std::string line; reader.next(line);) again += line + '\n';
        return again;
    };
    for (const char* name : {"t", "t.gz", "t.xz", "t.zst"}) BOOST_TEST((text_of(name) == text), name);
}

BOOST_AUTO_TEST_CASE(a_reader_may_be_left_in_the_middle_of_a_compressed_file) {
    const test::Scratch scratch;
    std::string text;
    for (std::int64_t i = 0; i < 300000; ++i) text += std::to_string(i * 7919) + '\n';
    test::write(scratch / "t.gz", pack<bio::gzip_compressor>(text));
    for (const int lines : {0, 1, 50000}) {
        LineReader reader({scratch("t.gz"), scratch("t.gz")});
        std::string line;
        for (int i = 0; i < lines; ++i) BOOST_REQUIRE(reader.next(line));
        BOOST_TEST((lines == 0 || line == std::to_string((lines - 1) * 7919)));
    }
}

BOOST_AUTO_TEST_CASE(files_of_several_compressed_streams_are_read_to_the_end) {
    const test::Scratch scratch;
    test::write(scratch / "t.gz", pack<bio::gzip_compressor>("one\n") + pack<bio::gzip_compressor>("two\n"));
    test::write(scratch / "t.xz", pack<bio::lzma_compressor>("one\n") + pack<bio::lzma_compressor>("two\n"));
    test::write(scratch / "t.zst", pack<bio::zstd_compressor>("one\n") + pack<bio::zstd_compressor>("two\n"));
    for (const std::string name : {"t.gz", "t.xz", "t.zst"}) BOOST_TEST((lines_of({scratch(name)}) == List{name + ":1:one", name + ":2:two"}), name);
}

BOOST_AUTO_TEST_CASE(damaged_and_truncated_streams_are_named) {
    const test::Scratch scratch;
    std::string text;
    for (int i = 0; i < 50000; ++i) text += std::to_string(i * 7919) + "\n";
    const std::pair<std::string, std::string> files[] = {
        {"t.gz", pack<bio::gzip_compressor>(text)}, {"t.xz", pack<bio::lzma_compressor>(text)}, {"t.zst", pack<bio::zstd_compressor>(text)}};
    for (const auto& [name, bytes] : files) {
        test::write(scratch / name, bytes.substr(0, bytes.size() / 2));
        RF_TEST_HOLDS(refusal([&] { lines_of({scratch(name)}); }), scratch(name) + ": cannot be decompressed after line");
        test::write(scratch / name, "plain text\n");
        RF_TEST_HOLDS(refusal([&] { lines_of({scratch(name)}); }), scratch(name) + ": cannot be decompressed after line 0");
    }
}

BOOST_AUTO_TEST_CASE(no_truncation_passes_for_the_end) {
    const test::Scratch scratch;
    const std::string text = "one\ntwo\nthree 3 33 333\n";
    const std::pair<std::string, std::string> files[] = {
        {"t.gz", pack<bio::gzip_compressor>(text)}, {"t.xz", pack<bio::lzma_compressor>(text)}, {"t.zst", pack<bio::zstd_compressor>(text)}};
    for (const auto& [name, bytes] : files)
        for (std::size_t size = 1; size < bytes.size(); ++size) {
            test::write(scratch / name, bytes.substr(0, size));
            BOOST_TEST(refusal([&] { lines_of({scratch(name)}); }) != "no error", name << " cut to " << size << " of " << bytes.size());
        }
}

BOOST_AUTO_TEST_CASE(a_line_of_more_than_64_mib_is_refused_before_it_is_read_whole) {
    const test::Scratch scratch;
    {
        std::ofstream out(scratch / "long.txt");
        out << "short\n";
        const std::string piece(1 << 20, 'x');
        for (int i = 0; i < 65; ++i) out << piece;
    }
    RF_TEST_HOLDS(refusal([&] { lines_of({scratch("long.txt")}); }), scratch("long.txt") + ":2: a line longer than 64 MiB");
}

BOOST_AUTO_TEST_CASE(folders_globs_and_lists_are_expanded_in_order) {
    const test::Scratch scratch;
    for (const char* name : {"d/b.txt", "d/a.txt", "d/deep/c.txt", "e1.txt", "e2.txt", "f[1].txt"}) test::write(scratch / name, name);
    const auto names = [&](const json::value& what) {
        List out;
        for (const std::string& path : expand_paths(what, {"x", "text"})) out.push_back(path.substr(scratch.path().string().size() + 1));
        return out;
    };
    BOOST_TEST((names(boost::json::string(scratch("d"))) == List{"d/a.txt", "d/b.txt", "d/deep/c.txt"}));
    BOOST_TEST((names(boost::json::string(scratch("e*.txt"))) == List{"e1.txt", "e2.txt"}));
    BOOST_TEST((names(boost::json::string(scratch("f[1].txt"))) == List{"f[1].txt"}));  // a file of that very name
    BOOST_TEST((names(boost::json::array{scratch("e2.txt"), scratch("d")}) == List{"e2.txt", "d/a.txt", "d/b.txt", "d/deep/c.txt"}));
    std::filesystem::create_directory(scratch / "hollow");
    RF_TEST_HOLDS(refusal([&] { names(boost::json::string(scratch("g*"))); }), "x: text: nothing matches " + scratch("g*"));
    RF_TEST_HOLDS(refusal([&] { names(boost::json::string(scratch("g"))); }), scratch("g") + " does not exist");
    RF_TEST_HOLDS(refusal([&] { names(boost::json::string(scratch("hollow"))); }), "is empty");
    RF_TEST_HOLDS(refusal([&] { names(3); }), "expected a text file, folder, glob or a list of them");
    RF_TEST_HOLDS(refusal([&] { names(""); }), "expected a text file");
    RF_TEST_HOLDS(refusal([&] { names(boost::json::array{}); }), "no text files given");
}

BOOST_AUTO_TEST_CASE(records_have_text_content_or_words) {
    BOOST_TEST(text_of_record(R"({"text": "中\n文", "id": 3})").text == "中\n文");
    BOOST_TEST(text_of_record(R"({"content": "好"})").text == "好");
    const TextRecord record = text_of_record(R"({"words": ["今天", "很", "好"]})");
    BOOST_TEST(record.text == "今天很好");
    BOOST_TEST(record.words.size() == 3U);
    BOOST_TEST(without_compression("a.jsonl.xz") == "a.jsonl");
    BOOST_TEST(without_compression("a.jsonl") == "a.jsonl");
}

BOOST_AUTO_TEST_CASE(bad_records_say_why) {
    const std::pair<const char*, const char*> cases[] = {{"{", "not valid JSON"},
                                                         {"[1]", "expected a JSON object"},
                                                         {R"({"title": "x"})", "no \"text\", \"content\" or \"words\""},
                                                         {R"({"text": 3})", "\"text\" is not a string"},
                                                         {R"({"words": "x"})", "\"words\" is not a list"},
                                                         {R"({"words": [1]})", "not a string"}};
    for (const auto& [line, why] : cases) {
        try {
            text_of_record(line);
            BOOST_ERROR("accepted: " << line);
        } catch (const Error& e) {
            RF_TEST_HOLDS(e.what(), why);
        }
    }
}
