#include "convert/tf_bundle.hpp"

#include "convert/crc.hpp"
#include "convert/sorted_table.hpp"
#include "core/check.hpp"

#include <algorithm>
#include <cstdio>

namespace rf::convert {

namespace {

// Numbers of tensorflow/core/framework/types.proto, and of the fields of tensor_bundle.proto.
constexpr std::uint64_t type_float = 1, type_bfloat16 = 14, type_half = 19;
constexpr std::uint64_t header_shards = 1, header_endian = 2, header_version = 3;
constexpr std::uint64_t entry_type = 1, entry_shape = 2, entry_shard = 3, entry_offset = 4, entry_size = 5, entry_crc = 6, entry_slices = 7;
constexpr unsigned wire_varint = 0, wire_fixed64 = 1, wire_bytes = 2, wire_fixed32 = 5;

std::string shard_path(const std::string& prefix, std::int64_t shard, std::int64_t shards) {
    char text[48];
    std::snprintf(text, sizeof text, ".data-%05lld-of-%05lld", static_cast<long long>(shard), static_cast<long long>(shards));
    return prefix + text;
}

std::unique_ptr<Bytes> open_file_shard(const std::string& prefix, std::int64_t shard, std::int64_t shards) {
    return std::make_unique<Bytes>(std::filesystem::path(shard_path(prefix, shard, shards)));
}

/// One field of a protocol buffer: its number, and its value as a number or as bytes.
struct Field {
    std::uint64_t id = 0;
    std::uint64_t number = 0;
    std::string_view bytes;
};

template <class Use>
void visit_fields(std::string_view message, const std::string& place, Use use) {
    Cursor cursor(message, place);
    while (!cursor.at_end()) {
        const std::uint64_t tag = cursor.varint();
        Field field{.id = tag >> 3};
        switch (static_cast<unsigned>(tag & 7U)) {
            case wire_varint: field.number = cursor.varint(); break;
            case wire_fixed64: field.number = cursor.fixed<std::uint64_t>(); break;
            case wire_bytes: field.bytes = cursor.take(cursor.varint()); break;
            case wire_fixed32: field.number = cursor.fixed<std::uint32_t>(); break;
            default: cursor.fail_damaged();
        }
        use(field, cursor);
    }
}

struct Place {
    std::int64_t shard = 0, offset = 0, size = 0;
    std::uint32_t crc = 0;
};

class Reader final : public TensorReader {
public:
    Reader(const Bytes& index, const std::string& prefix, OpenShard open) : TensorReader(index.name()) {
        const std::map<std::string, std::string> entries = read_sorted_table(index);
        const auto header = entries.find("");
        if (header == entries.end()) fail_usage(name_, ": a table without a checkpoint's header");
        std::int64_t shards = 0;
        visit_fields(header->second, name_ + ": the header", [&](const Field& field, const Cursor& cursor) {
            if (field.id == header_shards) {
                if (field.number < 1 || field.number > 10000) cursor.fail_damaged();
                shards = static_cast<std::int64_t>(field.number);
            }
            if (field.id == header_endian && field.number != 0) fail_usage(name_, ": numbers in big-endian order (expected little-endian)");
        });
        if (shards == 0) fail_usage(name_, ": the header names no data file");
        shards_.resize(static_cast<std::size_t>(shards));
        for (const auto& [tensor, entry] : entries)
            if (!tensor.empty()) add(tensor, entry, prefix, open);
    }

private:
    void add(const std::string& tensor, const std::string& entry, const std::string& prefix, OpenShard open) {
        TensorInfo info;
        Place place;
        std::uint64_t type = 0, shard = 0, offset = 0, size = 0;
        bool sliced = false;
        const std::string where = name_ + ": the entry of " + tensor;
        visit_fields(entry, where, [&](const Field& field, const Cursor& cursor) {
            if (field.id == entry_type) type = field.number;
            if (field.id == entry_shape) read_shape(field.bytes, where, info.dims);
            if (field.id == entry_shard) shard = field.number;
            if (field.id == entry_offset) offset = field.number;
            if (field.id == entry_size) size = field.number;
            if (field.id == entry_crc) place.crc = static_cast<std::uint32_t>(field.number);
            sliced = sliced || field.id == entry_slices;
            if (shard >= shards_.size() || offset > static_cast<std::uint64_t>(INT64_MAX) || size > static_cast<std::uint64_t>(INT64_MAX)) cursor.fail_damaged();
        });
        info.element = type == type_float ? Element::f32 : type == type_half ? Element::f16 : type == type_bfloat16 ? Element::bf16 : Element::other;
        info.type = message("TensorFlow's type ", type);
        place.shard = static_cast<std::int64_t>(shard), place.offset = static_cast<std::int64_t>(offset), place.size = static_cast<std::int64_t>(size);
        if (sliced) info.element = Element::other, info.type = "a partitioned variable";
        std::unique_ptr<Bytes>& file = shards_[shard];
        if (!file) file = open(prefix, place.shard, static_cast<std::int64_t>(shards_.size()));
        file->require(place.offset, place.size, "variable " + tensor);
        const std::int64_t count = element_count(info.dims, file->size(), name_, tensor);
        if (info.element != Element::other && count * size_of(info.element) != place.size)
            fail_usage(name_, ": variable ", tensor, " of shape ", to_text(info.dims), " has ", place.size, " bytes");
        places_[tensor] = place;
        tensors_[tensor] = std::move(info);
    }

    static void read_shape(std::string_view shape, const std::string& where, Dims& dims) {
        visit_fields(shape, where, [&](const Field& dim, const Cursor& cursor) {
            if (dim.id != 2) return;
            std::int64_t size = 0;  // absent: 0
            visit_fields(dim.bytes, where, [&](const Field& field, const Cursor&) {
                if (field.id == 1) size = static_cast<std::int64_t>(field.number);
            });
            if (dims.size() >= 16) cursor.fail_damaged();
            dims.push_back(size);
        });
    }

    void read_numbers_of(const std::string& tensor, const TensorInfo& info, float* out) const override {
        const Place& place = places_.at(tensor);
        std::uint32_t crc = 0;
        const Bytes& file = *shards_[static_cast<std::size_t>(place.shard)];
        read_numbers(file, place.offset, info.element, place.size / size_of(info.element), out, "variable " + tensor, &crc32c, &crc);
        if (mask_crc(crc) != place.crc) fail_usage(file.name(), ": variable ", tensor, " does not agree with its checksum (damaged)");
    }

    std::vector<std::unique_ptr<Bytes>> shards_;
    std::map<std::string, Place> places_;
};

void put_number(std::string& out, std::uint64_t id, std::uint64_t number) {
    store_varint(out, id << 3 | wire_varint);
    store_varint(out, number);
}
void put_bytes(std::string& out, std::uint64_t id, std::string_view bytes) {
    store_varint(out, id << 3 | wire_bytes);
    store_varint(out, bytes.size());
    out += bytes;
}

class Writer final : public TensorWriter {
public:
    Writer(const std::filesystem::path& prefix, const TensorList& tensors)
        : index_(prefix.string() + ".index"), data_(shard_path(prefix.string(), 0, 1)), tensors_(tensors) {
        RF_REQUIRE(std::is_sorted(tensors.begin(), tensors.end()), "a checkpoint of TensorFlow is written in the order of its names");
        std::string header, version;
        put_number(header, header_shards, 1);
        put_number(version, 1, 1);  // producer
        put_bytes(header, header_version, version);
        entries_[""] = header;
    }
    void write(const float* data) override {
        RF_REQUIRE(next_ < tensors_.size(), "more tensors than declared");
        const auto& [name, dims] = tensors_[next_++];
        std::string entry, shape;
        std::int64_t bytes = 4;
        for (const std::int64_t d : dims) {
            std::string dim;
            put_number(dim, 1, static_cast<std::uint64_t>(d));
            put_bytes(shape, 2, dim);
            bytes *= d;
        }
        put_number(entry, entry_type, type_float);
        put_bytes(entry, entry_shape, shape);
        if (data_.position() > 0) put_number(entry, entry_offset, static_cast<std::uint64_t>(data_.position()));
        put_number(entry, entry_size, static_cast<std::uint64_t>(bytes));
        store_varint(entry, entry_crc << 3 | wire_fixed32);
        store(entry, masked_crc32c(data, bytes));
        entries_[name] = std::move(entry);
        data_.write(data, bytes);
    }
    void finish() override {
        RF_REQUIRE(next_ == tensors_.size(), "fewer tensors than declared");
        data_.finish();
        write_sorted_table(index_, entries_);
        index_.finish();
    }

private:
    OutputFile index_, data_;
    TensorList tensors_;
    std::size_t next_ = 0;
    std::map<std::string, std::string> entries_;
};

}  // namespace

std::unique_ptr<TensorReader> read_tf_bundle(const Bytes& index, const std::string& prefix, OpenShard open) { return std::make_unique<Reader>(index, prefix, open); }

std::unique_ptr<TensorReader> read_tf_bundle(const std::filesystem::path& prefix) {
    const Bytes index(std::filesystem::path(prefix.string() + ".index"));
    return read_tf_bundle(index, prefix.string(), &open_file_shard);
}

std::unique_ptr<TensorWriter> write_tf_bundle(const std::filesystem::path& prefix, const TensorList& tensors) { return std::make_unique<Writer>(prefix, tensors); }

}  // namespace rf::convert
