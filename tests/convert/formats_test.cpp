#include "convert/crc.hpp"
#include "convert/keras_file.hpp"
#include "convert/pickle.hpp"
#include "convert/safetensors.hpp"
#include "convert/sorted_table.hpp"
#include "convert/tf_bundle.hpp"
#include "convert/torch_file.hpp"
#include "convert/weights.hpp"
#include "convert/zip.hpp"
#include "io/files.hpp"

#include "tests/scratch.hpp"

#include <boost/test/unit_test.hpp>

#include <cmath>
#include <limits>

using namespace rf;
using namespace rf::convert;
namespace fs = std::filesystem;

namespace {

const TensorList two = {{"a", {2, 3}}, {"b/c", {4}}};
const std::vector<float> first = {1, -2, 3.5F, 0, 1e-30F, -0.0F}, second = {5, 6, 7, 8};

void write_both(TensorWriter& writer) {
    writer.write(first.data());
    writer.write(second.data());
    writer.finish();
}

void check_both(const TensorReader& reader, const std::string& b = "b/c") {
    BOOST_TEST(reader.tensors().size() == 2U);
    BOOST_TEST(reader.tensors().at("a").dims == (Dims{2, 3}), boost::test_tools::per_element());
    std::vector<float> out(6);
    reader.read("a", out.data());
    BOOST_TEST(out == first, boost::test_tools::per_element());
    BOOST_TEST(std::signbit(out[5]));
    out.resize(4);
    reader.read(b, out.data());
    BOOST_TEST(out == second, boost::test_tools::per_element());
}

std::unique_ptr<Bytes> memory(const std::string& content) { return std::make_unique<Bytes>(content, "file"); }

std::string safetensors(const std::string& header, std::size_t data) {
    std::string out;
    store(out, static_cast<std::uint64_t>(header.size()));
    return out + header + std::string(data, '\1');
}
std::string refused_safetensors(const std::string& header, std::size_t data) {
    const std::string content = safetensors(header, data);
    return test::refusal([&] { read_safetensors(memory(content)); });
}

std::string refused_pickle(const std::string& pickle) {
    const Bytes bytes(pickle, "file");
    PickleValues values;
    std::int64_t offset = 0;
    return test::refusal([&] { read_pickle(bytes, offset, bytes.size(), values); });
}

}  // namespace

BOOST_AUTO_TEST_CASE(checksums_are_those_of_the_standards) {
    // The check values of both polynomials in the catalogue of CRC algorithms, and one longer than eight bytes twice over.
    BOOST_TEST(convert::crc32("123456789", 9) == 0xcbf43926U);
    BOOST_TEST(crc32c("123456789", 9) == 0xe3069283U);
    const std::string zeros(32, '\0');  // RFC 3720, B.4
    BOOST_TEST(crc32c(zeros.data(), 32) == 0x8a9136aaU);
    BOOST_TEST(crc32c("6789", 4, crc32c("12345", 5)) == 0xe3069283U);
    BOOST_TEST(mask_crc(0) == 0xa282ead8U);
    // Long stretches take another way; bit by bit it is the definition.
    std::string text(1000, '\0');
    for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>(i * i >> 3);
    const auto by_definition = [](std::string_view bytes, std::uint32_t polynomial, std::uint32_t crc) {
        crc = ~crc;
        for (const char byte : bytes) {
            crc ^= static_cast<unsigned char>(byte);
            for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1U) ? polynomial : 0U);
        }
        return ~crc;
    };
    for (const std::size_t size : {127, 128, 129, 191, 192, 255, 256, 997}) {
        const std::string_view bytes = std::string_view(text).substr(3, size);
        BOOST_TEST(convert::crc32(bytes.data(), static_cast<std::int64_t>(size), 77) == by_definition(bytes, 0xedb88320U, 77), size);
        BOOST_TEST(crc32c(bytes.data(), static_cast<std::int64_t>(size), 77) == by_definition(bytes, 0x82f63b78U, 77), size);
    }
}

BOOST_AUTO_TEST_CASE(sixteen_bit_numbers_widen_exactly) {
    // 1, -2, largest, smallest normal, smallest subnormal, infinity.
    const std::vector<std::uint16_t> half = {0x3c00, 0xc000, 0x7bff, 0x0400, 0x0001, 0x7c00, 0x8000};
    std::vector<float> out(half.size());
    widen(Element::f16, half.data(), 7, out.data());
    const std::vector<float> expected = {1, -2, 65504, 0x1p-14F, 0x1p-24F, std::numeric_limits<float>::infinity(), -0.0F};
    BOOST_TEST(out == expected, boost::test_tools::per_element());
    BOOST_TEST(std::signbit(out[6]));
    const std::vector<std::uint16_t> brain = {0x3f80, 0xc000, 0x7f80};
    widen(Element::bf16, brain.data(), 3, out.data());
    BOOST_TEST(out[0] == 1);
    BOOST_TEST(out[1] == -2);
    BOOST_TEST(std::isinf(out[2]));
}

BOOST_AUTO_TEST_CASE(a_matrix_is_transposed_at_any_size) {
    for (const auto& [rows, columns] : {std::pair<std::int64_t, std::int64_t>{1, 1}, {3, 5}, {16, 16}, {32, 33}, {70, 64}, {300, 17}}) {
        std::vector<float> from(static_cast<std::size_t>(rows * columns)), to(from.size());
        for (std::size_t i = 0; i < from.size(); ++i) from[i] = static_cast<float>(i);
        transpose(from.data(), rows, columns, to.data());
        bool right = true;
        for (std::int64_t r = 0; r < rows; ++r)
            for (std::int64_t c = 0; c < columns; ++c) right = right && to[static_cast<std::size_t>(c * rows + r)] == from[static_cast<std::size_t>(r * columns + c)];
        BOOST_TEST(right, rows << " x " << columns);
    }
}

BOOST_AUTO_TEST_CASE(every_format_gives_back_what_was_written) {
    const test::Scratch scratch;
    write_both(*write_safetensors(scratch / "x.safetensors", two));
    check_both(*read_safetensors(std::make_unique<Bytes>(scratch / "x.safetensors")));
    write_both(*write_torch(scratch / "x.bin", two, {{"again", "a"}}));
    const auto torch = read_torch(std::make_unique<Bytes>(scratch / "x.bin"));
    BOOST_TEST(torch->tensors().size() == 3U);
    BOOST_TEST(torch->same_storage("again", "a"));
    BOOST_TEST(!torch->same_storage("again", "b/c"));
    std::vector<float> out(6);
    torch->read("again", out.data());
    BOOST_TEST(out == first, boost::test_tools::per_element());
    write_both(*write_tf_bundle(scratch / "x.ckpt", two));
    check_both(*read_tf_bundle(scratch / "x.ckpt"));
    BOOST_TEST(fs::file_size(scratch / "x.ckpt.data-00000-of-00001") == 40U);  // no gaps
    write_both(*write_keras(scratch / "x.h5", {{"a/a/kernel:0", {2, 3}}, {"b/b/bias:0", {4}}}, {{"note", "text"}}));
    const auto keras = read_keras(scratch / "x.h5");
    BOOST_TEST(keras->tensors().contains("a[0]"));
    BOOST_TEST(keras->note("note") == "text");
    BOOST_TEST(keras->note("other").empty());
    keras->read("a[0]", out.data());
    BOOST_TEST(out == first, boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(safetensors_with_wrong_offsets_are_refused) {
    const std::string a = R"("a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]})", b = R"("b":{"dtype":"F32","shape":[2],"data_offsets":)";
    BOOST_TEST(refused_safetensors("{" + a + "}", 8) == "no error");
    RF_TEST_HOLDS(refused_safetensors("{" + a + "," + b + "[4,12]}}", 12), "tensors a and b overlap at byte 4");
    RF_TEST_HOLDS(refused_safetensors("{" + a + "," + b + "[16,24]}}", 24), "belong to no tensor");
    RF_TEST_HOLDS(refused_safetensors("{" + a + "," + b + "[8,16]}}", 12), "out of range");
    RF_TEST_HOLDS(refused_safetensors("{" + a + "," + b + "[8,12]}}", 12), "do not hold [2] of F32");
    RF_TEST_HOLDS(refused_safetensors("{" + a + "," + b + "[12,8]}}", 12), "expected [begin, end]");
    RF_TEST_HOLDS(refused_safetensors("{" + a + "," + b + "[-8,0]}}", 12), "expected [begin, end]");
    RF_TEST_HOLDS(refused_safetensors("{" + a + "}", 12), "4 bytes after the last tensor");
    RF_TEST_HOLDS(refused_safetensors("{" + a + "," + a + "}", 8), "given twice");
    RF_TEST_HOLDS(refused_safetensors(R"({"a":{"dtype":"F99","shape":[2],"data_offsets":[0,8]}})", 8), "unknown dtype");
    RF_TEST_HOLDS(refused_safetensors(R"({"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,8]}})", 8), "impossible shape");
    RF_TEST_HOLDS(refused_safetensors("[1]", 0), "expected an object");
    const std::string huge(8, '\x7f'), cut = "\1\0\0";
    RF_TEST_HOLDS(test::refusal([&] { read_safetensors(memory(huge)); }), "not a safetensors file");
    RF_TEST_HOLDS(test::refusal([&] { read_safetensors(memory(cut)); }), "truncated");
    const std::string whole = safetensors(R"({"a":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}})", 8);
    RF_TEST_HOLDS(test::refusal([&] {
                      float x = 0;
                      read_safetensors(memory(whole))->read("a", &x);
                  }),
                  "tensor a holds I64");
}

BOOST_AUTO_TEST_CASE(a_pickle_with_code_is_refused_and_named) {
    BOOST_TEST(refused_pickle("\x80\x02}.") == "no error");
    RF_TEST_HOLDS(refused_pickle("\x80\x02" "cos\nsystem\nX\x04" + std::string(3, '\0') + "true\x85R."), "refused: the pickle names os.system");
    RF_TEST_HOLDS(refused_pickle("\x80\x04\x8c\x08" "builtins\x8c\x04" "eval\x93."), "refused: the pickle names builtins.eval");
    RF_TEST_HOLDS(refused_pickle("\x80\x02" "ctorch\nload\n."), "torch.load");
    RF_TEST_HOLDS(refused_pickle("\x80\x02" "c__builtin__\ngetattr\n."), "__builtin__.getattr");
    RF_TEST_HOLDS(refused_pickle("(S'x'\nios\nsystem\n."), "refused: the pickle holds opcode 0x53");  // of protocol 0
    RF_TEST_HOLDS(refused_pickle("\x80\x02(i"), "opcode 0x69");                                        // INST
    RF_TEST_HOLDS(refused_pickle("\x80\x02)\x81."), "opcode 0x81");                                    // NEWOBJ
    RF_TEST_HOLDS(refused_pickle("\x80\x02\x82\x01."), "opcode 0x82");                                 // EXT1
    RF_TEST_HOLDS(refused_pickle("\x80\x02P1\n."), "opcode 0x50");                                     // PERSID
    RF_TEST_HOLDS(refused_pickle("\x80\x02" "ccollections\nOrderedDict\n(K\x01tR."), "calls collections.OrderedDict with 1 arguments");
}

BOOST_AUTO_TEST_CASE(a_damaged_pickle_is_an_error) {
    for (const std::string& pickle : {std::string("\x80\x02"), std::string("\x80\x02."), std::string("\x80\x02t."), std::string("\x80\x02h\x05."), std::string("\x80\x02R."),
                                      std::string("\x80\x02}K\x01s."), std::string("\x80\x02]K\x01K\x02s."), std::string("\x80\x09N."), std::string("\x80\x02NN."),
                                      std::string("\x80\x02X\xff\xff\xff\xff" "abc."), std::string("\x80\x02(."), std::string("\x80\x02" "NNb."), std::string("\x80\x02\x8a\x20."),
                                      std::string("\x80\x02NQ."), std::string("\x80\x02\x8d\xff\xff\xff\xff\xff\xff\xff\xff.")})
        RF_TEST_HOLDS(refused_pickle(pickle), "file: the pickle");
}

BOOST_AUTO_TEST_CASE(zip_archives_of_other_kinds_are_refused) {
    const test::Scratch scratch;
    {
        OutputFile file(scratch / "a.zip");
        ZipWriter zip(file);
        zip.add("x/data.pkl", "\x80\x02}.");
        zip.add("y", "hello");
        zip.finish();
        file.finish();
    }
    const std::string whole = read_file(scratch / "a.zip");
    const auto entries = read_zip(*memory(whole));
    BOOST_TEST(entries.size() == 2U);
    BOOST_TEST(entries.at("y").begin % 64 == 0);
    BOOST_TEST(whole.substr(static_cast<std::size_t>(entries.at("y").begin), 5) == "hello");
    RF_TEST_HOLDS(test::refusal([&] { read_torch(memory(whole)); }), "holds no tensor");
    const auto changed = [&](std::size_t from_end, const char* bytes) {
        std::string other = whole;
        const std::string replacement = bytes;
        other.replace(other.size() - from_end, replacement.size(), replacement);
        return test::refusal([&] { read_zip(*memory(other)); });
    };
    RF_TEST_HOLDS(changed(6, "\xff\xff\xff\x7f"), "lies outside");
    const std::size_t central = whole.rfind("PK\1\2");
    RF_TEST_HOLDS(changed(whole.size() - central - 10, "\x08"), "compressed or encrypted");
    RF_TEST_HOLDS(changed(whole.size() - central - 42, "\x01"), "is not where the directory says");
    RF_TEST_HOLDS(test::refusal([&] { read_zip(*memory("PK\3\4 and nothing else, long enough")); }), "without its directory");
}

BOOST_AUTO_TEST_CASE(a_table_of_many_blocks_is_read_back) {
    const test::Scratch scratch;
    std::map<std::string, std::string> entries;
    for (int i = 0; i < 5000; ++i) entries[message("variable_", i)] = std::string(static_cast<std::size_t>(i % 300), static_cast<char>('a' + i % 26));
    {
        OutputFile file(scratch / "table");
        write_sorted_table(file, entries);
        BOOST_TEST(file.position() > 2 << 18);  // more than two blocks
        file.finish();
    }
    BOOST_TEST((read_sorted_table(Bytes(scratch / "table")) == entries));
    std::string other = read_file(scratch / "table");
    other[1000] ^= 1;
    RF_TEST_HOLDS(test::refusal([&] { read_sorted_table(*memory(other)); }), "does not agree with its checksum");
    other.back() ^= 1;
    RF_TEST_HOLDS(test::refusal([&] { read_sorted_table(*memory(other)); }), "no table of TensorFlow");
}

BOOST_AUTO_TEST_CASE(a_changed_number_is_found_by_its_checksum) {
    const test::Scratch scratch;
    const auto flip = [&](const fs::path& path, std::size_t at) {
        std::string content = read_file(path);
        content[at] ^= 4;
        test::write(path, content);
    };
    std::vector<float> out(6);
    write_both(*write_tf_bundle(scratch / "x.ckpt", two));
    flip(scratch / "x.ckpt.data-00000-of-00001", 3);
    RF_TEST_HOLDS(test::refusal([&] { read_tf_bundle(scratch / "x.ckpt")->read("a", out.data()); }), "variable a does not agree with its checksum");
    write_both(*write_torch(scratch / "x.bin", two, {}));
    const std::string whole = read_file(scratch / "x.bin");
    flip(scratch / "x.bin", static_cast<std::size_t>(read_zip(*memory(whole)).at("x/data/0").begin));
    RF_TEST_HOLDS(test::refusal([&] { read_torch(std::make_unique<Bytes>(scratch / "x.bin"))->read("a", out.data()); }), "storage 0 does not agree with its checksum");
}
