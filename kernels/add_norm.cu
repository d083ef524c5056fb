#include "kernels/add_norm.hpp"

#include "kernels/nvidia/token_row.cuh"

#include <cmath>

namespace rf {

namespace {

using namespace device;

template <class T>
struct Forward {
    const T *x, *f;  // x: null where absent
    T* y;
    float* inv_rms;
    ScalarArgument alpha;
    DropArgument drop;
    OriginArgument origin;
    float epsilon;
    bool normalise;
    int tokens, c;
};

template <class T>
struct Backward {
    const T *dy, *y, *f;  // y: null when not normalising; f: null without d_alpha
    const float* inv_rms;
    T *dx, *df;
    float* along_f;  ///< [T] sum(dz * dropout(f)) of each token
    ScalarArgument alpha;
    DropArgument drop;
    OriginArgument origin;
    int tokens, c;
};

/// One warp a token, 8 tokens a block; Wide: one block a token. A lane keeps `Pieces` times eight elements of each row in
/// registers, so c <= 256 Pieces for a warp and 256 Pieces a warp of a block. Each row is read once and written once.
template <class T, int Pieces, bool Whole, bool Wide>
__global__ void __launch_bounds__(Wide ? wide_threads : 256) add_norm_kernel(Forward<T> a) {
    const Place<Wide> at;
    if (at.token >= a.tokens) return;
    const std::int64_t row = std::int64_t{at.token} * a.c;
    Eight<T> x[Pieces]{}, f[Pieces];
#pragma unroll
    for (int p = 0; p < Pieces; ++p) {
        f[p] = load_eight<Whole>(a.f + row, at.first + p * at.stride, a.c);
        if (a.x) x[p] = load_eight<Whole>(a.x + row, at.first + p * at.stride, a.c);
    }
    const float alpha = a.x ? a.alpha.read() : 1;
    const RowDrop drop(a.drop, a.origin, at.token);
    float z[Pieces][8], squares = 0;
#pragma unroll
    for (int p = 0; p < Pieces; ++p) {
#pragma unroll
        for (int k = 0; k < 8; ++k) z[p][k] = f[p][k];
        drop(z[p], at.first + p * at.stride);
#pragma unroll
        for (int k = 0; k < 8; ++k) {
            z[p][k] = x[p][k] + z[p][k] * alpha;
            squares += z[p][k] * z[p][k];
        }
    }
    float inv_rms = 1;
    if (a.normalise) inv_rms = 1 / sqrtf(at.sum(squares, 0) / static_cast<float>(a.c) + a.epsilon);
    if (a.inv_rms && at.first == 0) store(a.inv_rms + at.token, inv_rms);
#pragma unroll
    for (int p = 0; p < Pieces; ++p) {
#pragma unroll
        for (int k = 0; k < 8; ++k) z[p][k] *= inv_rms;
        store_eight<Whole>(a.y + row, at.first + p * at.stride, a.c, z[p]);
    }
}

/// The split of add_norm_kernel. A lane reads all that it needs of dy, y and f before it writes the same places, so dx and
/// df may be dy.
template <class T, int Pieces, bool Whole, bool Wide>
__global__ void __launch_bounds__(Wide ? wide_threads : 256) add_norm_backward_kernel(Backward<T> a) {
    const Place<Wide> at;
    if (at.token >= a.tokens) return;
    const std::int64_t row = std::int64_t{at.token} * a.c;
    Eight<T> dy[Pieces], y[Pieces]{}, f[Pieces]{};
#pragma unroll
    for (int p = 0; p < Pieces; ++p) {
        dy[p] = load_eight<Whole>(a.dy + row, at.first + p * at.stride, a.c);
        if (a.y) y[p] = load_eight<Whole>(a.y + row, at.first + p * at.stride, a.c);
        if (a.f) f[p] = load_eight<Whole>(a.f + row, at.first + p * at.stride, a.c);
    }
    const float alpha = a.dx ? a.alpha.read() : 1;
    const RowDrop drop(a.drop, a.origin, at.token);
    float mean = 0, inv_rms = 1;
    if (a.y) {
        inv_rms = load(a.inv_rms + at.token);
        float dot = 0;
#pragma unroll
        for (int p = 0; p < Pieces; ++p)
#pragma unroll
            for (int k = 0; k < 8; ++k) dot += dy[p][k] * y[p][k];
        mean = at.sum(dot, 0) / static_cast<float>(a.c);
    }
    float along_f = 0;
#pragma unroll
    for (int p = 0; p < Pieces; ++p) {
        const int e = at.first + p * at.stride;
        float dz[8];
#pragma unroll
        for (int k = 0; k < 8; ++k) dz[k] = (dy[p][k] - y[p][k] * mean) * inv_rms;
        if (a.dx) store_eight<Whole>(a.dx + row, e, a.c, dz);
        drop(dz, e);  // sum(dz * dropout(f)) is sum(dropout(dz) * f): both scale what they keep
#pragma unroll
        for (int k = 0; k < 8; ++k) {
            along_f += dz[k] * f[p][k];
            dz[k] *= alpha;
        }
        store_eight<Whole>(a.df + row, e, a.c, dz);
    }
    if (!a.f) return;
    along_f = at.sum(along_f, 1);
    if (at.first == 0) store(a.along_f + at.token, along_f);
}

/// One block: d_alpha += the sum over all tokens, every 256th to one thread, threads in a fixed tree, in f64.
struct TokenSums {
    double of[8];
};
__global__ void __launch_bounds__(256) add_norm_alpha_kernel(const float* along_f, int tokens, float* d_alpha) {
    TokenSums& sums = shared_memory<TokenSums>();
    double sum = 0;
    for (int t = static_cast<int>(threadIdx.x); t < tokens; t += 256) sum += static_cast<double>(load(along_f + t));
    sum = warp_sum(sum);
    if (lane() == 0) store_shared(&sums.of[warp()], sum);
    block_barrier();
    if (threadIdx.x != 0) return;
    sum = 0;
    for (int w = 0; w < 8; ++w) sum += load_shared(&sums.of[w]);
    *d_alpha += static_cast<float>(sum);
}

template <class T>
void forward(Stream& stream, const AddNorm& a) {
    const Forward<T> arguments{.x = a.x ? a.x.as<T>() : nullptr,
                               .f = a.f.as<T>(),
                               .y = a.y.as<T>(),
                               .inv_rms = a.inv_rms ? a.inv_rms.as<float>() : nullptr,
                               .alpha = argument(a.alpha),
                               .drop = argument(a.dropout),
                               .origin = argument(a.dropout, a.origin),
                               .epsilon = static_cast<float>(a.epsilon),
                               .normalise = a.normalise,
                               .tokens = narrow(a.f.shape[0], "T"),
                               .c = narrow(a.f.shape[1], "C")};
    launch_rows(stream, "add_norm", arguments.tokens, arguments.c, whole_packs(arguments.c, {a.x.data, a.f.data, a.y.data}),
                [&](const Launch& at, auto pieces, auto whole, auto wide) {
                    launch(at, add_norm_kernel<T, decltype(pieces)::value, decltype(whole)::value, decltype(wide)::value>, arguments);
                });
}

template <class T>
void backward(Stream& stream, const AddNormBackward& a) {
    const Backward<T> arguments{.dy = a.dy.as<T>(),
                                .y = a.normalise ? a.y.as<T>() : nullptr,
                                .f = a.d_alpha ? a.f.as<T>() : nullptr,
                                .inv_rms = a.normalise ? a.inv_rms.as<float>() : nullptr,
                                .dx = a.dx ? a.dx.as<T>() : nullptr,
                                .df = a.df.as<T>(),
                                .along_f = a.d_alpha ? a.scratch.as<float>() : nullptr,
                                .alpha = argument(a.alpha),
                                .drop = argument(a.dropout),
                                .origin = argument(a.dropout, a.origin),
                                .tokens = narrow(a.dy.shape[0], "T"),
                                .c = narrow(a.dy.shape[1], "C")};
    launch_rows(stream, "add_norm_backward", arguments.tokens, arguments.c,
                whole_packs(arguments.c, {arguments.dy, arguments.y, arguments.f, arguments.dx, arguments.df}),
                [&](const Launch& at, auto pieces, auto whole, auto wide) {
                    launch(at, add_norm_backward_kernel<T, decltype(pieces)::value, decltype(whole)::value, decltype(wide)::value>, arguments);
                });
    if (!a.d_alpha || arguments.tokens == 0) return;
    launch({.name = "add_norm_alpha", .grid = dim3(1), .block = dim3(256), .shared = sizeof(TokenSums), .stream = stream.handle()},
           add_norm_alpha_kernel, arguments.along_f, arguments.tokens, a.d_alpha.as<float>());
}

}  // namespace

namespace cuda {

void add_norm(Stream& stream, const AddNorm& a) {
    device::dispatch(a.f.dtype, [&](auto type) { forward<decltype(type)>(stream, a); });
}

void add_norm_backward(Stream& stream, const AddNormBackward& a) {
    RF_REQUIRE(!a.d_alpha || (a.scratch.shape == Shape{a.dy.shape[0]} && a.scratch.dtype == Dtype::f32), "d_alpha needs scratch [T] f32 on a GPU");
    device::dispatch(a.dy.dtype, [&](auto type) { backward<decltype(type)>(stream, a); });
}

}  // namespace cuda

}  // namespace rf
