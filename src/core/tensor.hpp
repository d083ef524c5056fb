#pragma once
/// Views of memory owned elsewhere: contiguous, row-major, at most four axes.

#include "core/check.hpp"
#include "core/dtype.hpp"

#include <array>
#include <cstdint>
#include <initializer_list>
#include <ostream>

namespace rf {

enum class Device : std::uint8_t { cpu, cuda };

struct Shape {
    static constexpr int max_rank = 4;
    std::array<std::int64_t, max_rank> dims{};
    int rank = 0;

    Shape() = default;
    Shape(std::initializer_list<std::int64_t> list) {
        RF_REQUIRE(list.size() <= max_rank, "a tensor has at most ", max_rank, " axes");
        for (const std::int64_t d : list) dims[static_cast<std::size_t>(rank++)] = d;
    }

    std::int64_t operator[](int axis) const { return dims[static_cast<std::size_t>(axis)]; }
    std::int64_t& operator[](int axis) { return dims[static_cast<std::size_t>(axis)]; }
    /// Number of elements.
    std::int64_t count() const {
        std::int64_t n = 1;
        for (int axis = 0; axis < rank; ++axis) n *= (*this)[axis];
        return n;
    }
    friend bool operator==(const Shape&, const Shape&) = default;
    friend std::ostream& operator<<(std::ostream& out, const Shape& shape) {
        out << '[';
        for (int axis = 0; axis < shape.rank; ++axis) out << (axis ? ", " : "") << shape[axis];
        return out << ']';
    }
};

/// A view. `Pointer` is `void*` (Tensor) or `const void*` (ConstTensor).
template <class Pointer>
struct BasicTensor {
    Pointer data = nullptr;
    Shape shape;
    Dtype dtype = Dtype::f32;

    std::int64_t count() const { return data ? shape.count() : 0; }
    std::int64_t bytes() const { return count() * size_of(dtype); }
    explicit operator bool() const { return data != nullptr; }

    /// Typed pointer to the first element; the dtype must agree.
    template <class T>
    auto* as() const {
        RF_ASSERT(dtype == dtype_of<T>);
        if constexpr (std::is_same_v<Pointer, const void*>)
            return static_cast<const T*>(data);
        else
            return static_cast<T*>(data);
    }

    /// Elements [begin, begin + shape.count()) of the flat view, seen under a new shape.
    BasicTensor part(std::int64_t begin, Shape part_shape) const {
        RF_REQUIRE(begin >= 0 && begin + part_shape.count() <= shape.count(), "part of ", shape, " out of range");
        auto* bytes = static_cast<std::conditional_t<std::is_same_v<Pointer, const void*>, const char*, char*>>(data);
        return {bytes + begin * size_of(dtype), part_shape, dtype};
    }
    BasicTensor reshape(Shape other) const {
        RF_REQUIRE(other.count() == shape.count(), "cannot see ", shape, " as ", other);
        return {data, other, dtype};
    }
    /// Rows [begin, end) along the first axis.
    BasicTensor rows(std::int64_t begin, std::int64_t end) const {
        Shape other = shape;
        other[0] = end - begin;
        const std::int64_t row = shape[0] ? shape.count() / shape[0] : 0;
        return part(begin * row, other);
    }
};

using Tensor = BasicTensor<void*>;

struct ConstTensor : BasicTensor<const void*> {
    ConstTensor() = default;
    ConstTensor(const BasicTensor<const void*>& t) : BasicTensor(t) {}
    ConstTensor(const Tensor& t) : BasicTensor{t.data, t.shape, t.dtype} {}
    ConstTensor(const void* data, Shape shape, Dtype dtype) : BasicTensor{data, shape, dtype} {}
};

template <class T>
Tensor view(T* data, Shape shape) {
    return {data, shape, dtype_of<T>};
}
template <class T>
ConstTensor view(const T* data, Shape shape) {
    return {data, shape, dtype_of<T>};
}

}  // namespace rf
