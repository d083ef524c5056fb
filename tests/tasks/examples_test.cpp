/// Templates, truncation, windows, cells: against tokens and places counted by hand.

#include "tests/tasks/small_task.hpp"

#include "text/unicode.hpp"

#include <boost/test/unit_test.hpp>

#include <cmath>

namespace {

using namespace rf;
using namespace rf::tasks;
using test::cells_of;
using test::pieces_of;
using test::SmallTask;
using test::tokens_of;

std::string classify(const std::string& more) {
    return R"({"name": "t", "kind": "classify", "train": "train.jsonl", "label": "{label}", "labels": ["0", "1"], )" + more + "}";
}

}  // namespace

BOOST_AUTO_TEST_CASE(one_text_is_cut_at_its_end) {
    const SmallTask task(classify(R"("input": ["{s}"], "max_length": 8)"),
                         {{"train.jsonl", "{\"s\": \"一二三四五六七八\", \"label\": 1}\n{\"s\": \"甲\", \"label\": \"0\", \"id\": 9}\n"}});
    const PreparedTask p = task.prepare();
    const Prepared& train = p[Split::train];
    BOOST_TEST(train.examples() == 2);
    BOOST_TEST(tokens_of(train, 0) == "[CLS] 一 二 三 四 五 六 [SEP]");
    BOOST_TEST(tokens_of(train, 1) == "[CLS] 甲 [SEP]");
    BOOST_TEST(pieces_of(train, 0) == "1-7");
    BOOST_TEST(train.label[0] == 1);
    BOOST_TEST(train.label[1] == 0);
    BOOST_TEST(train.id[0] == "0");
    BOOST_TEST(train.id[1] == "9");
    BOOST_TEST(p.counts[0].truncated == 1);
    BOOST_TEST(p.counts[0].lengths[0] == 3);
    BOOST_TEST(p.counts[0].lengths[4] == 8);
}

BOOST_AUTO_TEST_CASE(of_a_pair_the_longer_gives_up_tokens_the_first_of_equals_first) {
    // 5 and 5 tokens, room for 5: a b a b a lose one.
    const SmallTask task(classify(R"("input": ["{a}", "{b}"], "max_length": 8)"),
                         {{"train.jsonl", "{\"a\": \"一二三四五\", \"b\": \"六七八九十\", \"label\": 0}\n"}});
    const Prepared p = task.prepare()[Split::train];
    BOOST_TEST(tokens_of(p, 0) == "[CLS] 一 二 [SEP] 六 七 八 [SEP]");
    BOOST_TEST(pieces_of(p, 0) == "1-3 4-7");
}

BOOST_AUTO_TEST_CASE(c3_joins_lines_fills_choices_and_cuts_the_last_of_equals) {
    // Passage, question, choice of 4 tokens each, room for 4: with its [CLS] the passage counts one more; p c q p c q p c lose one.
    const SmallTask task(R"({"name": "c3", "kind": "multiple_choice", "reader": {"format": "json", "each": "1"}, "train": "train.json",
        "input": ["{0|||}", "{question}", "{choice}"], "truncate": "longest_last", "choices": "choice", "pad_choices": 3, "answer": "{answer}", "answer_is": "text",
        "max_length": 8})",
                         {{"train.json", R"([[["一二", "三"], [{"question": "问甲乙丙", "choice": ["五六七八", "答"], "answer": "答"}], "id"]])"}});
    const PreparedTask prepared = task.prepare();
    const Prepared& p = prepared[Split::train];
    BOOST_TEST(p.examples() == 1);
    BOOST_TEST(p.sequences() == 3);
    BOOST_TEST(p.label[0] == 1);
    // 5, 4, 4 tokens: the passage loses one more.
    BOOST_TEST(tokens_of(p, 0) == "[CLS] 一 [SEP] 问 甲 [SEP] 五 [SEP]");
    BOOST_TEST(tokens_of(p, 1) == "[CLS] 一 [SEP] 问 甲 [SEP] 答 [SEP]");
    BOOST_TEST(tokens_of(p, 2) == "[CLS] 一 [SEP] 问 甲 [SEP] 无 [SEP]");
    const SmallTask whole(R"({"name": "c3", "kind": "multiple_choice", "reader": {"format": "json", "each": "1"}, "train": "train.json",
        "input": ["{0|||}", "{question}", "{choice}"], "choices": "choice", "pad_choices": 3, "answer": "{answer}", "answer_is": "text", "max_length": 32})",
                          {{"train.json", R"([[["一二", "三"], [{"question": "问", "choice": ["五", "答"], "answer": "五"}], "id"]])"}});
    const Prepared q = whole.prepare()[Split::train];
    BOOST_TEST(tokens_of(q, 0) == "[CLS] 一 二 | | 三 [SEP] 问 [SEP] 五 [SEP]");
    BOOST_TEST(tokens_of(q, 2) == "[CLS] 一 二 | | 三 [SEP] 问 [SEP] 无 效 答 案 [SEP]");
}

BOOST_AUTO_TEST_CASE(wsc_wraps_both_spans_where_they_stand) {
    const std::string file =
        classify(R"("input": ["{text}"], "max_length": 32, "mark": [{"text": "{t.s1}", "start": "t.i1"}, {"text": "{t.s2}", "start": "t.i2"}])");
    const SmallTask task(file, {{"train.jsonl", R"({"text": "甲乙丙他。", "t": {"s1": "他", "i1": 3, "s2": "乙丙", "i2": 1}, "label": 1})"}});
    BOOST_TEST(tokens_of(task.prepare()[Split::train], 0) == "[CLS] 甲 [ [ 乙 丙 ] ] [ [ 他 ] ] 。 [SEP]");
    const SmallTask wrong(file, {{"train.jsonl", R"({"text": "甲乙丙他。", "t": {"s1": "他", "i1": 2, "s2": "乙丙", "i2": 1}, "label": 1})"}});
    RF_TEST_HOLDS(wrong.refusal(), "train.jsonl:1: a mark at 2 to 3 does not match the text \"他\"");
}

BOOST_AUTO_TEST_CASE(chid_has_a_row_for_each_candidate_and_groups_of_a_line) {
    const SmallTask task(
        R"({"name": "chid", "kind": "multiple_choice", "train": "train.json", "reader": {"each": "content", "blanks": {"pattern": "#idiom\\d+#", "keep": 7},
        "join": {"files": "answer.json", "format": "json", "key": "blank", "other_key": "$key"}}, "id": "blank", "input": ["{left?}", "{choice}", "{right?}"],
        "choices": "candidates", "answer": "{$value}", "group": "{$line}", "max_length": 64})",
        {{"train.json", R"({"content": ["一#idiom1#二", "#idiom2#三"], "candidates": ["甲", "乙"]})"
                        "\n"
                        R"({"content": ["四#idiom3#五#idiom4#"], "candidates": ["丙", "丁"]})"},
         {"answer.json", R"({"#idiom1#": 1, "#idiom2#": 0, "#idiom3#": 0, "#idiom4#": 1})"}});
    const Prepared p = task.prepare()[Split::train];
    BOOST_TEST(p.examples() == 4);
    BOOST_TEST(tokens_of(p, 0) == "[CLS] 一 [SEP] 甲 [SEP] 二 [SEP]");
    BOOST_TEST(tokens_of(p, 1) == "[CLS] 一 [SEP] 乙 [SEP] 二 [SEP]");
    BOOST_TEST(tokens_of(p, 2) == "[CLS] [SEP] 甲 [SEP] 三 [SEP]");
    // Another mark is five underscores, which the vocabulary does not know.
    BOOST_TEST(tokens_of(p, 4) == "[CLS] 四 [SEP] 丙 [SEP] 五 [UNK] [UNK] [UNK] [UNK] [UNK] [SEP]");
    BOOST_TEST(p.label == (std::vector<std::int32_t>{1, 0, 0, 1}), boost::test_tools::per_element());
    BOOST_TEST(p.group == (std::vector<std::int32_t>{0, 0, 1, 1}), boost::test_tools::per_element());
    BOOST_TEST(p.id[3] == "#idiom4#");
}

namespace {

std::string span_task(const std::string& more = "", int stride = 4) {
    return R"({"name": "s", "kind": "span", "train": "train.jsonl", "input": ["{q}", "{c}"], "answers": {"text": "{a}", "start": "at"}, "max_length": 12, "windows": {"stride": )" +
           std::to_string(stride) + "}" + more + "}";
}

}  // namespace

BOOST_AUTO_TEST_CASE(windows_of_a_context_hold_the_answer_whole_or_not) {
    // Room for 12 - 2 - 3 = 7 characters: windows at 0, 4, 8, 12, 16; the answer 九十甲 (8 to 11) is inside those at 4 and 8.
    const std::string row = R"({"q": "问他", "c": "一二三四五六七八九十甲乙丙丁他王一二三四", "a": "九十甲", "at": 8})";
    const SmallTask task(span_task(R"(, "dev": "train.jsonl")"), {{"train.jsonl", row}});
    const PreparedTask prepared = task.prepare();
    const Prepared& p = prepared[Split::train];
    BOOST_TEST(p.examples() == 1);
    BOOST_TEST(p.sequences() == 5);
    BOOST_TEST(tokens_of(p, 1) == "[CLS] 问 他 [SEP] 五 六 七 八 九 十 甲 [SEP]");
    BOOST_TEST(pieces_of(p, 1) == "1-3 4-8 8-11 11-11");
    BOOST_TEST(cells_of(p, 1) == "0:8-10");
    BOOST_TEST(tokens_of(p, 2) == "[CLS] 问 他 [SEP] 九 十 甲 乙 丙 丁 他 [SEP]");
    BOOST_TEST(cells_of(p, 2) == "0:4-6");
    for (const std::int64_t without : {0, 3, 4}) BOOST_TEST(cells_of(p, without) == "0:0-0");
    BOOST_TEST(tokens_of(p, 4) == "[CLS] 问 他 [SEP] 一 二 三 四 [SEP]");
    BOOST_TEST((p.visible[4] == Range{4, 8}));
    BOOST_TEST(p.text_at[4] == 16);
    BOOST_TEST(p.gold[0] == R"({"answers":["九十甲"],"none":false})");
    // At prediction the window is one piece; the cells are the same.
    const Prepared& dev = prepared[Split::dev];
    BOOST_TEST(pieces_of(dev, 1) == "1-3 4-11");
    BOOST_TEST(cells_of(dev, 1) == "0:8-10");
    BOOST_TEST(cells_of(dev, 2) == "0:4-6");
}

BOOST_AUTO_TEST_CASE(windows_leave_nothing_out) {
    // Room for 7 characters beside the question: windows at 0, 7 and 14, whatever larger stride is asked for.
    const SmallTask task(span_task("", 100), {{"train.jsonl", R"({"q": "问他", "c": "一二三四五六七八九十甲乙丙丁他王", "a": "十甲", "at": 9})"}});
    const Prepared p = task.prepare()[Split::train];
    BOOST_TEST(p.sequences() == 3);
    BOOST_TEST(p.text_at == (std::vector<std::int32_t>{0, 7, 14}), boost::test_tools::per_element());
    BOOST_TEST(cells_of(p, 1) == "0:6-7");
}

BOOST_AUTO_TEST_CASE(characters_of_a_span_give_its_text_back) {
    // A combining accent is a character of the text and none of the normalised one, in which windows are measured.
    const SmallTask task(span_task(), {{"train.jsonl", "{\"q\": \"问\", \"c\": \"e\u0301E\u0301一二三四五六七八九\", \"a\": \"二三\", \"at\": 5}"}});
    const Prepared p = task.prepare()[Split::train];
    // Room for 8 characters of 11 normalised ones: e e 一 … 六, then from 三 on.
    BOOST_TEST(p.sequences() == 2);
    BOOST_TEST(tokens_of(p, 0) == "[CLS] 问 [SEP] [UNK] 一 二 三 四 五 六 [SEP]");
    BOOST_TEST(cells_of(p, 0) == "0:5-6");
    const std::u32string text = decode_utf8(p.text[0]);
    const auto chars = [&](std::int64_t token) {
        return std::pair(p.token_chars[static_cast<std::size_t>(2 * token)], p.token_chars[static_cast<std::size_t>(2 * token) + 1]);
    };
    BOOST_TEST(encode_utf8(text.substr(static_cast<std::size_t>(p.text_at[0]) + chars(5).first,
                                       static_cast<std::size_t>(chars(6).second - chars(5).first))) == "二三");
    BOOST_TEST(tokens_of(p, 1) == "[CLS] 问 [SEP] 三 四 五 六 七 八 九 [SEP]");
    BOOST_TEST(p.text_at[1] == 6);
}

BOOST_AUTO_TEST_CASE(a_place_off_by_some_characters_is_put_right) {
    const SmallTask task(span_task(), {{"train.jsonl", R"({"q": "问", "c": "一二一三四一二", "a": "一二", "at": 4})"}});
    BOOST_TEST(cells_of(task.prepare()[Split::train], 0) == "0:8-9");
    const SmallTask absent(span_task(), {{"train.jsonl", R"({"q": "问", "c": "一二三", "a": "九", "at": 0})"}});
    RF_TEST_HOLDS(absent.refusal(), "train.jsonl:1: the answer \"九\" does not stand in the context (task s in ");
}

BOOST_AUTO_TEST_CASE(questions_without_an_answer_and_tests_without_one_known) {
    const std::string none = R"({"q": "问", "c": "一二三", "a": "无", "at": -1})", fake = R"({"q": "问", "c": "一二三", "a": "FAKE", "at": -1})";
    const SmallTask task(span_task(R"(, "no_answer": ["无"], "test": "test.jsonl")"), {{"train.jsonl", none}, {"test.jsonl", fake + "\n" + none}});
    const PreparedTask p = task.prepare();
    BOOST_TEST(cells_of(p[Split::train], 0) == "0:0-0");
    BOOST_TEST(p[Split::train].gold[0] == R"({"answers":["无"],"none":true})");
    BOOST_TEST(cells_of(p[Split::test], 0).empty());
    BOOST_TEST(p[Split::test].gold[0].empty());
    BOOST_TEST(cells_of(p[Split::test], 1) == "0:0-0");
}

BOOST_AUTO_TEST_CASE(entities_become_cells_of_tokens) {
    const std::string file = R"({"name": "e", "kind": "entities", "train": "train.jsonl", "input": ["{text}"], "labels": ["A", "B"], "max_length": 16,
        "entities": [{"each": "marks", "type": "{0}", "start": "1", "end": "2", "ends": "inclusive", "text": "{3}"}]})";
    // abc is two tokens, ab and ##c; a blank is none. B covers bc, which begins inside a token.
    const SmallTask task(
        file,
        {{"train.jsonl",
          R"({"text": "甲 ABC乙", "marks": [["A", 2, 4, "ABC"], ["B", 5, 5, "乙"], ["B", 3, 4, "BC"], ["A", 2, 3, "AB"], ["A", 2, 4, "ABC"]]})"}});
    const PreparedTask prepared = task.prepare();
    const Prepared& p = prepared[Split::train];
    BOOST_TEST(tokens_of(p, 0) == "[CLS] 甲 ab ##c 乙 [SEP]");
    BOOST_TEST(cells_of(p, 0) == "0:2-2 0:2-3 1:4-4");
    BOOST_TEST(prepared.counts[0].lost.at("a mark begins or ends inside a token") == 1);
    BOOST_TEST((p.visible[0] == Range{1, 5}));
    BOOST_TEST(p.token_chars == (std::vector<std::uint16_t>{0, 0, 0, 1, 2, 4, 4, 5, 5, 6, 0, 0}), boost::test_tools::per_element());
    BOOST_TEST(boost::json::parse(p.gold[0]).as_array().size() == 5U);
    const SmallTask outside(file, {{"train.jsonl", R"({"text": "甲", "marks": [["C", 0, 0, "甲"]]})"}});
    RF_TEST_HOLDS(outside.refusal(), "train.jsonl:1: the label \"C\" is not in the table of 2 labels");
}

BOOST_AUTO_TEST_CASE(long_texts_are_cut_at_the_end_of_a_sentence) {
    // Room for 6 tokens; the last end of a sentence in the second half of the first six is behind 四.
    const SmallTask task(R"({"name": "e", "kind": "entities", "train": "train.jsonl", "input": ["{text}"], "labels": ["A"], "max_length": 8,
        "entities": [{"each": "m", "type": "A", "text": "{.}"}]})",
                         {{"train.jsonl", R"({"text": "一二三四。五六七八九十", "m": ["四。", "六", "。五", "十"]})"}});
    const PreparedTask prepared = task.prepare();
    const Prepared& p = prepared[Split::train];
    BOOST_TEST(p.sequences() == 2);
    BOOST_TEST(tokens_of(p, 0) == "[CLS] 一 二 三 四 。 [SEP]");
    BOOST_TEST(tokens_of(p, 1) == "[CLS] 五 六 七 八 九 十 [SEP]");
    BOOST_TEST(cells_of(p, 0) == "0:4-5");
    BOOST_TEST(cells_of(p, 1) == "0:2-2 0:6-6");
    BOOST_TEST(p.text_at[1] == 5);
    BOOST_TEST(p.token_chars[static_cast<std::size_t>(2 * (p.sequence_begin[1] + 1))] == 0);
    BOOST_TEST(prepared.counts[0].lost.at("a mark across windows") == 1);
}

BOOST_AUTO_TEST_CASE(relations_are_cells_of_subject_object_heads_and_tails) {
    const SmallTask task(R"({"name": "r", "kind": "relations", "train": "train.jsonl", "input": ["{text}"], "labels": ["p", "q"], "max_length": 16,
        "relations": [{"each": "spo", "type": "{p}", "subject": {"text": "{s}", "places": "first"}, "object": {"text": "{o.@value}", "places": "first"}}]})",
                         {{"train.jsonl", R"({"text": "一二三四五", "spo": [{"p": "q", "s": "四五", "o": {"@value": "一二"}}]})"}});
    const Task read = task.read();
    BOOST_TEST(read.cell_types() == 6);
    BOOST_TEST(read.cell_is_ordered(1));
    BOOST_TEST(!read.cell_is_ordered(4));
    const Prepared p = task.prepare()[Split::train];
    BOOST_TEST(cells_of(p, 0) == "0:4-5 1:1-2 4:4-1 5:5-2");
    BOOST_TEST(p.gold[0] == R"([{"type":"q","subject":"四五","object":"一二"}])");
}

BOOST_AUTO_TEST_CASE(candidates_of_a_list_gather_and_keep_their_grades) {
    const SmallTask task(
        R"({"name": "r", "kind": "rank", "train": "train.tsv", "reader": {"format": "tsv", "columns": ["q", "t", "g"]}, "input": ["{q}", "{t}"], "label": "{g}", "group": "{q}"})",
        {{"train.tsv", "甲\t一\t2\n乙\t二\t0\n甲\t三\t1\n丙\t四\t1\n乙\t五\t2\n丙\t六\t1\n"}});
    const PreparedTask prepared = task.prepare();
    const Prepared& p = prepared[Split::train];
    BOOST_TEST(p.examples() == 2);
    BOOST_TEST(p.example_begin == (std::vector<std::int64_t>{0, 2, 4}), boost::test_tools::per_element());
    BOOST_TEST(tokens_of(p, 1) == "[CLS] 甲 [SEP] 三 [SEP]");
    BOOST_TEST(p.score == (std::vector<float>{2, 1, 0, 2}), boost::test_tools::per_element());
    // Both rows of 丙 have one grade: nothing to learn.
    const Counts& counts = prepared.counts[static_cast<int>(Split::train)];
    BOOST_TEST(counts.rows == 6);
    BOOST_TEST(counts.kept == 4);
    BOOST_TEST(counts.dropped.at("in a list of one grade, which has no order") == 2);
    BOOST_TEST(counts.histogram.at("grade 2") == 2);
    BOOST_TEST(counts.histogram.at("grade 1") == 1);
    const SmallTask triple(
        R"({"name": "r", "kind": "rank", "train": "train.tsv", "reader": {"format": "tsv", "columns": ["q", "t", "n"]}, "input": ["{q}", "{choice}"],
        "choices": ["{t}", "{n}"], "grades": [1, 0]})",
        {{"train.tsv", "甲\t一\t二\n"}});
    const Prepared t = triple.prepare()[Split::train];
    BOOST_TEST(tokens_of(t, 1) == "[CLS] 甲 [SEP] 二 [SEP]");
    BOOST_TEST(t.score == (std::vector<float>{1, 0}), boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(scores_are_numbers_and_unknown_in_tests) {
    const SmallTask task(R"({"name": "r", "kind": "regress", "train": "a.jsonl", "test": "b.jsonl", "input": ["{s}"], "label": "{y}"})",
                         {{"a.jsonl", R"({"s": "一", "y": 2.5})"}, {"b.jsonl", R"({"s": "一"})"}});
    const PreparedTask p = task.prepare();
    BOOST_TEST(p[Split::train].score[0] == 2.5F);
    BOOST_TEST(std::isnan(p[Split::test].score[0]));
    const SmallTask wrong(R"({"name": "r", "kind": "regress", "train": "a.jsonl", "input": ["{s}"], "label": "{y}"})",
                          {{"a.jsonl", R"({"s": "一", "y": "好"})"}});
    RF_TEST_HOLDS(wrong.refusal(), "a.jsonl:1: \"好\" is no number");
}

BOOST_AUTO_TEST_CASE(answers_by_letter_and_text_of_a_line) {
    const std::string head = R"({"name": "m", "kind": "multiple_choice", "train": "a.jsonl", "input": ["{q}", "{choice}"], )";
    const SmallTask letters(head + R"("choices": "c", "answer": "{a}", "answer_is": "letter"})",
                            {{"a.jsonl", R"({"q": "问", "c": ["一", "二"], "a": "B"})"}});
    BOOST_TEST(letters.prepare()[Split::train].label[0] == 1);
    const SmallTask lines(head + R"("choices": "c", "choices_split": "\n", "answer": "{a}", "answer_is": "text"})",
                          {{"a.jsonl", R"({"q": "问", "c": "一\n二\n三", "a": "三"})"}});
    BOOST_TEST(lines.prepare()[Split::train].label[0] == 2);
    const SmallTask wrong(head + R"("choices": "c", "answer": "{a}", "answer_is": "letter"})",
                          {{"a.jsonl", R"({"q": "问", "c": ["一", "二"], "a": "C"})"}});
    RF_TEST_HOLDS(wrong.refusal(), "a.jsonl:1: the answer \"C\" names none of the 2 choices");
}

BOOST_AUTO_TEST_CASE(what_does_not_fit_names_file_and_line) {
    const auto refusal = [](const std::string& more, const std::string& rows) {
        return SmallTask(classify(R"("input": ["{s}"])" + more), {{"train.jsonl", rows}}).refusal();
    };
    RF_TEST_HOLDS(refusal("", "{\"s\": \"一\", \"label\": 0}\n{\"s\": \"一\", \"label\": 2}\n"),
                  "train.jsonl:2: the label \"2\" is not in the table of 2 labels (task t in ");
    RF_TEST_HOLDS(refusal("", "{\"text\": \"一\", \"label\": 0}\n"), "train.jsonl:1: the field \"s\" is missing");
    RF_TEST_HOLDS(refusal("", "{\"s\": \" \", \"label\": 0}\n"), "train.jsonl:1: the text of \"{s}\" is empty");
    RF_TEST_HOLDS(refusal("", "{\"s\": \"一\"}\n"), "the field \"label\" is missing");
    RF_TEST_HOLDS(refusal("", "\n"), "task.json: train: none of 0 rows became an example");
    RF_TEST_HOLDS(refusal(R"(, "max_bad": 1)", "{\"s\": \"一\", \"label\": 0}\n{\"label\": 0}\n{\"label\": 1}\n"),
                  "train.jsonl:3: the field \"s\" is missing (task t in ");
    const SmallTask allowed(classify(R"("input": ["{s}"], "max_bad": 1)"), {{"train.jsonl", "{\"s\": \"一\", \"label\": 0}\n{\"label\": 0}\n"}});
    const PreparedTask p = allowed.prepare();
    BOOST_TEST(p.counts[0].dropped.at("the field \"…\" is missing") == 1);
    BOOST_TEST(p.counts[0].kept == 1);
    BOOST_TEST(p.counts[0].rows == 2);
}

BOOST_AUTO_TEST_CASE(filters_keep_and_drop) {
    const SmallTask task(classify(R"("input": ["{s}"], "filters": [{"value": "{label?}", "drop": ["-"]}, {"value": "{k}", "keep": ["x"]}])"),
                         {{"train.jsonl",
                           "{\"s\": \"一\", \"label\": \"-\", \"k\": \"x\"}\n{\"s\": \"二\", \"label\": 1, \"k\": \"x\"}\n{\"s\": \"三\", \"label\": "
                           "1, \"k\": \"y\"}\n"}});
    const PreparedTask p = task.prepare();
    BOOST_TEST(tokens_of(p[Split::train], 0) == "[CLS] 二 [SEP]");
    BOOST_TEST(p.counts[0].dropped.at("left out by a filter") == 2);
}

BOOST_AUTO_TEST_CASE(held_out_rows_depend_on_their_text_alone) {
    const auto ids = [](bool reversed, Split split) {
        std::vector<std::string> rows;
        for (int i = 0; i < 2000; ++i) rows.push_back(message("{\"s\": \"甲 ", i / 2, "。\", \"id\": \"", i, "\", \"label\": 0}\n"));
        if (reversed) std::reverse(rows.begin(), rows.end());
        std::string all;
        for (const std::string& row : rows) all += row;
        const SmallTask task(classify(R"("input": ["{s}"], "hashed": {"dev": 0.1, "test": 0.2})"), {{"train.jsonl", all}});
        const PreparedTask prepared = task.prepare();
        std::vector<std::string> out;
        for (std::int64_t i = 0; i < prepared[split].examples(); ++i) out.emplace_back(prepared[split].id[i]);
        std::sort(out.begin(), out.end());
        return out;
    };
    const std::vector<std::string> dev = ids(false, Split::dev), test = ids(false, Split::test);
    BOOST_TEST(dev == ids(true, Split::dev), boost::test_tools::per_element());
    // 1000 different texts, two rows each: binomial, within five standard deviations.
    BOOST_TEST(std::abs(static_cast<double>(dev.size()) / 2 - 100) < 5 * std::sqrt(1000 * 0.1 * 0.9));
    BOOST_TEST(std::abs(static_cast<double>(test.size()) / 2 - 200) < 5 * std::sqrt(1000 * 0.2 * 0.8));
    // Rows of one text stay together.
    for (const std::string& id : dev) BOOST_TEST(std::binary_search(dev.begin(), dev.end(), std::to_string(std::stoi(id) ^ 1)));
}
