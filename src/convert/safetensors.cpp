#include "convert/safetensors.hpp"

#include "io/json.hpp"

#include <algorithm>

namespace rf::convert {

namespace {

constexpr std::int64_t longest_header = 25'000'000;  // 100'000 tensors and more

struct Extent {
    std::int64_t begin = 0, end = 0;
};

/// Bytes of an element of any type that the format knows; 0 for an unknown one.
std::int64_t stored_size(std::string_view type) {
    for (const auto& [name, size] : {std::pair<std::string_view, std::int64_t>{"F64", 8}, {"I64", 8}, {"U64", 8}, {"F32", 4}, {"I32", 4}, {"U32", 4}, {"F16", 2},
                                     {"BF16", 2}, {"I16", 2}, {"U16", 2}, {"I8", 1}, {"U8", 1}, {"BOOL", 1}, {"F8_E4M3", 1}, {"F8_E5M2", 1}})
        if (type == name) return size;
    return 0;
}

class Reader final : public TensorReader {
public:
    explicit Reader(std::unique_ptr<Bytes> file) : TensorReader(file->name()), file_(std::move(file)) {
        const std::string head = file_->text(0, 8, 8, "the length of the header");
        const auto length = load<std::uint64_t>(head.data());
        if (length > static_cast<std::uint64_t>(longest_header))
            fail_usage(name_, ": a header of ", length, " bytes (expected at most ", longest_header, "; not a safetensors file?)");
        const std::string text = file_->text(8, static_cast<std::int64_t>(length), longest_header, "the header");
        data_ = 8 + static_cast<std::int64_t>(length);
        const json::value header = json::parse(text, name_ + ": header");
        if (!header.is_object()) json::fail_type({name_, "header"}, "an object { … }", header);
        for (const auto& [key, entry] : header.as_object())
            if (key != "__metadata__") add(std::string(key), entry);
        check_extents();
    }

private:
    void add(const std::string& tensor, const json::value& entry) {
        const json::Place place{name_, "header: " + tensor};
        if (!entry.is_object()) json::fail_type(place, "an object { … }", entry);
        TensorInfo info;
        Dims offsets;
        for (const auto& [key, value] : entry.as_object()) {
            if (key == "dtype") json::read(value, info.type, place.at("dtype"));
            else if (key == "shape") json::read(value, info.dims, place.at("shape"));
            else if (key == "data_offsets") json::read(value, offsets, place.at("data_offsets"));
            else json::fail_unknown(place, key, {"dtype", "shape", "data_offsets"});
        }
        const std::int64_t size = stored_size(info.type), available = file_->size() - data_;
        if (size == 0) fail_usage(place, ": unknown dtype \"", info.type, "\"");
        if (offsets.size() != 2 || offsets[0] < 0 || offsets[1] < offsets[0]) fail_usage(place, ": data_offsets ", to_text(offsets), " (expected [begin, end])");
        if (offsets[1] > available)
            fail_usage(place, ": data_offsets ", to_text(offsets), " reach beyond the ", available, " bytes of data (out of range; is the file truncated?)");
        const std::int64_t count = element_count(info.dims, available, name_, tensor);
        if (count > available / size || count * size != offsets[1] - offsets[0])
            fail_usage(place, ": data_offsets ", to_text(offsets), " do not hold ", to_text(info.dims), " of ", info.type);
        info.element = info.type == "F32" ? Element::f32 : info.type == "F16" ? Element::f16 : info.type == "BF16" ? Element::bf16 : Element::other;
        extents_[tensor] = {offsets[0], offsets[1]};
        tensors_[tensor] = std::move(info);
    }

    void check_extents() const {
        std::vector<std::pair<std::string, Extent>> order(extents_.begin(), extents_.end());
        std::sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
            return a.second.begin != b.second.begin ? a.second.begin < b.second.begin : a.second.end < b.second.end;
        });
        std::int64_t end = 0;
        std::string before = "the header";
        for (const auto& [tensor, extent] : order) {
            if (extent.begin < end) fail_usage(name_, ": tensors ", before, " and ", tensor, " overlap at byte ", extent.begin, " of the data");
            if (extent.begin > end) fail_usage(name_, ": bytes ", end, " to ", extent.begin - 1, " of the data, after ", before, ", belong to no tensor");
            end = extent.end;
            before = tensor;
        }
        if (data_ + end != file_->size()) fail_usage(name_, ": ", file_->size() - data_ - end, " bytes after the last tensor ", before);
    }

    void read_numbers_of(const std::string& tensor, const TensorInfo& info, float* out) const override {
        const Extent& extent = extents_.at(tensor);
        read_numbers(*file_, data_ + extent.begin, info.element, (extent.end - extent.begin) / size_of(info.element), out, tensor);
    }

    std::unique_ptr<Bytes> file_;
    std::int64_t data_ = 0;
    std::map<std::string, Extent> extents_;
};

class Writer final : public TensorWriter {
public:
    Writer(const std::filesystem::path& path, const TensorList& tensors) : file_(path) {
        boost::json::object header;
        header["__metadata__"] = {{"format", "pt"}};  // what its readers in PyTorch ask for
        std::int64_t at = 0;
        for (const auto& [name, dims] : tensors) {
            std::int64_t bytes = 4;
            for (const std::int64_t d : dims) bytes *= d;
            header[name] = {{"dtype", "F32"}, {"shape", json::write(dims)}, {"data_offsets", json::write(Dims{at, at + bytes})}};
            sizes_.push_back(bytes);
            at += bytes;
        }
        std::string text = boost::json::serialize(header), length;
        text.append((8 - text.size() % 8) % 8, ' ');
        store(length, static_cast<std::uint64_t>(text.size()));
        file_.write(length);
        file_.write(text);
    }
    void write(const float* data) override {
        RF_REQUIRE(next_ < sizes_.size(), "more tensors than declared");
        file_.write(data, sizes_[next_++]);
    }
    void finish() override {
        RF_REQUIRE(next_ == sizes_.size(), "fewer tensors than declared");
        file_.finish();
    }

private:
    OutputFile file_;
    std::vector<std::int64_t> sizes_;
    std::size_t next_ = 0;
};

}  // namespace

std::unique_ptr<TensorReader> read_safetensors(std::unique_ptr<Bytes> file) { return std::make_unique<Reader>(std::move(file)); }

std::unique_ptr<TensorWriter> write_safetensors(const std::filesystem::path& path, const TensorList& tensors) { return std::make_unique<Writer>(path, tensors); }

}  // namespace rf::convert
