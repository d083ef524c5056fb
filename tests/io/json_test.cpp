#include "io/json.hpp"

#include "tests/scratch.hpp"

#include <boost/test/unit_test.hpp>

#include <cmath>
#include <cstdio>
#include <limits>
#include <random>

using namespace rf;
using test::refusal;

namespace {

struct Inner {
    double rate = 0.5;
    std::vector<std::int64_t> sizes{1, 2};
};
BOOST_DESCRIBE_STRUCT(Inner, (), (rate, sizes))

struct Outer {
    std::int64_t steps = 3;
    std::string name = "x";
    bool quick = false;
    Inner inner;
    json::value any = nullptr;
};
BOOST_DESCRIBE_STRUCT(Outer, (), (steps, name, quick, inner, any))

Outer read(const std::string& text) {
    Outer out;
    json::read(json::parse(text, "in.json"), out, {"in.json", ""});
    return out;
}
std::string refused(const std::string& text) {
    return refusal([&] { read(text); });
}

}  // namespace

BOOST_AUTO_TEST_CASE(what_is_given_replaces_the_default) {
    const Outer o = read(R"({"steps": 7, "inner": {"sizes": [4]}, "any": {"free": [1, "a"]}})");
    BOOST_TEST(o.steps == 7);
    BOOST_TEST(o.name == "x");
    BOOST_TEST(o.inner.rate == 0.5);
    BOOST_TEST((o.inner.sizes == std::vector<std::int64_t>{4}));
    BOOST_TEST(o.any.at("free").as_array().size() == 2U);
}

BOOST_AUTO_TEST_CASE(what_was_written_reads_back) {
    Outer o;
    o.inner.rate = 1.76e-3;
    o.name = "中\n\"";
    Outer again;
    json::read(json::parse(json::pretty(json::write(o)), "x"), again, {"x", ""});
    BOOST_TEST(again.inner.rate == o.inner.rate);
    BOOST_TEST(again.name == o.name);
    RF_TEST_HOLDS(json::pretty(json::write(o)), "\"rate\": 0.00176");
}

BOOST_AUTO_TEST_CASE(every_bit_of_a_number_is_read) {
    std::mt19937_64 random(1);
    for (int i = 0; i < 2000; ++i) {
        const double x = std::ldexp(static_cast<double>(random() >> 11), static_cast<int>(random() % 200) - 150);
        char text[40];
        std::snprintf(text, sizeof text, "%.17g", x);
        const json::value v = json::parse(message("{\"a\": [1, ", text, ", {\"b\": ", text, "}], \"c\": 0.5}"), "t.json");
        BOOST_TEST(v.at("a").at(1).to_number<double>() == x);
        BOOST_TEST(v.at("a").at(2).at("b").to_number<double>() == x);
        BOOST_TEST(v.at("c").as_double() == 0.5);
        BOOST_TEST(json::pretty(json::parse(json::pretty(v), "t.json")) == json::pretty(v));
    }
    BOOST_TEST(json::parse("0.1", "t.json").as_double() == 0.1);
    json::value root = json::parse("{}", "t.json");
    json::set(root, "x=0.30000000000000004");
    BOOST_TEST(root.at("x").as_double() == 0.30000000000000004);
}
BOOST_AUTO_TEST_CASE(unknown_keys_name_the_path_and_the_nearest_known_key) {
    RF_TEST_HOLDS(refused(R"({"step": 1})"), "in.json: unknown key \"step\" (did you mean \"steps\"?)");
    RF_TEST_HOLDS(refused(R"({"inner": {"rte": 1}})"), "unknown key \"inner.rte\" (did you mean \"rate\"?); known here: rate, sizes");
    const std::string far = refused(R"({"zzzzzz": 1})");
    RF_TEST_HOLDS(far, "unknown key \"zzzzzz\"; known here: steps, name, quick, inner, any");
}

BOOST_AUTO_TEST_CASE(wrong_types_name_the_path_and_what_was_expected) {
    RF_TEST_HOLDS(refused(R"({"steps": "3"})"), "in.json: steps: expected an integer, found a string \"3\"");
    RF_TEST_HOLDS(refused(R"({"steps": 3.5})"), "expected an integer, found a number 3.5");
    RF_TEST_HOLDS(refused(R"({"quick": 1})"), "quick: expected true or false");
    RF_TEST_HOLDS(refused(R"({"name": null})"), "name: expected a string, found null");
    RF_TEST_HOLDS(refused(R"({"inner": 3})"), "inner: expected an object");
    RF_TEST_HOLDS(refused(R"({"inner": {"rate": "high"}})"), "inner.rate: expected a number");
    RF_TEST_HOLDS(refused(R"({"inner": {"sizes": 4}})"), "inner.sizes: expected a list");
    RF_TEST_HOLDS(refused(R"({"inner": {"sizes": [1, "b"]}})"), "inner.sizes[1]: expected an integer");
    RF_TEST_HOLDS(refused(R"([1])"), "in.json: the input: expected an object");
}

BOOST_AUTO_TEST_CASE(whole_numbers_may_be_written_with_an_exponent) {
    BOOST_TEST(read(R"({"steps": 1e6})").steps == 1000000);
    BOOST_TEST(read(R"({"inner": {"rate": 2}})").inner.rate == 2.0);
    RF_TEST_HOLDS(refused(R"({"steps": 1e300})"), "expected an integer");
    RF_TEST_HOLDS(refused(R"({"steps": 18446744073709551615})"), "expected an integer");
}

BOOST_AUTO_TEST_CASE(syntax_errors_name_line_and_column) {
    RF_TEST_HOLDS(refused("{\n  \"steps\": 3,\n  \"name\" 4\n}"), "in.json:3:10: not valid JSON");
    RF_TEST_HOLDS(refused("{\"steps\": 3"), "in.json:1:12: not valid JSON (incomplete");
    RF_TEST_HOLDS(refused("{} x"), "in.json:1:4: not valid JSON (extra data");
    RF_TEST_HOLDS(refused(""), "in.json:1:1: not valid JSON");
    RF_TEST_HOLDS(refused("{\"steps\": 03}"), "in.json:1:");
    RF_TEST_HOLDS(refused("// a\n{}"), "in.json:1:1:");
}

BOOST_AUTO_TEST_CASE(a_key_given_twice_is_an_error_at_any_depth) {
    RF_TEST_HOLDS(refused(R"({"steps": 3, "steps": 3})"), "in.json: the key \"steps\" is given twice");
    RF_TEST_HOLDS(refused(R"({"any": [{"a": 1, "b": {"c": 1, "c": 2}}]})"), "the key \"c\" is given twice");
    RF_TEST_HOLDS(refused(R"({"steps": 3, "st\u0065ps": 3})"), "given twice");
    BOOST_TEST(read(R"({"any": [{"a": 1}, {"a": 1}]})").steps == 3);
}

BOOST_AUTO_TEST_CASE(files_that_cannot_be_read_are_named) {
    const test::Scratch scratch;
    RF_TEST_HOLDS(refusal([&] { json::parse_file(scratch("absent.json")); }), scratch("absent.json"));
    RF_TEST_HOLDS(refusal([&] { json::parse_file(scratch.path().string()); }), "it is a folder");
}

BOOST_AUTO_TEST_CASE(set_takes_json_or_else_a_string) {
    json::value v = boost::json::object{};
    for (const char* assignment : {"a=3", "b.c=[1,2]", "b.d=text", "b.e=\"3\"", "f=", "g=1e-3", "h=true", "i=x=y"}) json::set(v, assignment);
    BOOST_TEST(v.at("a").as_int64() == 3);
    BOOST_TEST(v.at("b").at("c").as_array().size() == 2U);
    BOOST_TEST(v.at("b").at("d").as_string() == "text");
    BOOST_TEST(v.at("b").at("e").as_string() == "3");
    BOOST_TEST(v.at("f").as_string() == "");
    BOOST_TEST(v.at("g").as_double() == 1e-3);
    BOOST_TEST(v.at("h").as_bool());
    BOOST_TEST(v.at("i").as_string() == "x=y");
}

BOOST_AUTO_TEST_CASE(set_replaces_one_value_and_keeps_the_others) {
    json::value v = json::parse(R"({"inner": {"rate": 1, "sizes": [9]}, "model": "base.json"})", "x");
    json::set(v, "inner.rate=2");
    BOOST_TEST(v.at("inner").at("rate").as_int64() == 2);
    BOOST_TEST(v.at("inner").at("sizes").as_array().size() == 1U);
    json::set(v, "model.hidden_size=64");  // a model named by its file is refined
    BOOST_TEST(v.at("model").at("file").as_string() == "base.json");
    BOOST_TEST(v.at("model").at("hidden_size").as_int64() == 64);
}

BOOST_AUTO_TEST_CASE(set_refuses_what_is_no_assignment) {
    json::value v = boost::json::object{};
    for (const char* bad : {"steps", "=3", "a..b=3", ".a=3"}) RF_TEST_HOLDS(refusal([&] { json::set(v, bad); }), std::string("--set ") + bad);
}

BOOST_AUTO_TEST_CASE(a_line_is_read_back_by_anyone) {
    const std::string text = R"({"a": [1, 0.1, -3, {"b": "一\"\n"}, [], {}], "c": null, "d": true, "e": 1e-07})";
    BOOST_TEST(json::line(json::parse(text, "x")) == text);
    BOOST_TEST(json::line(json::value{std::numeric_limits<double>::quiet_NaN(), 0.5, 2000.0, -1e30}) == "[null, 0.5, 2000, -1e+30]");
}
