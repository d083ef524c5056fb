#include "tasks/readers.hpp"

#include "tests/scratch.hpp"

#include <boost/test/unit_test.hpp>

namespace {

using namespace rf::tasks;

Reader reader(const std::string& format, const std::vector<std::string>& columns = {}, const std::string& pattern = "") {
    Reader out;
    out.format = format;
    out.columns = columns;
    out.pattern = pattern;
    return out;
}

/// Rows as JSON text, a line each; what is bad stands there with its place.
std::string rows(const std::vector<std::string>& files, const Reader& how) {
    std::string out;
    read_rows(
        files, how, [&](const Row& row, const RowPlace&) { out += boost::json::serialize(row.item()) + '\n'; },
        [&](const BadRow& e, const RowPlace& place) { out += rf::message("bad ", place.line, ": ", e.what(), '\n'); });
    return out;
}

std::string of_text(std::string_view content, const Reader& how, const char* name = "a.txt") {
    const rf::test::Scratch scratch;
    rf::test::write(scratch / name, content);
    return rows({scratch(name)}, how);
}

}  // namespace

BOOST_AUTO_TEST_CASE(jsonl_rows_with_bad_ones_placed) {
    BOOST_TEST(of_text("{\"a\":1}\r\n\n{\"a\":\n{\"a\":2}\n", reader("jsonl")) == "{\"a\":1}\nbad 3: not valid JSON (incomplete JSON)\n{\"a\":2}\n");
}

BOOST_AUTO_TEST_CASE(json_is_a_list_or_holds_one) {
    BOOST_TEST(of_text("[{\"a\": 1},\n {\"a\": NaN, \"b\": \"NaN\"}]", reader("json")) == "{\"a\":1}\n{\"a\":null,\"b\":\"NaN\"}\n");
    Reader each = reader("json");
    each.each = "data.p";
    BOOST_TEST(of_text("{\"data\": [{\"p\": [{\"q\": 1}, {\"q\": 2}]}]}", each) == "{\"q\":1}\n{\"q\":2}\n");
    RF_TEST_HOLDS(rf::test::refusal([] { of_text("[1,\n", reader("json")); }), "a.txt:");
}

BOOST_AUTO_TEST_CASE(tsv_has_columns_named_here_or_there) {
    BOOST_TEST(of_text("label\ttext\n1\t好 \"的\n", reader("tsv")) == "{\"label\":\"1\",\"text\":\"好 \\\"的\"}\n");
    BOOST_TEST(of_text("x\t好\t1\t\t\nx\t好\n", reader("tsv", {"", "text", "label"})) ==
               "{\"text\":\"好\",\"label\":\"1\"}\nbad 2: expected 3 columns, found 2\n");
}

BOOST_AUTO_TEST_CASE(csv_follows_rfc_4180) {
    BOOST_TEST(of_text("\xEF\xBB\xBFlabel,text\n1,\"a,\"\"b\"\"\nc\"\n0,\n", reader("csv")) ==
               "{\"label\":\"1\",\"text\":\"a,\\\"b\\\"\\nc\"}\n{\"label\":\"0\",\"text\":\"\"}\n");
    BOOST_TEST(of_text("a,b\n1,\"x\n", reader("csv")) == "bad 2: a quote is opened and not closed before the end of the file\n");
}

BOOST_AUTO_TEST_CASE(each_csv_file_has_the_same_header) {
    const rf::test::Scratch scratch;
    rf::test::write(scratch / "1.csv", "a,b\n1,2\n");
    rf::test::write(scratch / "2.csv", "a,b\n3,4\n");
    rf::test::write(scratch / "3.csv", "b,a\n5,6\n");
    RF_TEST_HOLDS(rows({scratch("1.csv"), scratch("2.csv")}, reader("csv")), "{\"a\":\"3\",\"b\":\"4\"}");
    RF_TEST_HOLDS(rows({scratch("1.csv"), scratch("3.csv")}, reader("csv")), "bad 1: the names of the columns differ");
}

BOOST_AUTO_TEST_CASE(conll_in_three_schemes) {
    const char* expected =
        "{\"text\":\"在北京Ab\",\"entities\":[{\"type\":\"LOC\",\"start\":1,\"end\":3},{\"type\":\"ORG\",\"start\":3,\"end\":4},{\"type\":\"ORG\","
        "\"start\":4,\"end\":5}]}\n";
    BOOST_TEST(of_text("在 O\n北 B-LOC\n京 I-LOC\nA B-ORG\nb B-ORG\n\n\n", reader("conll")) == expected);
    BOOST_TEST(of_text("在\tO\r\n北\tB-LOC\r\n京\tE-LOC\r\nA\tS-ORG\r\nb\tS-ORG\r\n", reader("conll")) == expected);
    BOOST_TEST(of_text("在0\tO\n北0\tB-LOC\n京1\tI-LOC\nA0\tB-ORG\nb1\tB-ORG\n", reader("conll", {}, "(.+?)\\d\\t(\\S+)")) == expected);
    // A type that changes ends the entity; I- without a beginning begins one.
    BOOST_TEST(of_text("甲 I-A\n乙 I-B\n", reader("conll")) ==
               "{\"text\":\"甲乙\",\"entities\":[{\"type\":\"A\",\"start\":0,\"end\":1},{\"type\":\"B\",\"start\":1,\"end\":2}]}\n");
    // A blank is a character.
    RF_TEST_HOLDS(of_text("甲 O\n\xE3\x80\x80 O\n  O\n乙 O\n", reader("conll")), "甲\xE3\x80\x80 乙");
    RF_TEST_HOLDS(rf::test::refusal([] { of_text("甲 O\n乙 X-LOC\n", reader("conll")); }), "a.txt:2: \"X-LOC\" is no tag");
    RF_TEST_HOLDS(rf::test::refusal([] { of_text("甲\n", reader("conll")); }), "a.txt:1: expected a character and a tag");
}

BOOST_AUTO_TEST_CASE(patterns_and_blocks) {
    const Reader pattern = reader("pattern", {"label", "a", "b"}, "(\\d+) ([^$]*)\\$(.*)");
    BOOST_TEST(of_text("3 甲$乙###\n甲\n", pattern) ==
               "{\"label\":\"3\",\"a\":\"甲\",\"b\":\"乙###\"}\nbad 2: the line does not match the pattern \"(\\d+) ([^$]*)\\$(.*)\"\n");
    BOOST_TEST(of_text("\na\nQ1\n\nb\nQ2\n", reader("blocks", {"", "answer", "question"})) ==
               "{\"answer\":\"a\",\"question\":\"Q1\"}\n{\"answer\":\"b\",\"question\":\"Q2\"}\n");
    BOOST_TEST(of_text("1 ||| 甲 乙 。\n2 ||| 丙\n<qid_0> ||| XXXXX 乙\n", reader("cmrc2017")) ==
               "{\"id\":\"<qid_0>\",\"query\":\"XXXXX乙\",\"document\":\"甲乙。\\n丙\"}\n");
}

BOOST_AUTO_TEST_CASE(gaps_are_rows_and_the_others_underscores) {
    // CHID: only the other marks become five underscores; characters leave the outer end of the longer side,
    // of the right one when both are equal: 5 + 6 become 5 + 5, 5 + 4, 4 + 4.
    Reader gaps = reader("jsonl");
    gaps.each = "content";
    gaps.blanks.pattern = "#idiom\\d+#";
    gaps.blanks.keep = 8;
    BOOST_TEST(of_text("{\"content\": [\"一二三四五#idiom01#六#idiom02#\", \"甲#idiom03#\"]}\n", gaps) ==
               "{\"left\":\"二三四五\",\"right\":\"六___\",\"blank\":\"#idiom01#\",\"number\":0}\n"
               "{\"left\":\"四五_____六\",\"right\":\"\",\"blank\":\"#idiom02#\",\"number\":1}\n"
               "{\"left\":\"甲\",\"right\":\"\",\"blank\":\"#idiom03#\",\"number\":0}\n");
    BOOST_TEST(of_text("{\"content\": [\"x\"]}\n", gaps) == "bad 1: the text has no gap like \"#idiom\\d+#\"\n");
}

BOOST_AUTO_TEST_CASE(a_second_file_joins_by_its_key) {
    const rf::test::Scratch scratch;
    rf::test::write(scratch / "reply.tsv", "0\t好\n1\t不\n");
    rf::test::write(scratch / "query.tsv", "0\t在吗\n");
    rf::test::write(scratch / "answers.json", "{\"0\": 3}");
    const auto joined = [&](const Join& join, const char* shown) {
        std::string out;
        Reader how = reader("tsv", {"id", "reply"});
        how.join = join;
        read_rows(
            {scratch("reply.tsv")}, how, [&](const Row& row, const RowPlace&) { out += Template(shown, {}).render(row) + '\n'; },
            [&](const BadRow& e, const RowPlace&) { out += e.what(); });
        return out;
    };
    BOOST_TEST(joined({.files = boost::json::array{scratch("query.tsv")}, .columns = {"id", "query"}, .key = "id"}, "{query}{reply}") ==
               "在吗好\nthe joined file has no row for \"1\"");
    BOOST_TEST(joined({.files = boost::json::array{scratch("answers.json")}, .format = "json", .key = "id", .other_key = "$key"},
                      "{reply}{$value}") == "好3\nthe joined file has no row for \"1\"");
}
