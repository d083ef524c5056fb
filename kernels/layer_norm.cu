#include "kernels/layer_norm.hpp"

#include "kernels/nvidia/token_row.cuh"

#include <cmath>

namespace rf {

namespace {

using namespace device;

template <class T>
struct Forward {
    const T *x, *f, *gain, *bias;  // x, gain, bias: null where absent
    T *normalised, *y;
    float* inv_std;
    ScalarArgument alpha;
    DropArgument drop;
    OriginArgument origin;
    float epsilon;
    bool centre;
    int tokens, c;
};

template <class T>
struct Backward {
    const T *dy, *normalised, *gain;  // gain: null where absent
    const float* inv_std;
    T *dx, *df;  // dx: null where absent
    ScalarArgument alpha;
    DropArgument drop;
    OriginArgument origin;
    bool centre;
    int tokens, c;
};

/// The split of add_norm_kernel: one warp a token, 8 tokens a block; Wide: one block a token; `Pieces` times eight elements of each row in a
/// lane's registers. Each row is read once and written once; gain and bias are read for every token, from cache.
template <class T, int Pieces, bool Whole, bool Wide>
__global__ void __launch_bounds__(Wide ? wide_threads : 256) layer_norm_kernel(Forward<T> a) {
    const Place<Wide> at;
    if (at.token >= a.tokens) return;
    const std::int64_t row = std::int64_t{at.token} * a.c;
    Eight<T> x[Pieces]{}, f[Pieces];
#pragma unroll
    for (int p = 0; p < Pieces; ++p) {
        f[p] = load_eight<Whole>(a.f + row, at.first + p * at.stride, a.c);
        if (a.x) x[p] = load_eight<Whole>(a.x + row, at.first + p * at.stride, a.c);
    }
    const float alpha = a.x ? a.alpha.read() : 1, n = static_cast<float>(a.c);
    const RowDrop drop(a.drop, a.origin, at.token);
    float z[Pieces][8], total = 0;
#pragma unroll
    for (int p = 0; p < Pieces; ++p) {
#pragma unroll
        for (int k = 0; k < 8; ++k) z[p][k] = f[p][k];
        drop(z[p], at.first + p * at.stride);
#pragma unroll
        for (int k = 0; k < 8; ++k) {
            z[p][k] = x[p][k] + z[p][k] * alpha;
            total += z[p][k];
        }
    }
    const float mean = a.centre ? at.sum(total, 0) / n : 0.0F;
    float squares = 0;
#pragma unroll
    for (int p = 0; p < Pieces; ++p) {
#pragma unroll
        for (int k = 0; k < 8; ++k) {
            const bool inside = 8 * (at.first + p * at.stride) + k < a.c;
            z[p][k] = inside ? z[p][k] - mean : 0.0F;
            squares += z[p][k] * z[p][k];
        }
    }
    const float inv_std = 1 / sqrtf(at.sum(squares, 1) / n + a.epsilon);
    if (at.first == 0) store(a.inv_std + at.token, inv_std);
#pragma unroll
    for (int p = 0; p < Pieces; ++p) {
        const int e = at.first + p * at.stride;
#pragma unroll
        for (int k = 0; k < 8; ++k) z[p][k] *= inv_std;
        store_eight<Whole>(a.normalised + row, e, a.c, z[p]);
        if (a.gain) {
            const Eight<T> gain = load_eight<Whole>(a.gain, e, a.c);
#pragma unroll
            for (int k = 0; k < 8; ++k) z[p][k] *= gain[k];
        }
        if (a.bias) {
            const Eight<T> bias = load_eight<Whole>(a.bias, e, a.c);
#pragma unroll
            for (int k = 0; k < 8; ++k) z[p][k] += bias[k];
        }
        if (a.y != a.normalised) store_eight<Whole>(a.y + row, e, a.c, z[p]);
    }
}

/// The split of layer_norm_kernel. A lane reads all that it needs of dy before it writes the same places, so dx and df may be dy.
template <class T, int Pieces, bool Whole, bool Wide>
__global__ void __launch_bounds__(Wide ? wide_threads : 256) layer_norm_backward_kernel(Backward<T> a) {
    const Place<Wide> at;
    if (at.token >= a.tokens) return;
    const std::int64_t row = std::int64_t{at.token} * a.c;
    Eight<T> normalised[Pieces];
    float g[Pieces][8], total = 0, along = 0;
#pragma unroll
    for (int p = 0; p < Pieces; ++p) {
        const int e = at.first + p * at.stride;
        const Eight<T> dy = load_eight<Whole>(a.dy + row, e, a.c);
        normalised[p] = load_eight<Whole>(a.normalised + row, e, a.c);
        Eight<T> gain{};
        if (a.gain) gain = load_eight<Whole>(a.gain, e, a.c);
#pragma unroll
        for (int k = 0; k < 8; ++k) {
            g[p][k] = a.gain ? dy[k] * gain[k] : dy[k];
            total += g[p][k];
            along += g[p][k] * normalised[p][k];
        }
    }
    const float alpha = a.dx ? a.alpha.read() : 1, n = static_cast<float>(a.c), inv_std = load(a.inv_std + at.token);
    const RowDrop drop(a.drop, a.origin, at.token);
    const float mean = a.centre ? at.sum(total, 0) / n : 0.0F, mean_along = at.sum(along, 1) / n;
#pragma unroll
    for (int p = 0; p < Pieces; ++p) {
        const int e = at.first + p * at.stride;
        float dz[8];
#pragma unroll
        for (int k = 0; k < 8; ++k) dz[k] = (g[p][k] - mean - normalised[p][k] * mean_along) * inv_std;
        if (a.dx) store_eight<Whole>(a.dx + row, e, a.c, dz);
        drop(dz, e);
#pragma unroll
        for (int k = 0; k < 8; ++k) dz[k] *= alpha;
        store_eight<Whole>(a.df + row, e, a.c, dz);
    }
}

constexpr int sum_warps = 32;

struct ColumnSums {
    float gain[sum_warps][32], bias[sum_warps][32];
};

/// One block 32 columns: a lane a column, a warp every 32nd token in order, then the warps in order.
template <class T>
__global__ void __launch_bounds__(32 * sum_warps) layer_norm_columns_kernel(const T* dy, const T* normalised, float* d_gain, float* d_bias, int tokens, int c) {
    ColumnSums& sums = shared_memory<ColumnSums>();
    const int column = static_cast<int>(blockIdx.x) * 32 + lane();
    float gain = 0, bias = 0;
    if (column < c)
        for (int t = warp(); t < tokens; t += sum_warps) {
            const float g = to_float(load(dy + std::int64_t{t} * c + column));
            if (d_gain) gain += g * to_float(load(normalised + std::int64_t{t} * c + column));
            bias += g;
        }
    store_shared(&sums.gain[warp()][lane()], gain);
    store_shared(&sums.bias[warp()][lane()], bias);
    block_barrier();
    if (warp() != 0 || column >= c) return;
    for (int w = 1; w < sum_warps; ++w) {
        gain += load_shared(&sums.gain[w][lane()]);
        bias += load_shared(&sums.bias[w][lane()]);
    }
    if (d_gain) store(d_gain + column, load(d_gain + column) + gain);
    if (d_bias) store(d_bias + column, load(d_bias + column) + bias);
}

template <class T>
const T* pointer(const ConstTensor& t) { return t ? t.as<T>() : nullptr; }

template <class T>
void forward(Stream& stream, const LayerNorm& a) {
    const Forward<T> arguments{.x = pointer<T>(a.x),
                               .f = a.f.as<T>(),
                               .gain = pointer<T>(a.gain),
                               .bias = pointer<T>(a.bias),
                               .normalised = a.normalised.as<T>(),
                               .y = a.y.as<T>(),
                               .inv_std = a.inv_std.as<float>(),
                               .alpha = argument(a.alpha),
                               .drop = argument(a.dropout),
                               .origin = argument(a.dropout, a.origin),
                               .epsilon = static_cast<float>(a.epsilon),
                               .centre = a.centre,
                               .tokens = narrow(a.f.shape[0], "T"),
                               .c = narrow(a.f.shape[1], "C")};
    launch_rows(stream, "layer_norm", arguments.tokens, arguments.c,
                whole_packs(arguments.c, {a.x.data, a.f.data, a.gain.data, a.bias.data, a.normalised.data, a.y.data}),
                [&](const Launch& at, auto pieces, auto whole, auto wide) {
                    launch(at, layer_norm_kernel<T, decltype(pieces)::value, decltype(whole)::value, decltype(wide)::value>, arguments);
                });
}

template <class T>
void backward(Stream& stream, const LayerNormBackward& a) {
    const Backward<T> arguments{.dy = a.dy.as<T>(),
                                .normalised = a.normalised.as<T>(),
                                .gain = pointer<T>(a.gain),
                                .inv_std = a.inv_std.as<float>(),
                                .dx = a.dx ? a.dx.as<T>() : nullptr,
                                .df = a.df.as<T>(),
                                .alpha = argument(a.alpha),
                                .drop = argument(a.dropout),
                                .origin = argument(a.dropout, a.origin),
                                .centre = a.centre,
                                .tokens = narrow(a.dy.shape[0], "T"),
                                .c = narrow(a.dy.shape[1], "C")};
    if ((a.d_gain || a.d_bias) && arguments.tokens > 0)  // before dx takes the place of dy
        launch({.name = "layer_norm_columns", .grid = dim3(blocks_for(arguments.c, 32)), .block = dim3(32 * sum_warps), .shared = sizeof(ColumnSums), .stream = stream.handle()},
               layer_norm_columns_kernel<T>, arguments.dy, arguments.normalised, a.d_gain ? a.d_gain.as<float>() : nullptr,
               a.d_bias ? a.d_bias.as<float>() : nullptr, arguments.tokens, arguments.c);
    launch_rows(stream, "layer_norm_backward", arguments.tokens, arguments.c,
                whole_packs(arguments.c, {arguments.dy, arguments.normalised, arguments.gain, arguments.dx, arguments.df}),
                [&](const Launch& at, auto pieces, auto whole, auto wide) {
                    launch(at, layer_norm_backward_kernel<T, decltype(pieces)::value, decltype(whole)::value, decltype(wide)::value>, arguments);
                });
}

}  // namespace

namespace cuda {

void layer_norm(Stream& stream, const LayerNorm& a) {
    device::dispatch(a.f.dtype, [&](auto type) { forward<decltype(type)>(stream, a); });
}

void layer_norm_backward(Stream& stream, const LayerNormBackward& a) {
    device::dispatch(a.dy.dtype, [&](auto type) { backward<decltype(type)>(stream, a); });
}

}  // namespace cuda

}  // namespace rf
