#pragma once
/// Python's pickle format, read as data. Nothing in a pickle is executed: of its opcodes those that make plain values are known, and of
/// the Python objects that it may name only those that tensors are made of. Any other is refused by its name.

#include "convert/bytes.hpp"

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace rf::convert {

/// Index of a value in PickleValues.
using PickleId = std::int32_t;

struct PickleValue {
    enum class Kind : std::uint8_t { none, boolean, integer, real, text, tuple, list, dictionary, global, storage, tensor } kind = Kind::none;
    std::int64_t number = 0;      ///< boolean, integer
    std::string text;             ///< text; global: "module.name"
    std::vector<PickleId> items;  ///< tuple, list; dictionary: key, value, key, value, …; storage: the tuple it was named by; tensor: arguments of its making
};

class PickleValues {
public:
    const PickleValue& operator[](PickleId id) const { return values_[static_cast<std::size_t>(id)]; }
    PickleValue& operator[](PickleId id) { return values_[static_cast<std::size_t>(id)]; }
    PickleId add(PickleValue value) {
        values_.push_back(std::move(value));
        return static_cast<PickleId>(values_.size()) - 1;
    }

private:
    std::vector<PickleValue> values_;
};

/// Reads one pickle that starts at `offset`, which is moved behind it; `end`: where it must end at the latest. Values are added to `values`;
/// the result is the value it stands for. Errors are UsageErrors naming the file and the place.
PickleId read_pickle(const Bytes& file, std::int64_t& offset, std::int64_t end, PickleValues& values);

}  // namespace rf::convert
