#include "convert/pickle.hpp"

#include "core/check.hpp"

#include <algorithm>
#include <array>
#include <unordered_map>

namespace rf::convert {

namespace {

using Kind = PickleValue::Kind;

constexpr std::int64_t longest_text = 1 << 20;
constexpr std::size_t most_values = 4'000'000;

/// What a list of tensors is made of; nothing else may be named.
constexpr std::string_view ordered_dictionary = "collections.OrderedDict", rebuild_tensor = "torch._utils._rebuild_tensor_v2",
                           rebuild_parameter = "torch._utils._rebuild_parameter";
constexpr std::array<std::string_view, 11> storages = {"torch.FloatStorage", "torch.HalfStorage", "torch.BFloat16Storage", "torch.DoubleStorage",
                                                       "torch.LongStorage",  "torch.IntStorage",  "torch.ShortStorage",    "torch.CharStorage",
                                                       "torch.ByteStorage",  "torch.BoolStorage", "torch.storage.UntypedStorage"};

bool is_known(std::string_view global) {
    return global == ordered_dictionary || global == rebuild_tensor || global == rebuild_parameter ||
           std::find(storages.begin(), storages.end(), global) != storages.end();
}

class Machine {
public:
    Machine(const Bytes& file, std::int64_t offset, std::int64_t end, PickleValues& values)
        : file_(file), offset_(offset), end_(std::min(end, file.size())), values_(values) {}

    PickleId run() {
        while (!done_) step();
        if (stack_.size() != 1 || !marks_.empty()) refuse("ends with ", stack_.size(), " values");
        return stack_.back();
    }
    std::int64_t position() const { return offset_ + static_cast<std::int64_t>(at_); }

private:
    template <class... Parts>
    [[noreturn]] void refuse(const Parts&... parts) const {
        fail_usage(file_.name(), ": the pickle at byte ", position(), " ", parts..., " (damaged, or no file of tensors)");
    }

    // Bytes, through a window that moves along the file.
    const char* take(std::int64_t count) {
        if (static_cast<std::int64_t>(window_.size() - at_) < count) {
            offset_ += static_cast<std::int64_t>(at_);
            at_ = 0;
            if (count > end_ - offset_) fail_usage(file_.name(), ": the pickle ends in the middle of a value (truncated at byte ", end_, ")");
            window_ = file_.text(offset_, std::min(std::max<std::int64_t>(count, 1 << 16), end_ - offset_), longest_text + (1 << 16), "a pickle");
        }
        const char* from = window_.data() + at_;
        at_ += static_cast<std::size_t>(count);
        return from;
    }
    template <class T>
    T number() {
        return load<T>(take(sizeof(T)));
    }
    std::string text(std::uint64_t count) {
        if (count > static_cast<std::uint64_t>(longest_text)) refuse("holds a text of ", count, " bytes");
        const char* from = take(static_cast<std::int64_t>(count));
        return {from, static_cast<std::size_t>(count)};
    }
    std::string line() {
        std::string out;
        for (char c = *take(1); c != '\n'; c = *take(1)) {
            out += c;
            if (out.size() > 4096) refuse("holds a line without an end");
        }
        return out;
    }

    // The stack.
    void push(PickleValue value) {
        if (++made_ > most_values) refuse("holds more than ", most_values, " values");
        stack_.push_back(values_.add(std::move(value)));
    }
    void push_integer(std::int64_t number) { push({.kind = Kind::integer, .number = number}); }
    void push_boolean(bool truth) { push({.kind = Kind::boolean, .number = truth}); }
    std::size_t floor() const { return marks_.empty() ? 0 : marks_.back(); }
    PickleId pop() {
        if (stack_.size() <= floor()) refuse("takes a value from an empty stack");
        const PickleId id = stack_.back();
        stack_.pop_back();
        return id;
    }
    PickleId top() const {
        if (stack_.size() <= floor()) refuse("looks at an empty stack");
        return stack_.back();
    }
    std::vector<PickleId> pop_to_mark() {
        if (marks_.empty()) refuse("takes values up to a mark that was not set");
        const auto begin = stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back());
        std::vector<PickleId> out(begin, stack_.end());
        stack_.erase(begin, stack_.end());
        marks_.pop_back();
        return out;
    }
    void push_tuple(std::size_t count) {
        std::vector<PickleId> items(count);
        for (std::size_t i = count; i-- > 0;) items[i] = pop();
        push({.kind = Kind::tuple, .items = std::move(items)});
    }
    void remember(std::uint32_t slot) { memo_[slot] = top(); }
    void recall(std::uint32_t slot) {
        const auto found = memo_.find(slot);
        if (found == memo_.end()) refuse("recalls value ", slot, ", which it did not keep");
        stack_.push_back(found->second);
        if (++made_ > most_values) refuse("holds more than ", most_values, " values");
    }
    void push_global(const std::string& module, const std::string& name) {
        std::string global = module + "." + name;
        if (!is_known(global))
            fail_usage(file_.name(), ": refused: the pickle names ", global, ", which is no part of a tensor (running a pickle could run any program; nothing was run)");
        push({.kind = Kind::global, .text = std::move(global)});
    }
    void add_items(const std::vector<PickleId>& items, Kind kind) {
        PickleValue& target = values_[top()];
        if (target.kind != kind) refuse("adds items to what is no ", kind == Kind::list ? "list" : "dictionary");
        if (kind == Kind::dictionary && items.size() % 2 != 0) refuse("adds a key without a value");
        target.items.insert(target.items.end(), items.begin(), items.end());
    }
    /// Calls are not made but noted: an empty dictionary, a tensor of these arguments.
    void reduce() {
        const PickleId arguments = pop(), function = pop();
        if (values_[arguments].kind != Kind::tuple || values_[function].kind != Kind::global) refuse("calls what is no function");
        const std::string called = values_[function].text;
        std::vector<PickleId> items = values_[arguments].items;
        if (called == ordered_dictionary && items.empty()) return push({.kind = Kind::dictionary});
        if (called == rebuild_tensor && items.size() >= 4) return push({.kind = Kind::tensor, .items = std::move(items)});
        if (called == rebuild_parameter && !items.empty() && values_[items[0]].kind == Kind::tensor) {
            stack_.push_back(items[0]);
            return;
        }
        refuse("calls ", called, " with ", items.size(), " arguments of kinds that tensors do not have");
    }
    void build() {
        // Attributes of the dictionary (torch's `_metadata`) say nothing about numbers.
        const PickleId state = pop();
        if (values_[top()].kind != Kind::dictionary || values_[state].kind != Kind::dictionary) refuse("sets attributes of what is no dictionary");
    }
    void long_number(std::uint64_t size) {
        if (size > 10) refuse("holds a number of ", size, " bytes");
        const char* from = take(static_cast<std::int64_t>(size));
        // Torch's magic number has ten bytes: its low eight tell it apart.
        std::uint64_t value = 0;
        for (std::size_t i = 0; i < std::min<std::size_t>(size, 8); ++i) value |= static_cast<std::uint64_t>(static_cast<unsigned char>(from[i])) << (8 * i);
        if (size > 0 && size < 8 && (static_cast<unsigned char>(from[size - 1]) & 0x80U)) value |= ~std::uint64_t{0} << (8 * size);
        push_integer(static_cast<std::int64_t>(value));
    }

    void step() {
        const auto code = static_cast<unsigned char>(*take(1));
        switch (code) {
            case 0x80:
                if (const int protocol = number<std::uint8_t>(); protocol > 4) refuse("is of protocol ", protocol, " (expected 2 to 4)");
                return;
            case 0x95: number<std::uint64_t>(); return;  // FRAME: a hint for readers
            case '.': done_ = true; return;
            case '(': marks_.push_back(stack_.size()); return;
            case '0': pop(); return;
            case 'N': return push({});
            case 0x88: return push_boolean(true);
            case 0x89: return push_boolean(false);
            case 'J': return push_integer(static_cast<std::int32_t>(number<std::uint32_t>()));
            case 'K': return push_integer(number<std::uint8_t>());
            case 'M': return push_integer(number<std::uint16_t>());
            case 0x8a: return long_number(number<std::uint8_t>());
            case 'G': number<std::uint64_t>(); return push({.kind = Kind::real});  // no tensor depends on one
            case 'X': return push({.kind = Kind::text, .text = text(number<std::uint32_t>())});
            case 0x8c: return push({.kind = Kind::text, .text = text(number<std::uint8_t>())});
            case 0x8d: return push({.kind = Kind::text, .text = text(number<std::uint64_t>())});
            case ')': return push({.kind = Kind::tuple});
            case ']': return push({.kind = Kind::list});
            case '}': return push({.kind = Kind::dictionary});
            case 0x85: return push_tuple(1);
            case 0x86: return push_tuple(2);
            case 0x87: return push_tuple(3);
            case 't': return push({.kind = Kind::tuple, .items = pop_to_mark()});
            case 'a': return add_items({pop()}, Kind::list);
            case 'e': return add_items(pop_to_mark(), Kind::list);
            case 's': {
                const PickleId value = pop(), key = pop();
                return add_items({key, value}, Kind::dictionary);
            }
            case 'u': return add_items(pop_to_mark(), Kind::dictionary);
            case 'q': return remember(number<std::uint8_t>());
            case 'r': return remember(number<std::uint32_t>());
            case 0x94: return remember(static_cast<std::uint32_t>(memo_.size()));
            case 'h': return recall(number<std::uint8_t>());
            case 'j': return recall(number<std::uint32_t>());
            case 'c': {
                const std::string module = line();
                return push_global(module, line());
            }
            case 0x93: {
                const PickleId name = pop(), module = pop();
                if (values_[name].kind != Kind::text || values_[module].kind != Kind::text) refuse("names an object by what is no text");
                return push_global(values_[module].text, values_[name].text);
            }
            case 'Q': {
                const PickleId name = pop();
                if (values_[name].kind != Kind::tuple) refuse("names a storage by what is no tuple");
                return push({.kind = Kind::storage, .items = values_[name].items});
            }
            case 'R': return reduce();
            case 'b': return build();
            default: break;
        }
        constexpr std::string_view digits = "0123456789abcdef";
        fail_usage(file_.name(), ": refused: the pickle holds opcode 0x", digits[code >> 4], digits[code & 15U], " at byte ", position() - 1,
                   ", which no file of tensors needs (nothing was run)");
    }

    const Bytes& file_;
    std::int64_t offset_;  ///< of the window's first byte
    std::int64_t end_;
    PickleValues& values_;
    std::string window_;
    std::size_t at_ = 0;
    std::vector<PickleId> stack_;
    std::vector<std::size_t> marks_;
    std::unordered_map<std::uint32_t, PickleId> memo_;
    std::size_t made_ = 0;
    bool done_ = false;
};

}  // namespace

PickleId read_pickle(const Bytes& file, std::int64_t& offset, std::int64_t end, PickleValues& values) {
    Machine machine(file, offset, end, values);
    const PickleId id = machine.run();
    offset = machine.position();
    return id;
}

}  // namespace rf::convert
