#include "tasks/row.hpp"

#include "tests/scratch.hpp"

#include <boost/test/unit_test.hpp>

namespace {

using namespace rf::tasks;

Row row(const char* text, std::int64_t line = 7) { return {std::make_shared<const rf::json::value>(boost::json::parse(text)), line}; }
std::string rendered(const char* text, const Row& r) { return Template(text, {"task.json", "input"}).render(r); }

/// What a BadRow says.
template <class Act>
std::string trouble(Act act) {
    try {
        act();
    } catch (const BadRow& e) {
        return e.what();
    }
    return "no error";
}

}  // namespace

BOOST_AUTO_TEST_CASE(paths_follow_keys_and_indices) {
    const Row r = row(R"({"target": {"span1_text": "他", "at": "12"}, "list": [[5, 6], "x"]})");
    BOOST_TEST(text_of(Path("target.span1_text").get(r), "") == "他");
    BOOST_TEST(Path("list.0.1").integer(r) == 6);
    BOOST_TEST(Path("target.at").integer(r) == 12);
    BOOST_TEST((Path("list.2").find(r) == nullptr));
    BOOST_TEST((Path("target.none").find(r) == nullptr));
    BOOST_TEST(Path(".").get(r).is_object());
    RF_TEST_HOLDS(trouble([&] { Path("answer").get(r); }), "the field \"answer\" is missing");
    RF_TEST_HOLDS(trouble([&] { Path("list.1").integer(r); }), "no whole number");
}

BOOST_AUTO_TEST_CASE(names_are_looked_up_outwards) {
    const Row r = row(R"({"id": "doc", "title": "t", "qas": [{"id": "q1"}, {"id": "q2"}]})");
    const std::vector<Row> qas = items(r, "qas");
    BOOST_TEST(qas.size() == 2U);
    BOOST_TEST(rendered("{id} {^id} {title} {$line}", qas[1]) == "q2 doc t 7");
    BOOST_TEST(rendered("{^^$key}", items(row(R"({"label": {"name": {"叶老桂": [[9, 11]]}}})"), "label.*.*.*").front()) == "name");
    BOOST_TEST(rendered("{^$key}-{0}", items(row(R"({"label": {"name": {"叶老桂": [[9, 11]]}}})"), "label.*.*.*").front()) == "叶老桂-9");
}

BOOST_AUTO_TEST_CASE(lists_on_the_way_are_walked) {
    const Row r = row(R"({"data": [{"paragraphs": [{"c": 1, "qas": [{"q": 1}, {"q": 2}]}]}, {"paragraphs": [{"c": 2, "qas": [{"q": 3}]}]}]})");
    std::string seen;
    for_each_item(r, "data.paragraphs.qas", [&](const Row& q) { seen += rendered("{c}{q} ", q); });
    BOOST_TEST(seen == "11 12 23 ");
    const Row list = row(R"([["a", "b"], [{"question": "q"}]])");
    BOOST_TEST(rendered("{0|||}:{question}", items(list, "1").front()) == "a||b:q");
    BOOST_TEST(items(row("[1, 2]"), "*").size() == 2U);
    RF_TEST_HOLDS(trouble([&] { items(r, "qas"); }), "\"qas\" is missing");
    RF_TEST_HOLDS(trouble([&] { items(row(R"({"a": 3})"), "a"); }), "no list");
}

BOOST_AUTO_TEST_CASE(a_key_can_be_named_by_another_field) {
    const Row r = row(R"({"answers": [4, 2], "number": 1})");
    BOOST_TEST(rendered("{answers.[number]}", r) == "2");
}

BOOST_AUTO_TEST_CASE(neighbours_of_a_chain_are_pairs) {
    const std::vector<Row> all = pairs(row(R"(["T1", "T2", "T3"])"), true);
    BOOST_TEST(all.size() == 2U);
    BOOST_TEST(rendered("{0}{1}", all[1]) == "T2T3");
    BOOST_TEST(pairs(row("{}"), false).size() == 1U);
}

BOOST_AUTO_TEST_CASE(templates_take_what_is_there) {
    const Row r = row(R"({"s": "文", "n": 3, "b": true, "empty": "", "list": ["甲", "乙"], "null": null})");
    BOOST_TEST(rendered("[{s}] {n} {b}", r) == "[文] 3 true");
    BOOST_TEST(rendered("{list|；}", r) == "甲；乙");
    BOOST_TEST(rendered("{none?}{null?}{empty?}", r).empty());
    BOOST_TEST(Template("{none?}", {}).may_be_empty());
    BOOST_TEST(!Template("{none?}x", {}).may_be_empty());
    BOOST_TEST(!Template("{none}", {}).is_present(r));
    BOOST_TEST(Template("{s}{n}", {}).is_present(r));
    RF_TEST_HOLDS(trouble([&] { rendered("{none}", r); }), "\"none\" is missing");
    RF_TEST_HOLDS(trouble([&] { rendered("{null}", r); }), "null");
    RF_TEST_HOLDS(trouble([&] { rendered("{list}", r); }), "{list|…} joins one");
    RF_TEST_HOLDS(rf::test::refusal([&] { rendered("{s", r); }), "task.json: input: \"{s\" opens a brace");
}
