#include "kernels/score_loss.hpp"

#include "kernels/nvidia/row.cuh"
#include "kernels/score_list.hpp"

namespace rf {

namespace {

using namespace device;

constexpr int threads = 256, warps = threads / 32;

struct Partial {
    double of[warps][2];
};

/// One block: a thread every 256th list, in order; then threads in a fixed tree. Lists are short and few.
__global__ void __launch_bounds__(threads) score_loss_kernel(ScoreList<float> list, const std::int32_t* list_begin, int lists, ScoreLossKind kind,
                                                             ScalarArgument factor, double* sums) {
    Partial& partial = shared_memory<Partial>();
    list.factor = factor.read();
    double loss = 0, correct = 0;
    for (int e = static_cast<int>(threadIdx.x); e < lists; e += threads) {
        list.begin = list_begin ? load(list_begin + e) : e;
        list.end = list_begin ? load(list_begin + e + 1) : e + 1;
        const ScoreListResult result = score_list(list, kind);
        loss += result.loss;
        correct += result.correct;
    }
    loss = warp_sum(loss);
    correct = warp_sum(correct);
    if (lane() == 0) {
        store_shared(&partial.of[warp()][0], loss);
        store_shared(&partial.of[warp()][1], correct);
    }
    block_barrier();
    if (threadIdx.x >= 2) return;
    double total = 0;
    for (int w = 0; w < warps; ++w) total += load_shared(&partial.of[w][threadIdx.x]);
    store(sums + threadIdx.x, load(sums + threadIdx.x) + total);
}

}  // namespace

namespace cuda {

void score_loss(Stream& stream, const ScoreLoss& a) {
    const int lists = narrow(a.list_begin ? a.list_begin.shape[0] - 1 : a.scores.shape[0], "the count of lists");
    const ScoreList<float> list{.scores = a.scores.as<float>(), .grades = a.grades.as<float>(), .d_scores = a.d_scores ? a.d_scores.as<float>() : nullptr,
                                .begin = 0, .end = 0, .factor = 1};
    launch({.name = "score_loss", .grid = dim3(lists ? 1 : 0), .block = dim3(threads), .shared = sizeof(Partial), .stream = stream.handle()}, score_loss_kernel,
           list, a.list_begin ? a.list_begin.as<std::int32_t>() : nullptr, lists, a.kind, argument(a.factor), a.sums.as<double>());
}

}  // namespace cuda

}  // namespace rf
