#include "text/trie.hpp"

#include "core/check.hpp"

#include <boost/test/unit_test.hpp>

#include <map>
#include <random>
#include <set>

using namespace rf;

namespace {
constexpr std::int32_t none = -1;

std::int32_t look_up(const Trie& trie, std::u32string_view key) {
    Trie::Node node = trie.root();
    for (const char32_t c : key) node = trie.next(node, trie.code(c));
    return static_cast<std::int32_t>(node.value) - 1;
}
}  // namespace

BOOST_AUTO_TEST_CASE(an_empty_trie_holds_nothing) {
    const Trie trie;
    BOOST_TEST(look_up(trie, U"a") == none);
    BOOST_TEST(look_up(Trie(std::span<const Trie::Entry>{}), U"中") == none);
}

BOOST_AUTO_TEST_CASE(prefixes_are_nodes_without_a_value) {
    const std::vector<Trie::Entry> entries{{U"中", 3}, {U"中国人", 5}, {U"##a", 0}, {U"\U0010FFFF", 7}};
    const Trie trie(entries);
    for (const auto& entry : entries) BOOST_TEST(look_up(trie, entry.key) == entry.value);
    for (const auto* key : {U"中国", U"#", U"##", U"国", U"中国人民", U"a"}) BOOST_TEST(look_up(trie, key) == none);
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
        BOOST_REQUIRE(look_up(trie, key) == (found == set.end() ? none : found->second));
    }
}

BOOST_AUTO_TEST_CASE(nothing_leads_on_from_nothing_a_leaf_or_a_character_in_no_string) {
    const std::vector<Trie::Entry> entries{{U"ab", 0}, {U"ba", 1}, {U"a", 2}};
    const Trie trie(entries);
    BOOST_TEST(trie.alphabet() == 2);
    const auto other = static_cast<std::uint16_t>(trie.alphabet() + 1);
    const Trie::Node leaf = trie.next(trie.next(trie.root(), trie.code('a')), trie.code('b'));
    BOOST_TEST((leaf.value == 1U && leaf.base == 0U));
    for (const Trie::Node& node : {trie.root(), leaf, Trie::nothing})
        for (const std::uint16_t code : {std::uint16_t{0}, other}) BOOST_TEST((trie.next(node, code) == Trie::nothing));
    for (const char32_t c : {U'a', U'b'})
        for (const Trie::Node& node : {leaf, Trie::nothing}) BOOST_TEST((trie.next(node, trie.code(c)) == Trie::nothing));
    BOOST_TEST(trie.code('c') == 0);
}

BOOST_AUTO_TEST_CASE(of_two_alike_the_later_counts_and_may_take_the_string_out) {
    const std::vector<Trie::Entry> entries{{U"中国", 3}, {U"中", 1}, {U"中国", 4}, {U"人民", 2}, {U"中", Trie::no_value}, {U"民", Trie::no_value}, {U"民", 0}};
    const Trie trie(entries);
    BOOST_TEST(look_up(trie, U"中国") == 4);
    BOOST_TEST(look_up(trie, U"中") == none);
    BOOST_TEST(look_up(trie, U"人民") == 2);
    BOOST_TEST(look_up(trie, U"民") == 0);
}

BOOST_AUTO_TEST_CASE(nodes_lie_close) {
    // Three in five slots or more: what is not there is not waited for.
    std::mt19937 draw(7);
    std::vector<std::u32string> words;
    std::vector<Trie::Entry> entries;
    const auto character = [&](std::uint32_t most) { return static_cast<char32_t>(0x4E00 + draw() % (1 + draw() % most)); };
    for (int i = 0; i < 50000; ++i) words.push_back({character(5000), character(5000), character(100)});
    for (const std::u32string& word : words) entries.push_back({word, 1});
    std::set<std::u32string> nodes;
    for (const std::u32string& word : words)
        for (std::size_t n = 1; n <= word.size(); ++n) nodes.insert(word.substr(0, n));
    BOOST_TEST(Trie(entries).bytes() < static_cast<std::int64_t>(nodes.size()) * 8 * 5 / 3 + 20000 * 10);
}

BOOST_AUTO_TEST_CASE(values_beyond_a_nodes_field_are_refused) {
    const std::vector<Trie::Entry> most{{U"a", (1 << 20) - 2}}, more{{U"a", (1 << 20) - 1}};
    BOOST_TEST(look_up(Trie(most), U"a") == (1 << 20) - 2);
    BOOST_CHECK_THROW(Trie{more}, Error);
}
