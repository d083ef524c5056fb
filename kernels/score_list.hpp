#pragma once
/// One list of kernels/score_loss.hpp: the same arithmetic on a CPU (double) and in a CUDA thread (float).

#include "core/build.hpp"
#include "kernels/score_loss.hpp"

#include <cmath>

namespace rf {

template <class R>
struct ScoreList {
    const R* scores;
    const float* grades;
    R* d_scores;  ///< or null
    int begin, end;
    R factor;
};

struct ScoreListResult {
    double loss = 0;
    bool correct = false;
};

template <class R>
RF_HOST_DEVICE inline bool is_known(const ScoreList<R>& a, int i) { return a.grades[i] == a.grades[i]; }

template <class R>
RF_HOST_DEVICE ScoreListResult square_list(const ScoreList<R>& a) {
    ScoreListResult result;
    for (int i = a.begin; i < a.end; ++i) {
        const R off = is_known(a, i) ? a.scores[i] - static_cast<R>(a.grades[i]) : R{0};
        result.loss += static_cast<double>(off * off);
        if (a.d_scores) a.d_scores[i] = 2 * off * a.factor;
    }
    return result;
}

template <class R>
RF_HOST_DEVICE ScoreListResult pairwise_list(const ScoreList<R>& a) {
    int pairs = 0;
    for (int i = a.begin; i < a.end; ++i)
        for (int j = a.begin; j < a.end; ++j) pairs += a.grades[i] > a.grades[j];
    const R each = pairs ? 1 / static_cast<R>(pairs) : R{0};
    ScoreListResult result;
    for (int i = a.begin; i < a.end; ++i) {
        R slope = 0;  // of the loss along score i
        for (int j = a.begin; j < a.end; ++j) {
            const bool above = a.grades[i] > a.grades[j];
            if (!above && !(a.grades[i] < a.grades[j])) continue;
            const R behind = above ? a.scores[j] - a.scores[i] : a.scores[i] - a.scores[j];
            const R small = std::exp(-std::abs(behind));
            const R wrong = (behind > 0 ? R{1} : small) / (1 + small);  // probability of the wrong order
            slope += above ? -wrong : wrong;
            if (above) result.loss += static_cast<double>(((behind > 0 ? behind : R{0}) + std::log1p(small)) * each);
        }
        if (a.d_scores) a.d_scores[i] = slope * each * a.factor;
    }
    result.correct = pairs > 0;  // so far: whether it counts
    return result;
}

template <class R>
RF_HOST_DEVICE ScoreListResult listwise_list(const ScoreList<R>& a) {
    R most = 0, best = 0, known = 0;
    for (int i = a.begin; i < a.end; ++i) {
        if (!is_known(a, i)) continue;
        const R grade = static_cast<R>(a.grades[i]);
        most = known == 0 || grade > most ? grade : most;
        best = known == 0 || a.scores[i] > best ? a.scores[i] : best;
        known = 1;
    }
    R wanted_sum = 0, sum = 0;
    for (int i = a.begin; i < a.end; ++i) {
        if (!is_known(a, i)) continue;
        wanted_sum += std::exp(static_cast<R>(a.grades[i]) - most);
        sum += std::exp(a.scores[i] - best);
    }
    ScoreListResult result;
    for (int i = a.begin; i < a.end; ++i) {
        const bool counts = is_known(a, i);
        const R wanted = counts ? std::exp(static_cast<R>(a.grades[i]) - most) / wanted_sum : R{0};
        if (counts) result.loss -= static_cast<double>(wanted * (a.scores[i] - best - std::log(sum)));
        if (a.d_scores) a.d_scores[i] = counts ? (std::exp(a.scores[i] - best) / sum - wanted) * a.factor : R{0};
    }
    result.correct = known != 0;
    return result;
}

template <class R>
RF_HOST_DEVICE ScoreListResult score_list(const ScoreList<R>& a, ScoreLossKind kind) {
    if (kind == ScoreLossKind::square) return square_list(a);
    ScoreListResult result = kind == ScoreLossKind::pairwise ? pairwise_list(a) : listwise_list(a);
    int first = -1;
    float highest = 0;
    for (int i = a.begin; i < a.end; ++i) {
        if (!is_known(a, i)) continue;
        highest = first < 0 || a.grades[i] > highest ? a.grades[i] : highest;
        first = first < 0 || a.scores[i] > a.scores[first] ? i : first;
    }
    result.correct = result.correct && a.grades[first] == highest;
    return result;
}

}  // namespace rf
