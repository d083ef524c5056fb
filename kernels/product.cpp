#include "kernels/product.hpp"

#include "core/check.hpp"
#include "core/cpu.hpp"
#include "kernels/simd/table.hpp"

#include <oneapi/dnnl/dnnl.hpp>

#include <array>
#include <map>
#include <vector>

namespace rf {

void product(const Product<float, float>& p) {
    if (p.m == 0 || p.n == 0) return;
    const auto status = dnnl_sgemm(p.trans_a ? 'T' : 'N', p.trans_b ? 'T' : 'N', p.m, p.n, p.k, 1.0F, p.a, p.lda, p.b, p.ldb,
                                   p.accumulate ? 1.0F : 0.0F, p.c, p.ldc);
    RF_REQUIRE(status == dnnl_success, "oneDNN sgemm of ", p.m, " x ", p.n, " x ", p.k, " failed with status ", static_cast<int>(status));
}

void product(const Product<double, double>& p) {
    for (std::int64_t i = 0; i < p.m; ++i) {
        for (std::int64_t j = 0; j < p.n; ++j) {
            double sum = 0;
            for (std::int64_t l = 0; l < p.k; ++l)
                sum += (p.trans_a ? p.a[l * p.lda + i] : p.a[i * p.lda + l]) * (p.trans_b ? p.b[j * p.ldb + l] : p.b[l * p.ldb + j]);
            double& c = p.c[i * p.ldc + j];
            c = p.accumulate ? c + sum : sum;
        }
    }
}

namespace {

/// rows x columns of bf16 as f32, dense.
void widen(const std::uint16_t* x, std::int64_t ld, std::int64_t rows, std::int64_t columns, std::vector<float>& out) {
    out.resize(static_cast<std::size_t>(rows * columns));
    for (std::int64_t i = 0; i < rows; ++i) simd::table().bf16.widen(x + i * ld, out.data() + i * columns, columns);
}

/// Without bf16 instructions: f32 products of the rounded values.
void product_in_f32(const Product<std::uint16_t, float>& p) {
    thread_local std::vector<float> a, b;
    widen(p.a, p.lda, p.trans_a ? p.k : p.m, p.trans_a ? p.m : p.k, a);
    widen(p.b, p.ldb, p.trans_b ? p.n : p.k, p.trans_b ? p.k : p.n, b);
    product(Product<float, float>{a.data(), p.trans_a ? p.m : p.k, p.trans_a, b.data(), p.trans_b ? p.k : p.n, p.trans_b, p.c, p.ldc, p.m, p.n,
                                  p.k, p.accumulate});
}

/// bf16 x bf16 -> f32 by a oneDNN primitive, made once for each shape and thread.
void product_in_bf16(const Product<std::uint16_t, float>& p) {
    using dnnl::memory;
    using Key = std::array<std::int64_t, 9>;
    thread_local dnnl::engine engine(dnnl::engine::kind::cpu, 0);
    thread_local dnnl::stream stream(engine);
    thread_local std::map<Key, dnnl::matmul> primitives;
    if (primitives.size() > 4096) primitives.clear();
    const auto describe = [](std::int64_t rows, std::int64_t columns, std::int64_t ld, bool trans, memory::data_type type) {
        return memory::desc({rows, columns}, type, trans ? memory::dims{1, ld} : memory::dims{ld, 1});
    };
    const auto a = describe(p.m, p.k, p.lda, p.trans_a, memory::data_type::bf16);
    const auto b = describe(p.k, p.n, p.ldb, p.trans_b, memory::data_type::bf16);
    const auto c = describe(p.m, p.n, p.ldc, false, memory::data_type::f32);
    const Key key{p.m, p.n, p.k, p.lda, p.ldb, p.ldc, p.trans_a, p.trans_b, p.accumulate};
    auto found = primitives.find(key);
    if (found == primitives.end()) {
        dnnl::primitive_attr attributes;
        dnnl::post_ops post;
        if (p.accumulate) post.append_sum(1.0F);
        attributes.set_post_ops(post);
        found = primitives.emplace(key, dnnl::matmul(dnnl::matmul::primitive_desc({a, b, c}, attributes, engine))).first;
    }
    found->second.execute(stream, {{DNNL_ARG_SRC, memory(a, engine, const_cast<std::uint16_t*>(p.a))},
                                   {DNNL_ARG_WEIGHTS, memory(b, engine, const_cast<std::uint16_t*>(p.b))},
                                   {DNNL_ARG_DST, memory(c, engine, p.c)}});
    stream.wait();
}

}  // namespace

void product(const Product<std::uint16_t, float>& p) {
    if (p.m == 0 || p.n == 0) return;
    if (cpu_has_bf16()) return product_in_bf16(p);
    product_in_f32(p);
}

void product(const Product<std::uint16_t, std::uint16_t>& p) {
    RF_REQUIRE(!p.accumulate, "bf16 results are not accumulated into");
    thread_local std::vector<float> c;
    c.resize(static_cast<std::size_t>(p.m * p.n));
    product(Product<std::uint16_t, float>{p.a, p.lda, p.trans_a, p.b, p.ldb, p.trans_b, c.data(), p.n, p.m, p.n, p.k, false});
    for (std::int64_t i = 0; i < p.m; ++i) simd::table().bf16.narrow(c.data() + i * p.n, p.c + i * p.ldc, p.n);
}

}  // namespace rf
