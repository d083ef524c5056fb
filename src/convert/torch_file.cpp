#include "convert/torch_file.hpp"

#include "convert/crc.hpp"
#include "convert/pickle.hpp"
#include "convert/zip.hpp"
#include "core/check.hpp"

#include <algorithm>
#include <array>

namespace rf::convert {

namespace {

using Kind = PickleValue::Kind;

constexpr std::int64_t magic_low = 0x6a20f9469cfc6c;  // of torch's 0x1950a86a20f9469cfc6c
constexpr std::int64_t stream_protocol = 1001;

/// Numbers of one storage in the file.
struct Storage {
    Element element = Element::other;
    std::string type;
    std::int64_t item = 0;   ///< bytes of an element
    std::int64_t count = 0;  ///< elements
    std::int64_t begin = -1; ///< first byte in the file; -1: not found yet
    bool has_crc = false;
    std::uint32_t crc = 0;
};

/// A tensor as a window on a storage: element i, j, … lies at offset + i * strides[0] + j * strides[1] + ….
struct View {
    std::string storage;
    std::int64_t offset = 0;
    std::int64_t count = 0;
    Dims strides;
};

struct StorageType {
    std::string_view name;
    Element element;
    std::int64_t item;
};
constexpr std::array<StorageType, 10> storage_types = {{{"torch.FloatStorage", Element::f32, 4},
                                                        {"torch.HalfStorage", Element::f16, 2},
                                                        {"torch.BFloat16Storage", Element::bf16, 2},
                                                        {"torch.DoubleStorage", Element::other, 8},
                                                        {"torch.LongStorage", Element::other, 8},
                                                        {"torch.IntStorage", Element::other, 4},
                                                        {"torch.ShortStorage", Element::other, 2},
                                                        {"torch.CharStorage", Element::other, 1},
                                                        {"torch.ByteStorage", Element::other, 1},
                                                        {"torch.BoolStorage", Element::other, 1}}};

class Reader final : public TensorReader {
public:
    explicit Reader(std::unique_ptr<Bytes> file) : TensorReader(file->name()), file_(std::move(file)) {
        const std::string head = file_->size() >= 4 ? file_->text(0, 4, 4, "the first bytes") : std::string();
        if (head == "PK\x03\x04") read_archive();
        else read_stream();
    }

    bool same_storage(const std::string& a, const std::string& b) const override {
        const View &x = views_.at(a), &y = views_.at(b);
        return x.storage == y.storage && x.offset == y.offset && x.strides == y.strides && tensors_.at(a).dims == tensors_.at(b).dims;
    }

private:
    void read_archive() {
        const std::map<std::string, ZipEntry> entries = read_zip(*file_);
        std::string root;
        for (const auto& [name, entry] : entries)
            if (name.ends_with("/data.pkl")) root = name.substr(0, name.size() - 8);
        if (root.empty()) fail_usage(name_, ": a zip archive without data.pkl (not a file of torch.save)");
        if (const auto order = entries.find(root + "byteorder"); order != entries.end())
            if (file_->text(order->second.begin, order->second.size, 64, "byteorder") != "little") fail_usage(name_, ": numbers in big-endian order (expected little-endian)");
        const ZipEntry& pickle = entries.at(root + "data.pkl");
        std::int64_t offset = pickle.begin;
        read_names(read_pickle(*file_, offset, pickle.begin + pickle.size, values_));
        for (auto& [key, storage] : storages_) {
            const auto entry = entries.find(root + "data/" + key);
            if (entry == entries.end()) fail_usage(name_, ": storage ", key, " is missing from the archive");
            if (storage.count > entry->second.size / storage.item)
                fail_usage(name_, ": storage ", key, " has ", entry->second.size, " bytes, ", storage.count, " elements of ", storage.type, " were announced");
            storage.begin = entry->second.begin;
            storage.has_crc = entry->second.size == storage.count * storage.item;
            storage.crc = entry->second.crc;
        }
        check_views();
    }

    void read_stream() {
        std::int64_t offset = 0;
        const auto next = [&] { return read_pickle(*file_, offset, file_->size(), values_); };
        const auto is_number = [&](PickleId id, std::int64_t number) { return values_[id].kind == Kind::integer && values_[id].number == number; };
        PickleValues first;
        std::int64_t start = 0;
        const auto fail_type = [&] { fail_usage(name_, ": neither a zip archive nor a stream of torch.save"); };
        if (file_->size() < 2 || file_->text(0, 1, 1, "the first byte") != "\x80") fail_type();
        const PickleId magic = read_pickle(*file_, start, std::min<std::int64_t>(file_->size(), 256), first);
        if (first[magic].kind != Kind::integer || (first[magic].number & 0xffffffffffffff) != magic_low) fail_type();
        offset = start;
        if (!is_number(next(), stream_protocol)) fail_usage(name_, ": a stream of torch.save of another protocol than ", stream_protocol);
        check_system(next());
        read_names(next());
        const PickleId keys = next();
        if (values_[keys].kind != Kind::list) fail_usage(name_, ": the list of storages is damaged");
        for (const PickleId id : values_[keys].items) {
            const auto found = values_[id].kind == Kind::text ? storages_.find(values_[id].text) : storages_.end();
            if (found == storages_.end()) fail_usage(name_, ": the list of storages names one that no tensor has");
            Storage& storage = found->second;
            const std::string count = file_->text(offset, 8, 8, "storage " + found->first);
            if (load<std::uint64_t>(count.data()) != static_cast<std::uint64_t>(storage.count))
                fail_usage(name_, ": storage ", found->first, " has ", load<std::uint64_t>(count.data()), " elements, ", storage.count, " were announced (damaged)");
            offset += 8;
            // Not counted as bytes before it is known that they can be.
            if (storage.count > (file_->size() - offset) / storage.item) file_->require(offset, file_->size() - offset + 1, "storage " + found->first);
            storage.begin = offset;
            offset += storage.count * storage.item;
        }
        for (const auto& [key, storage] : storages_)
            if (storage.begin < 0) fail_usage(name_, ": storage ", key, " is missing from the list of storages");
        check_views();
    }

    void check_system(PickleId id) const {
        const PickleValue& system = values_[id];
        if (system.kind != Kind::dictionary) fail_usage(name_, ": the description of the writing system is damaged");
        for (std::size_t i = 0; i + 1 < system.items.size(); i += 2) {
            const PickleValue &key = values_[system.items[i]], &value = values_[system.items[i + 1]];
            if (key.text == "little_endian" && value.number != 1) fail_usage(name_, ": numbers in big-endian order (expected little-endian)");
        }
    }

    void read_names(PickleId id) {
        const PickleValue& state = values_[id];
        if (state.kind != Kind::dictionary) fail_usage(name_, ": holds no dictionary of tensors");
        for (std::size_t i = 0; i + 1 < state.items.size(); i += 2) {
            const PickleValue &key = values_[state.items[i]], &value = values_[state.items[i + 1]];
            if (key.kind != Kind::text) fail_usage(name_, ": holds something whose name is no text (expected a dictionary of tensors)");
            if (value.kind != Kind::tensor) fail_usage(name_, ": \"", key.text, "\" is no tensor (expected a dictionary of tensors)");
            add_tensor(key.text, value);
        }
    }

    std::int64_t integer(PickleId id, const std::string& tensor) const {
        if (values_[id].kind != Kind::integer || values_[id].number < 0) fail_usage(name_, ": tensor ", tensor, " is described by something other than numbers");
        return values_[id].number;
    }
    Dims integers(PickleId id, const std::string& tensor) const {
        if (values_[id].kind != Kind::tuple || values_[id].items.size() > 8) fail_usage(name_, ": tensor ", tensor, " is described by something other than numbers");
        Dims out;
        for (const PickleId item : values_[id].items) out.push_back(integer(item, tensor));
        return out;
    }

    void add_tensor(const std::string& tensor, const PickleValue& value) {
        View view;
        view.storage = add_storage(value.items[0], tensor);
        const Storage& storage = storages_.at(view.storage);
        view.offset = integer(value.items[1], tensor);
        TensorInfo info{integers(value.items[2], tensor), storage.element, storage.type};
        view.strides = integers(value.items[3], tensor);
        view.count = element_count(info.dims, file_->size(), name_, tensor);
        if (view.strides.size() != info.dims.size()) fail_usage(name_, ": tensor ", tensor, " has ", info.dims.size(), " axes and ", view.strides.size(), " strides");
        // The last element must lie within the storage, and no element may be there twice over more memory than the file has.
        std::int64_t last = view.offset;
        if (last > storage.count || view.count > storage.count) refuse_view(tensor, storage);
        for (std::size_t i = 0; i < info.dims.size() && view.count > 0; ++i) {
            if (info.dims[i] > 1 && view.strides[i] > (storage.count - last) / (info.dims[i] - 1)) refuse_view(tensor, storage);
            last += (info.dims[i] - 1) * view.strides[i];
        }
        if (view.count > 0 && last >= storage.count) refuse_view(tensor, storage);
        if (!tensors_.emplace(tensor, std::move(info)).second) fail_usage(name_, ": two tensors named ", tensor);
        views_[tensor] = std::move(view);
    }

    [[noreturn]] void refuse_view(const std::string& tensor, const Storage& storage) const {
        fail_usage(name_, ": tensor ", tensor, " reaches beyond its storage of ", storage.count, " elements (damaged)");
    }

    /// ("storage", type, key, place, number of elements, …)
    std::string add_storage(PickleId id, const std::string& tensor) {
        const PickleValue& value = values_[id];
        const auto part = [&](std::size_t i) -> const PickleValue& { return values_[value.items[i]]; };
        if (value.kind != Kind::storage || value.items.size() < 5 || part(0).text != "storage" || part(1).kind != Kind::global || part(2).kind != Kind::text)
            fail_usage(name_, ": tensor ", tensor, " has no storage");
        const auto type = std::find_if(storage_types.begin(), storage_types.end(), [&](const StorageType& t) { return t.name == part(1).text; });
        if (type == storage_types.end()) fail_usage(name_, ": tensor ", tensor, " has a storage of the unknown type ", part(1).text);
        Storage storage{.element = type->element, .type = std::string(type->name), .item = type->item, .count = integer(value.items[4], tensor)};
        const auto [place, added] = storages_.emplace(part(2).text, storage);
        if (!added && (place->second.type != storage.type || place->second.count != storage.count))
            fail_usage(name_, ": storage ", part(2).text, " is described in two ways");
        return part(2).text;
    }

    void check_views() const {
        if (tensors_.empty()) fail_usage(name_, ": holds no tensor");
    }

    void read_numbers_of(const std::string& tensor, const TensorInfo& info, float* out) const override {
        const View& view = views_.at(tensor);
        const Storage& storage = storages_.at(view.storage);
        std::int64_t expected = 1;
        bool plain = true;
        for (std::size_t i = info.dims.size(); i-- > 0;) {
            plain = plain && (info.dims[i] == 1 || view.strides[i] == expected);
            expected *= info.dims[i];
        }
        if (view.count == 0) return;
        if (plain) return read_storage(view, storage, view.offset, view.count, out);
        std::vector<float> all(static_cast<std::size_t>(storage.count));
        read_storage(view, storage, 0, storage.count, all.data());
        std::vector<std::int64_t> index(info.dims.size(), 0);
        std::int64_t at = view.offset;
        for (std::int64_t i = 0; i < view.count; ++i) {
            out[i] = all[static_cast<std::size_t>(at)];
            for (std::size_t axis = index.size(); axis-- > 0;) {
                at += view.strides[axis];
                if (++index[axis] < info.dims[axis]) break;
                at -= info.dims[axis] * view.strides[axis];
                index[axis] = 0;
            }
        }
    }

    void read_storage(const View& view, const Storage& storage, std::int64_t offset, std::int64_t count, float* out) const {
        const bool whole = storage.has_crc && offset == 0 && count == storage.count;
        std::uint32_t crc = 0;
        read_numbers(*file_, storage.begin + offset * storage.item, storage.element, count, out, "storage " + view.storage, whole ? &crc32 : nullptr, &crc);
        if (whole && crc != storage.crc) fail_usage(name_, ": storage ", view.storage, " does not agree with its checksum (damaged)");
    }

    std::unique_ptr<Bytes> file_;
    PickleValues values_;
    std::map<std::string, Storage> storages_;
    std::map<std::string, View> views_;
};

/// Writes the pickle of a dictionary of tensors, as protocol 2.
class PickleText {
public:
    PickleText() { out_ = "\x80\x02"; }
    void global(std::string_view module, std::string_view name) { out_ += 'c', out_ += module, out_ += '\n', out_ += name, out_ += '\n'; }
    void text(std::string_view s) {
        out_ += 'X';
        store(out_, static_cast<std::uint32_t>(s.size()));
        out_ += s;
    }
    void integer(std::int64_t n) {
        if (n <= 0x7fffffff) {
            out_ += 'J';
            store(out_, static_cast<std::uint32_t>(n));
        } else {
            out_ += "\x8a\x08";
            store(out_, static_cast<std::uint64_t>(n));
        }
    }
    void integers(const Dims& numbers) {
        code('(');
        for (const std::int64_t n : numbers) integer(n);
        code('t');
    }
    void code(char c) { out_ += c; }
    const std::string& bytes() const { return out_; }

private:
    std::string out_;
};

class Writer final : public TensorWriter {
public:
    Writer(const std::filesystem::path& path, const TensorList& tensors, const std::vector<std::pair<std::string, std::string>>& tied)
        : file_(path), zip_(file_), root_(path.stem().string()) {
        PickleText pickle;
        pickle.global("collections", "OrderedDict");
        pickle.code(')');
        pickle.code('R');
        pickle.code('(');
        for (std::size_t i = 0; i < tensors.size(); ++i) {
            put_tensor(pickle, tensors[i].first, tensors[i].second, i);
            std::int64_t bytes = 4;
            for (const std::int64_t d : tensors[i].second) bytes *= d;
            sizes_.push_back(bytes);
        }
        for (const auto& [name, other] : tied) {
            const auto of = std::find_if(tensors.begin(), tensors.end(), [&, &other = other](const auto& t) { return t.first == other; });
            RF_REQUIRE(of != tensors.end(), "tied to ", other, ", which is not written");
            put_tensor(pickle, name, of->second, static_cast<std::size_t>(of - tensors.begin()));
        }
        pickle.code('u');
        pickle.code('.');
        zip_.add(root_ + "/data.pkl", pickle.bytes());
        zip_.add(root_ + "/byteorder", "little");
    }
    void write(const float* data) override {
        RF_REQUIRE(next_ < sizes_.size(), "more tensors than declared");
        zip_.begin(root_ + "/data/" + std::to_string(next_), sizes_[next_]);
        zip_.write(data, sizes_[next_]);
        zip_.end();
        ++next_;
    }
    void finish() override {
        RF_REQUIRE(next_ == sizes_.size(), "fewer tensors than declared");
        zip_.add(root_ + "/version", "3\n");
        zip_.finish();
        file_.finish();
    }

private:
    static void put_tensor(PickleText& pickle, const std::string& name, const Dims& dims, std::size_t storage) {
        Dims strides(dims.size(), 1);
        std::int64_t count = 1;
        for (std::size_t i = dims.size(); i-- > 0; count *= dims[i]) strides[i] = count;
        pickle.text(name);
        pickle.global("torch._utils", "_rebuild_tensor_v2");
        pickle.code('(');
        pickle.code('(');
        pickle.text("storage");
        pickle.global("torch", "FloatStorage");
        pickle.text(std::to_string(storage));
        pickle.text("cpu");
        pickle.integer(count);
        pickle.code('t');
        pickle.code('Q');
        pickle.integer(0);
        pickle.integers(dims);
        pickle.integers(strides);
        pickle.code('\x89');  // no gradient
        pickle.global("collections", "OrderedDict");
        pickle.code(')');
        pickle.code('R');  // no hooks
        pickle.code('t');
        pickle.code('R');
    }

    OutputFile file_;
    ZipWriter zip_;
    std::string root_;
    std::vector<std::int64_t> sizes_;
    std::size_t next_ = 0;
};

}  // namespace

std::unique_ptr<TensorReader> read_torch(std::unique_ptr<Bytes> file) { return std::make_unique<Reader>(std::move(file)); }

std::unique_ptr<TensorWriter> write_torch(const std::filesystem::path& path, const TensorList& tensors, const std::vector<std::pair<std::string, std::string>>& tied) {
    return std::make_unique<Writer>(path, tensors, tied);
}

}  // namespace rf::convert
