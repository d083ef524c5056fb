#include "text/trie.hpp"

#include <boost/test/unit_test.hpp>

#include <map>
#include <random>

using namespace rf;

namespace {
std::int32_t look_up(const Trie& trie, std::u32string_view key) {
    std::int32_t node = Trie::root;
    for (const char32_t c : key)
        if ((node = trie.step(node, c)) == Trie::none) return Trie::none;
    return trie.value(node);
}
}  // namespace

BOOST_AUTO_TEST_CASE(an_empty_trie_holds_nothing) {
    const Trie trie;
    BOOST_TEST(look_up(trie, U"a") == Trie::none);
    BOOST_TEST(look_up(Trie(std::span<const Trie::Entry>{}), U"中") == Trie::none);
}

BOOST_AUTO_TEST_CASE(prefixes_are_nodes_without_a_value) {
    const std::vector<Trie::Entry> entries{{U"中", 3}, {U"中国人", 5}, {U"##a", 0}, {U"\U0010FFFF", 7}};
    const Trie trie(entries);
    for (const auto& entry : entries) BOOST_TEST(look_up(trie, entry.key) == entry.value);
    for (const auto* key : {U"中国", U"#", U"##", U"国", U"中国人民", U"a"}) BOOST_TEST(look_up(trie, key) == Trie::none);
}

BOOST_AUTO_TEST_CASE(finds_every_string_of_a_random_set_and_no_other) {
    std::mt19937 draw(5);
    std::map<std::u32string, std::int32_t> set;
    const auto word = [&] {
        std::u32string text(1 + draw() % 4, U' ');
        for (char32_t& c : text) c = draw() % 3 ? U'a' + draw() % 12 : 0x4E00 + draw() % 500;
        return text;
    };
    for (int i = 0; i < 5000; ++i) set.emplace(word(), i);
    std::vector<Trie::Entry> entries;
    for (const auto& [key, value] : set) entries.push_back({key, value});
    const Trie trie(entries);
    for (const auto& [key, value] : set) BOOST_REQUIRE(look_up(trie, key) == value);
    for (int i = 0; i < 20000; ++i) {
        const std::u32string key = word();
        const auto found = set.find(key);
        BOOST_REQUIRE(look_up(trie, key) == (found == set.end() ? Trie::none : found->second));
    }
}
