/// Token ids published or made by bert4keras' own tokenizer, with the released vocabulary.

#include "tests/real_data.hpp"
#include "text/tokenizer.hpp"

#include <boost/test/unit_test.hpp>

#include <fstream>
#include <sstream>

using namespace rf;

namespace {

struct NeedData {
    NeedData() {
        test::need_real_data("vocab/roformer_v2_char_vocab.txt");
        test::need_real_data("golden/tokens.txt");
    }
};

const Vocabulary& vocabulary() {
    static const Vocabulary v((test::real_data() / "vocab/roformer_v2_char_vocab.txt").string());
    return v;
}

std::string ids_of(const Tokenizer& tokenizer, const std::string& text) {
    std::ostringstream out;
    out << vocabulary().cls();
    for (const std::int32_t id : tokenizer.encode(text)) out << ' ' << id;
    out << ' ' << vocabulary().sep();
    return out.str();
}

}  // namespace

BOOST_GLOBAL_FIXTURE(NeedData);

BOOST_AUTO_TEST_CASE(published_ids) {
    const Tokenizer tokenizer(vocabulary());
    const std::pair<const char*, const char*> rows[] = {
        {"欢迎使用百度飞桨", "101 3223 6500 421 4179 4331 2008 7263 3055 102"},
        {"今天天气很好，我去公园玩。", "101 317 1466 1466 3310 2100 1506 7675 2351 861 585 1253 4041 179 102"},
        {"RoFormerV2在CLUE榜单上做到了第5名！",
         "101 8136 11719 10776 10581 10552 1278 7889 11021 3155 810 198 518 691 270 4752 126 918 7672 102"},
        {"Café　ＡＢＣ１２３ 3.14", "101 9520 100 124 119 7696 102"},
        {"苹果 iPhone13 Pro Max 售价¥8999起😀ok", "101 5470 2945 10249 10600 9121 9046 1078 346 100 6322 100 102"},
        {"10月1日，《长津湖》票房破50亿", "101 7692 2877 122 2757 7675 182 6977 3459 3612 183 4599 2374 4492 7759 308 102"},
        {"_____", "101 100 100 100 100 100 102"},
        {"[[它]]", "101 138 138 1680 140 140 102"},
        {"A||B", "101 142 169 169 143 102"},
        {"한국어", "101 100 102"},
        {"unused [MASK]", "101 162 11449 10764 138 8048 10988 140 102"},
    };
    for (const auto& [text, ids] : rows) BOOST_TEST(ids_of(tokenizer, text) == ids, text);
}

BOOST_AUTO_TEST_CASE(lines_of_the_golden_file) {
    const Tokenizer tokenizer(vocabulary());
    std::ifstream texts(test::real_data() / "golden/tokens.txt"), golden(test::real_data() / "golden/tokens.ids");
    int lines = 0, equal = 0;
    for (std::string text, ids; std::getline(texts, text) && std::getline(golden, ids); ++lines) {
        const bool same = ids_of(tokenizer, text) == ids;
        BOOST_CHECK_MESSAGE(same, "line " << lines + 1 << ": " << text);
        equal += same;
    }
    BOOST_TEST(lines == 4998);
    BOOST_TEST(equal == lines);
}
