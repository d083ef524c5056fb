#pragma once
/// The vector code of this folder exists once for every instruction set; a `Table` holds one set's functions.
/// They work on one row (or one flat run) and never start threads. f32 results are the same bits in every table:
/// sixteen lanes everywhere, one fixed tree to join them, no fused multiply-add, an exp() of products and sums only. The one
/// exception is `product`, which fuses where it can.
///
/// This header is included by files compiled for AVX2 and AVX-512: it may hold no inline function, since the linker
/// could keep that copy for the whole program.

#include <cstdint>

namespace rf {
enum class Isa;
}

namespace rf::simd {

/// Storage types are float, double and std::uint16_t (the bits of a bf16). `Real` is what they are computed in.
template <class T> struct RealOf { using type = T; };
template <> struct RealOf<std::uint16_t> { using type = float; };
template <class T> using Real = typename RealOf<T>::type;

/// Dropout of one row; see kernels/dropout.hpp for the meaning of the bits.
struct DropRow {
    std::uint32_t threshold = 0;  ///< 0: off
    std::uint32_t key[2] = {};
    std::uint32_t position = 0, sample = 0, stream = 0;
    double scale = 1;
};

template <class T> struct AddNormRow {
    const T* x = nullptr;  ///< or absent
    const T* f = nullptr;
    T* y = nullptr;
    Real<T>* z = nullptr;  ///< scratch of n elements
    std::int64_t n = 0;
    double alpha = 1, epsilon = 0;
    bool normalise = true;
};

template <class T> struct AddNormBackwardRow {
    const T* dy = nullptr;
    const T* y = nullptr;
    const T* f = nullptr;  ///< only when the sum is wanted
    T* dx = nullptr;       ///< or absent
    T* df = nullptr;
    std::int64_t n = 0;
    Real<T> inv_rms = 1;
    double alpha = 1;
    bool normalise = true;
};

template <class T> struct LayerNormRow {
    const T* x = nullptr;     ///< or absent
    const T* f = nullptr;
    const T* gain = nullptr;  ///< or absent
    const T* bias = nullptr;  ///< or absent
    T* normalised = nullptr;
    T* y = nullptr;
    Real<T>* z = nullptr;     ///< scratch of n elements
    std::int64_t n = 0;
    double alpha = 1, epsilon = 0;
    bool centre = true;
};

template <class T> struct LayerNormBackwardRow {
    const T* dy = nullptr;
    const T* normalised = nullptr;
    const T* gain = nullptr;  ///< or absent
    T* dx = nullptr;          ///< or absent
    T* df = nullptr;
    std::int64_t n = 0;
    Real<T> inv_std = 1;
    double alpha = 1;
    bool centre = true;
};

template <class R> struct SoftmaxRow {
    R maximum = 0;
    R sum = 0;  ///< of exp(scale * score - maximum)
};

/// Functions on stored elements.
template <class T> struct RowTable {
    using R = Real<T>;
    /// See kernels/add_norm.hpp; returns 1 / rms (1 when not normalising).
    R (*add_norm)(const AddNormRow<T>& row, const DropRow& drop);
    /// Returns sum(dz * dropout(f)), or 0 without f.
    R (*add_norm_backward)(const AddNormBackwardRow<T>& row, const DropRow& drop);
    /// See kernels/layer_norm.hpp; returns 1 / standard deviation.
    R (*layer_norm)(const LayerNormRow<T>& row, const DropRow& drop);
    void (*layer_norm_backward)(const LayerNormBackwardRow<T>& row, const DropRow& drop);
    /// Pairs (2i, 2i+1) of x turned by the angles of table [n/2, 2] (cos, sin) times `direction` (1 or -1). n is even.
    void (*rotate)(T* x, const R* table, std::int64_t n, R direction);
    /// x = max(x, 0), and bit i % 8 of mask[i / 8] says whether x_i > 0 (bits past n in the last byte are 0).
    void (*relu)(T* x, std::uint8_t* mask, std::int64_t n);
    /// x_i = 0 where the mask's bit is 0.
    void (*relu_backward)(T* x, const std::uint8_t* mask, std::int64_t n);
    /// y = max(x, 0);  dx = dy where x > 0, else 0. See kernels/activation.hpp.
    void (*positive)(const T* x, T* y, std::int64_t n);
    void (*positive_backward)(const T* x, const T* dy, T* dx, std::int64_t n);
    /// y = x Phi(x);  dx = dy (Phi(x) + x Phi'(x)).
    void (*gelu)(const T* x, T* y, std::int64_t n);
    void (*gelu_backward)(const T* x, const T* dy, T* dx, std::int64_t n);
    /// y += x
    void (*add)(const T* x, T* y, std::int64_t n);
    /// y += factor * x
    void (*add_scaled)(const T* x, T* y, std::int64_t n, R factor);
    /// sum += x
    void (*accumulate)(const T* x, R* sum, std::int64_t n);
    /// sum += x * y
    void (*accumulate_product)(const T* x, const T* y, R* sum, std::int64_t n);
    /// y = a + b, where either may be absent (zero).
    void (*sum_rows)(const T* a, const T* b, T* y, std::int64_t n);
    R (*dot)(const T* a, const T* b, std::int64_t n);
    void (*widen)(const T* x, R* y, std::int64_t n);
    void (*narrow)(const R* x, T* y, std::int64_t n);
    /// d_j = (exp(logit_j - maximum) / sum - [j == target]) * factor; `target` out of [0, n): none. d may be logits.
    void (*softmax_gradient)(const R* logits, T* d, std::int64_t n, SoftmaxRow<R> row, std::int64_t target, R factor);
};

/// C [m, n] = A [m, k] B [k, n] + beta C, operands in cache. n and the rows' lengths in memory are multiples of `product_columns`.
template <class R> struct SmallProduct {
    const R* a;
    std::int64_t row_a, step_a;  ///< element (i, l) of A is a[i row_a + l step_a]: A as it lies (step_a 1), or transposed (row_a 1)
    const R* b;
    std::int64_t ldb;
    R* c;
    std::int64_t ldc;
    std::int64_t m, n, k;
    bool accumulate;  ///< beta is 1, else 0
};
constexpr std::int64_t product_columns = 16;

/// C [m, w] = A B + beta C, where w is the table's panel width and rows of A number m.
struct PanelProduct {
    const float* a;
    std::int64_t lda;  ///< rows of A lie so far apart; 0: A lies in strips of `strip_rows` rows, each [k][strip_rows], the last one filled up
    const float* b;    ///< [k][w]; what lies behind it is asked for, as the next panel
    float* c;
    std::int64_t ldc;
    std::int64_t m, k;
    bool accumulate;
};

template <class R> struct MomentRule {
    R beta1, rest1, beta2, rest2;  ///< rest = 1 - beta
    R epsilon, decay, correction1, correction2, gradient_factor;
};

template <class R> struct MomentRun {
    R* weight;
    R* m;
    R* v;
    const R* gradient;
    std::int64_t n;
};

struct SquareSums {
    double weight = 0, update = 0, gradient = 0;
};

/// Functions on accumulators (f32 or f64).
template <class R> struct RealTable {
    /// An element is a sum in the order of k, whatever the shape.
    void (*product)(const SmallProduct<R>& p);
    /// scores -> dropout(exp(scale * score - maximum)), in place: softmax but for the division by the sum. Rows of scores have room for whole vectors of 16 elements; what lies behind the row is
    /// overwritten.
    SoftmaxRow<R> (*softmax)(R* scores, std::int64_t n, R scale, const DropRow& drop);
    /// In: scores, d_p (gradient of the dropped probabilities). Out: scores = dropout(p), d_p = gradient of the
    /// scores = p * (dropout'(d_p) - mean) * scale, where p = exp(scale * score - log_sum).
    void (*softmax_backward)(R* scores, R* d_p, std::int64_t n, R scale, R log_sum, R mean, const DropRow& drop);
    /// x = factor * x
    void (*scale)(R* x, std::int64_t n, R factor);
    /// The largest element and the lowest index where it stands. n > 0.
    std::int64_t (*largest)(const R* x, std::int64_t n, R* value);
    R (*exp_sum)(const R* x, std::int64_t n, R maximum);
    void (*exp)(const R* x, R* y, std::int64_t n);
    double (*product_sum)(const R* x, const R* y, std::int64_t n);
    SquareSums (*update_moments)(const MomentRun<R>& run, const MomentRule<R>& rule);
    void (*apply_update)(const MomentRun<R>& run, const MomentRule<R>& rule, R rate);
    /// The passes of AdaFactor (kernels/optimizer.hpp); `clip` multiplies u.
    SquareSums (*adafactor_moments)(const MomentRun<R>& run, const MomentRule<R>& rule);
    void (*apply_adafactor)(const MomentRun<R>& run, const MomentRule<R>& rule, R rate, R clip);
};

struct Table {
    RowTable<float> f32;
    RowTable<std::uint16_t> bf16;
    RowTable<double> f64;
    RealTable<float> real32;
    RealTable<double> real64;
    void (*f32_to_f64)(const float* x, double* y, std::int64_t n);
    void (*f64_to_f32)(const double* x, float* y, std::int64_t n);
    /// y [columns, rows] = xᵀ of x [rows, columns]; rows are ldx and ldy elements apart.
    void (*transpose)(const float* x, std::int64_t ldx, std::int64_t rows, std::int64_t columns, float* y, std::int64_t ldy);
    std::int64_t panel_width, strip_rows;
    /// An element is a sum in the order of k, whatever the shape; what it is added to comes last.
    void (*panel_product)(const PanelProduct& p);
    /// Rows of x, ld apart, cut into runs of a panel's width or a strip's rows: the i-th run of every row goes to the i-th part of `out`, `rows` runs long.
    void (*lay_panels)(const float* x, std::int64_t ld, std::int64_t rows, std::int64_t runs, float* out);
    void (*lay_strips)(const float* x, std::int64_t ld, std::int64_t rows, std::int64_t runs, float* out);
    /// The 16-bit draws of elements [0, n) of a row.
    void (*dropout_bits)(const DropRow& drop, std::uint16_t* bits, std::int64_t n);
};

extern const Table baseline_table, avx2_table, avx512_table;

/// The functions of one instruction set; the caller knows that the processor has it.
const Table& table_of(Isa isa);
/// The functions of `cpu_isa()`.
const Table& table();

}  // namespace rf::simd
