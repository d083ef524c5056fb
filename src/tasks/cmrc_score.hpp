#pragma once
/// How CMRC 2018 compares an answer with the right ones (its published evaluation script, version 5).

#include <string>
#include <string_view>
#include <vector>

namespace rf::tasks {

/// Both are the best over the right answers, from 0 to 1.
struct CmrcScore {
    double exact_match = 0;  ///< equal in lower case, without white space at the ends and without punctuation
    double f1 = 0;           ///< of precision and recall of the longest common run of segments
};
CmrcScore cmrc_score(std::string_view answer, const std::vector<std::string>& right);

/// What F1 counts: every Chinese character (U+4E00 to U+9FA5) and the words between them, in lower case, punctuation taken out before. Words
/// are those of the Penn Treebank's rules, by which the script splits them: at white space; brackets, quotes and ;@#$%&?! alone; a comma
/// alone unless a digit follows; two or more dots alone, and one at the end; 's 'm 'd 'll 're 've n't and a last ' apart from their word.
/// (Against NLTK 3.10: 9636 of the 9657 right answers of the dev part give the same segments, the rest mostly by how quotes are written.)
std::vector<std::u32string> cmrc_segments(std::string_view text);

}  // namespace rf::tasks
