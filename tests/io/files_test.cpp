#include "io/files.hpp"

#include "tests/scratch.hpp"

#include <boost/test/unit_test.hpp>

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>

using namespace rf;
namespace fs = std::filesystem;

namespace {

/// 2.5 MiB of bytes that do not repeat, with a digest of two ranges: three blocks.
struct Digested {
    test::Scratch scratch;
    fs::path file = scratch / "data.h5";
    std::string content;
    Digested() {
        content.resize(5 << 19);
        std::uint32_t x = 1;
        for (char& c : content) c = static_cast<char>((x = x * 1664525U + 1013904223U) >> 24);
        test::write(file, content);
        write_digest(file, {{"tokens", 4096, 1 << 20}, {"word start", (1 << 20) + 10, 2 << 20}});
    }
    void flip(std::size_t at) {
        std::string other = content;
        other[at] = static_cast<char>(other[at] ^ 16);
        test::write(file, other);
    }
};

struct Open {
    int fd;
    explicit Open(const fs::path& path) : fd(::open(path.c_str(), O_RDONLY)) {}
    ~Open() { ::close(fd); }
};

}  // namespace

BOOST_AUTO_TEST_CASE(digests_are_xxh3) {
    // XXH3-128 with seed 0 of no bytes, from the specification's own test vectors.
    BOOST_TEST(digest("", 0) == "99aa06d3014798d86001c324468d497f");
    BOOST_TEST(digest("a", 1) != digest("b", 1));
}

BOOST_AUTO_TEST_CASE(a_file_is_replaced_whole) {
    const test::Scratch scratch;
    write_file_atomically(scratch / "a", "first");
    write_file_atomically(scratch / "a", "second, longer");
    BOOST_TEST(read_file(scratch / "a") == "second, longer");
    BOOST_TEST(!fs::exists(scratch / "a.partial"));
    write_file_atomically(scratch / "a", "");
    BOOST_TEST(read_file(scratch / "a").empty());
}

BOOST_AUTO_TEST_CASE(a_write_that_fails_keeps_the_file_before_and_names_the_path) {
    const test::Scratch scratch;
    write_file_atomically(scratch / "a", "first");
    fs::create_directory(scratch / "a.partial");  // in the way
    try {
        write_file_atomically(scratch / "a", "second");
        BOOST_ERROR("no error");
    } catch (const Error& e) {
        RF_TEST_HOLDS(e.what(), scratch("a.partial"));
    }
    BOOST_TEST(read_file(scratch / "a") == "first");
    BOOST_CHECK_THROW(write_file_atomically(scratch / "no/such/folder", "x"), Error);
}

BOOST_AUTO_TEST_CASE(renames_replace) {
    const test::Scratch scratch;
    test::write(scratch / "a", "1");
    test::write(scratch / "b", "2");
    rename_durably(scratch / "a", scratch / "b");
    BOOST_TEST(read_file(scratch / "b") == "1");
    BOOST_TEST(!fs::exists(scratch / "a"));
    BOOST_CHECK_THROW(rename_durably(scratch / "a", scratch / "b"), Error);
    BOOST_CHECK_THROW(read_file(scratch.path()), Error);
}

BOOST_AUTO_TEST_CASE(an_unharmed_file_agrees_with_its_digest) {
    const Digested d;
    BOOST_TEST(find_damage(d.file) == "");
    const test::Scratch scratch;
    test::write(scratch / "empty", "");
    write_digest(scratch / "empty", {});
    BOOST_TEST(find_damage(scratch / "empty") == "");
}

BOOST_AUTO_TEST_CASE(a_flipped_bit_is_named_by_file_range_and_tensor) {
    Digested d;
    d.flip(5000);
    BOOST_TEST(find_damage(d.file) == d.file.string() + ": bytes 0 to 1048575 differ from their digest (holds tokens)");
    d.flip((1 << 20) + 5);
    BOOST_TEST(find_damage(d.file) == d.file.string() + ": bytes 1048576 to 2097151 differ from their digest (holds word start)");
    d.flip(d.content.size() - 1);
    BOOST_TEST(find_damage(d.file) == d.file.string() + ": bytes 2097152 to 2621439 differ from their digest (holds HDF5 structure)");
}

BOOST_AUTO_TEST_CASE(every_length_but_the_right_one_is_damage) {
    Digested d;
    test::write(d.file, d.content.substr(0, 1000));
    RF_TEST_HOLDS(find_damage(d.file), "1000 bytes long, expected 2621440 (truncated)");
    test::write(d.file, d.content + "x");
    RF_TEST_HOLDS(find_damage(d.file), "2621441 bytes long, expected 2621440");
    fs::remove(d.file);
    BOOST_TEST(find_damage(d.file) == d.file.string() + ": missing");
}

BOOST_AUTO_TEST_CASE(the_digest_file_protects_itself) {
    Digested d;
    const fs::path beside = d.file.string() + ".digest";
    const std::string good = read_file(beside);
    for (std::size_t at = 0; at < good.size(); at += 7) {
        std::string bad = good;
        bad[at] = static_cast<char>(bad[at] ^ 1);
        test::write(beside, bad);
        RF_TEST_HOLDS(find_damage(d.file), "the digest file itself is damaged");
    }
    for (const std::size_t size : {std::size_t{0}, std::size_t{20}, good.size() - 1}) {
        test::write(beside, good.substr(0, size));
        RF_TEST_HOLDS(find_damage(d.file), "the digest file itself is damaged");
    }
    fs::remove(beside);
    RF_TEST_HOLDS(find_damage(d.file), "its digest data.h5.digest is missing");
}

BOOST_AUTO_TEST_CASE(shares_of_the_blocks_find_what_the_whole_does) {
    Digested d;
    d.flip((1 << 20) + 5);
    std::int64_t first = -1;
    RF_TEST_HOLDS(find_damage(d.file, {}, &first), "bytes 1048576 to 2097151");
    BOOST_TEST(first == 1);
    for (const std::int64_t parts : {2, 3, 9}) {  // of less than nine blocks
        std::int64_t found = 0;
        for (std::int64_t part = 0; part < parts; ++part) {
            const std::string damage = find_damage(d.file, {.part = part, .parts = parts});
            if (damage.empty()) continue;
            RF_TEST_HOLDS(damage, "bytes 1048576 to 2097151");
            ++found;
        }
        BOOST_TEST(found == 1);
    }
    BOOST_TEST(find_damage(d.file, {.parts = 0}) == "");  // sizes alone
    fs::resize_file(d.file, 10);
    RF_TEST_HOLDS(find_damage(d.file, {.parts = 0}), "truncated");
}

BOOST_AUTO_TEST_CASE(a_checked_reader_gives_what_the_file_holds) {
    const Digested d;
    const Open in(d.file);
    CheckedReader file(d.file);
    const auto size = static_cast<std::int64_t>(d.content.size());
    std::string expected = d.content;
    expected.resize(d.content.size() + 100);  // zeros behind the end
    std::uint32_t x = 7;
    for (int i = 0; i < 300; ++i) {
        const std::int64_t offset = (x = x * 1664525U + 1013904223U) % static_cast<std::uint32_t>(size + 50);
        std::int64_t bytes = (x = x * 1664525U + 1013904223U) % (i % 3 ? 600U : 3U << 20);
        bytes = std::min(bytes, size + 100 - offset);
        std::string found(static_cast<std::size_t>(bytes), '?');
        file.read(in.fd, offset, bytes, found.data());
        BOOST_TEST(found == expected.substr(static_cast<std::size_t>(offset), static_cast<std::size_t>(bytes)), "bytes " << offset << " to " << offset + bytes);
    }
}

BOOST_AUTO_TEST_CASE(a_checked_reader_gives_no_byte_of_a_damaged_block) {
    Digested d;
    constexpr std::int64_t block = 1 << 20;
    d.flip(block + 5000);  // the second of three
    const Open in(d.file);
    const auto read = [&](CheckedReader& file, std::int64_t offset, std::int64_t bytes) {
        std::string data(static_cast<std::size_t>(bytes), '?');
        file.read(in.fd, offset, bytes, data.data());
        return data;
    };
    for (const auto& [offset, bytes] : {std::pair{block, block}, {block, std::int64_t{1}}, {2 * block - 1, std::int64_t{1}}, {block - 1, std::int64_t{2}}, {std::int64_t{0}, 5 * block / 2}}) {
        CheckedReader file(d.file);
        try {
            read(file, offset, bytes);
            BOOST_ERROR("bytes " << offset << " to " << offset + bytes << ": no error");
        } catch (const Damage& e) {
            RF_TEST_HOLDS(e.what(), "data.h5: bytes 1048576 to 2097151 differ from their digest (holds word start)");
        }
        BOOST_TEST(read(file, 0, block) == d.content.substr(0, block));
        BOOST_TEST(read(file, 2 * block, 10) == d.content.substr(2 * block, 10));
        BOOST_CHECK_THROW(read(file, block + 100, 1), Damage);  // met once more
    }
    test::write(d.file, d.content.substr(0, 100));
    BOOST_CHECK_EXCEPTION(CheckedReader(d.file), Damage, [](const Damage& e) { return std::string(e.what()).find("100 bytes long, expected 2621440 (truncated)") != std::string::npos; });
    fs::remove(d.file.string() + ".digest");
    BOOST_CHECK_THROW(CheckedReader(d.file), Damage);
    BOOST_CHECK_THROW(CheckedReader(d.scratch / "absent"), Damage);
}

BOOST_AUTO_TEST_CASE(a_digest_of_impossible_sizes_is_not_believed) {
    const Digested d;
    const fs::path beside = d.file.string() + ".digest";
    const std::string good = read_file(beside);
    for (const char* sizes : {"size 2621440\nblock 0\n", "size 2621440\nblock 1152921504606846976\n", "size -1\nblock 1048576\n", "size 99999999\nblock 1048576\n"}) {
        std::string text = message("roformer-digest 1\n", sizes, good.substr(good.find("range"), good.rfind("end ") - good.find("range")));
        text += "end " + digest(text.data(), static_cast<std::int64_t>(text.size())) + '\n';
        test::write(beside, text);
        RF_TEST_HOLDS(find_damage(d.file), "the digest file itself is damaged");
    }
}

BOOST_AUTO_TEST_CASE(a_seal_finds_every_flip_and_cut) {
    const test::Scratch scratch;
    const fs::path file = scratch / "sealed.h5";
    const std::string content = std::string(seal_bytes, '\0') + "\x89HDF\r\n\x1a\n" + std::string(700, 'x');
    test::write(file, content);
    seal_file(file);
    const std::string good = read_file(file);
    BOOST_TEST(good.size() == content.size());
    BOOST_TEST(has_seal(file));
    BOOST_TEST(find_damage(file) == "");
    for (std::size_t at = 0; at < good.size(); ++at) {
        std::string bad = good;
        bad[at] = static_cast<char>(bad[at] ^ 1);
        test::write(file, bad);
        BOOST_TEST(has_seal(file));
        RF_TEST_HOLDS(find_damage(file), "sealed.h5: differs from the digest it carries");
    }
    for (std::size_t size = 13; size < good.size(); size += 50) {
        test::write(file, good.substr(0, size));
        RF_TEST_HOLDS(find_damage(file), "differs");
    }
    test::write(file, "\x89HDF\r\n\x1a\n and no seal");
    BOOST_TEST(!has_seal(file));
}
