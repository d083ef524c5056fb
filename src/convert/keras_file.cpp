#include "convert/keras_file.hpp"

#include "io/hdf5.hpp"

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>

namespace rf::convert {

namespace {

constexpr hsize_t most_names = 1'000'000;
constexpr std::size_t longest_name = 4096, longest_list = 16 << 20;

/// An attribute that is a list of strings, of fixed or of variable length. A list of no strings may have any type.
std::vector<std::string> string_list(hid_t object, const std::string& name, const std::string& file) {
    const h5::Attribute attribute(h5::check(H5Aopen(object, name.c_str(), H5P_DEFAULT), file + ": attribute " + name));
    const h5::Dataspace space(h5::check(H5Aget_space(attribute), file));
    const hssize_t count = H5Sget_simple_extent_npoints(space);
    if (count < 0 || static_cast<hsize_t>(count) > most_names) fail_usage(file, ": attribute ", name, " lists ", count, " names");
    std::vector<std::string> out;
    if (count == 0) return out;
    const h5::Datatype type(h5::check(H5Aget_type(attribute), file));
    if (H5Tget_class(type) != H5T_STRING) fail_usage(file, ": attribute ", name, " is no list of names");
    if (H5Tis_variable_str(type) > 0) {
        std::vector<char*> texts(static_cast<std::size_t>(count), nullptr);
        h5::check(H5Aread(attribute, type, texts.data()), file + ": attribute " + name);
        for (const char* text : texts) out.emplace_back(text ? text : "");
        H5Dvlen_reclaim(type, space, H5P_DEFAULT, texts.data());
        return out;
    }
    const std::size_t size = H5Tget_size(type);
    if (size == 0 || size > longest_name || static_cast<std::size_t>(count) > longest_list / size)
        fail_usage(file, ": attribute ", name, " lists ", count, " names of ", size, " bytes");
    std::vector<char> texts(static_cast<std::size_t>(count) * size);
    h5::check(H5Aread(attribute, type, texts.data()), file + ": attribute " + name);
    for (hssize_t i = 0; i < count; ++i) {
        const char* text = texts.data() + static_cast<std::size_t>(i) * size;
        out.emplace_back(text, strnlen(text, size));
    }
    return out;
}

/// Keras cuts lists above 64 KiB into `name0`, `name1`, ….
std::vector<std::string> whole_list(hid_t object, const std::string& name, const std::string& file) {
    if (h5::has_attribute(object, name)) return string_list(object, name, file);
    std::vector<std::string> out;
    for (int i = 0; h5::has_attribute(object, name + std::to_string(i)); ++i) {
        const std::vector<std::string> part = string_list(object, name + std::to_string(i), file);
        out.insert(out.end(), part.begin(), part.end());
    }
    return out;
}

void set_string_list(hid_t object, const std::string& name, const std::vector<std::string>& list) {
    h5::Datatype type(h5::check(H5Tcopy(H5T_C_S1), name));
    H5Tset_size(type, H5T_VARIABLE);
    H5Tset_cset(type, H5T_CSET_UTF8);
    std::vector<const char*> texts;
    for (const std::string& text : list) texts.push_back(text.c_str());
    const hsize_t count = list.size();
    const h5::Dataspace space(h5::check(H5Screate_simple(1, &count, nullptr), name));
    const h5::Attribute attribute(h5::check(H5Acreate2(object, name.c_str(), type, space, H5P_DEFAULT, H5P_DEFAULT), name));
    h5::check(H5Awrite(attribute, type, texts.data()), name);
}

class Reader final : public KerasReader {
public:
    explicit Reader(const std::filesystem::path& path) : KerasReader(path.string()), bytes_(path) {
        const auto hold = h5::lock();
        if (H5Fis_hdf5(path.c_str()) <= 0) fail_usage(name_, ": not an HDF5 file (truncated at its beginning, or another format)");
        try {
            file_ = h5::open_file(path);
            read_layers();
        } catch (const UsageError&) {
            throw;
        } catch (const Error& e) {
            fail_usage(name_, ": cannot be read (", e.what(), "; truncated or damaged)");
        }
    }
    /// Whatever the library has to do for the numbers is done once.
    void try_numbers() const {
        for (const auto& [tensor, place] : places_) {
            const TensorInfo& info = tensors_.at(tensor);
            if (place.offset >= 0 || info.element == Element::other) continue;
            std::vector<float> out(static_cast<std::size_t>(element_count(info.dims, INT64_MAX / 8, name_, tensor)));
            read_numbers_of(tensor, info, out.data());
        }
    }
    ~Reader() override {
        const auto hold = h5::lock();
        root_.close();
        file_.close();
    }
    std::string note(const std::string& name) const override {
        const auto hold = h5::lock();
        return h5::has_attribute(root(), name) ? h5::string_attribute(root(), name) : std::string();
    }

private:
    hid_t root() const { return root_ >= 0 ? static_cast<hid_t>(root_) : static_cast<hid_t>(file_); }

    void read_layers() {
        if (h5::exists(file_, "model_weights")) root_ = h5::Group(h5::check(H5Gopen2(file_, "model_weights", H5P_DEFAULT), name_));
        if (!h5::has_attribute(root(), "layer_names") && !h5::has_attribute(root(), "layer_names0"))
            fail_usage(name_, ": no weights as Keras saves them in HDF5 (no attribute \"layer_names\"; save with save_weights(name, save_format=\"h5\") under a name "
                              "that does not end in .weights.h5)");
        for (const std::string& layer : whole_list(root(), "layer_names", name_)) {
            if (layer.empty() || !h5::exists(root(), layer)) fail_usage(name_, ": layer \"", layer, "\" is listed and missing");
            const h5::Group group(h5::check(H5Gopen2(root(), layer.c_str(), H5P_DEFAULT), layer));
            const std::vector<std::string> weights = whole_list(group, "weight_names", name_);
            for (std::size_t i = 0; i < weights.size(); ++i) {
                const std::string tensor = layer + "[" + std::to_string(i) + "]";
                if (weights[i].empty() || !h5::exists(group, weights[i])) fail_usage(name_, ": weight ", layer, "/", weights[i], " is listed and missing");
                const h5::Dataset set(h5::check(H5Dopen2(group, weights[i].c_str(), H5P_DEFAULT), weights[i]));
                const auto [added, is_new] = tensors_.emplace(tensor, info_of(set, weights[i]));
                if (!is_new) fail_usage(name_, ": layer \"", layer, "\" is listed twice");
                places_[tensor] = {layer + "/" + weights[i], plain_offset(set, added->second)};
            }
        }
    }

    TensorInfo info_of(hid_t set, const std::string& name) const {
        const h5::Dataspace space(h5::check(H5Dget_space(set), name));
        const h5::Datatype type(h5::check(H5Dget_type(set), name));
        TensorInfo info;
        hsize_t dims[H5S_MAX_RANK] = {};
        const int rank = H5Sget_simple_extent_dims(space, dims, nullptr);
        for (int i = 0; i < rank; ++i) info.dims.push_back(static_cast<std::int64_t>(std::min<hsize_t>(dims[i], INT64_MAX)));
        const bool real = H5Tget_class(type) == H5T_FLOAT && H5Tget_size(type) <= 4;
        info.element = real ? Element::f32 : Element::other;
        info.type = message("HDF5's class ", static_cast<int>(H5Tget_class(type)), " of ", H5Tget_size(type), " bytes");
        const h5::PropertyList create(h5::check(H5Dget_create_plist(set), name));
        // Its own numbers or none: what is made of other files, or of itself, is no weight of Keras.
        if (H5Pget_layout(create) == H5D_VIRTUAL || H5Pget_external_count(create) != 0) fail_usage(name_, ": weight ", name, " lies in another file");
        const std::int64_t count = element_count(info.dims, INT64_MAX / 8, name_, name);
        // A compressed dataset may be larger than the file, a contiguous one may not.
        if (count > bytes_.size() / static_cast<std::int64_t>(std::max<std::size_t>(H5Tget_size(type), 1)) && H5Pget_nfilters(create) == 0)
            fail_usage(name_, ": weight ", name, " of shape ", to_text(info.dims), " is larger than the file (damaged)");
        return info;
    }

    /// Where the numbers lie in the file as they do in memory; -1 where the library has to convert or collect them.
    std::int64_t plain_offset(hid_t set, const TensorInfo& info) const {
        const h5::Datatype type(h5::check(H5Dget_type(set), name_));
        const h5::PropertyList create(h5::check(H5Dget_create_plist(set), name_));
        const auto bytes = static_cast<hsize_t>(4 * element_count(info.dims, INT64_MAX / 8, name_, "weight"));
        if (H5Pget_layout(create) != H5D_CONTIGUOUS || H5Tequal(type, H5T_IEEE_F32LE) <= 0 || H5Dget_storage_size(set) != bytes) return -1;
        const haddr_t offset = H5Dget_offset(set);
        return offset == HADDR_UNDEF ? -1 : static_cast<std::int64_t>(std::min<haddr_t>(offset, INT64_MAX));
    }

    void read_numbers_of(const std::string& tensor, const TensorInfo& info, float* out) const override {
        const auto& [path, offset] = places_.at(tensor);
        // Without the library, whose users wait for one another.
        if (offset >= 0) return read_numbers(bytes_, offset, Element::f32, element_count(info.dims, INT64_MAX / 8, name_, tensor), out, "weight " + path);
        const auto hold = h5::lock();
        try {
            const h5::Dataset set(h5::check(H5Dopen2(root(), path.c_str(), H5P_DEFAULT), path));
            h5::check(H5Dread(set, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, out), path);
        } catch (const Error& e) {
            fail_usage(name_, ": weight ", path, " cannot be read (", e.what(), "; truncated or damaged)");
        }
    }

    struct Place {
        std::string path;
        std::int64_t offset = -1;
    };
    Bytes bytes_;
    h5::File file_;
    h5::Group root_;
    std::map<std::string, Place> places_;
};

/// Reads the file in a child process: a UsageError where that dies of it, or takes longer than any whole file could.
void try_in_child(const std::filesystem::path& path) {
    const std::int64_t slowest = 20 << 20;  // bytes a second
    const auto limit = static_cast<unsigned>(10 + Bytes(path).size() / slowest);
    const pid_t child = ::fork();
    if (child < 0) fail("no process could be made to read ", path.string(), " (", std::strerror(errno), ")");
    if (child == 0) {
        for (const int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGALRM}) ::signal(signal, SIG_DFL);  // no handler's words about it
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, nullptr);
        const rlimit no_core{0, 0};
        ::setrlimit(RLIMIT_CORE, &no_core);
        ::alarm(limit);
        try {
            Reader(path).try_numbers();
        } catch (const Error&) {  // is met again by the parent, which says so
        } catch (...) {
            ::_exit(1);
        }
        ::_exit(0);
    }
    int status = 0;
    while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {}
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM) fail_usage(path.string(), ": damaged (HDF5 comes to no end with it in ", limit, " s)");
    if (status != 0) fail_usage(path.string(), ": damaged (HDF5 fails over it)");
}

class Writer final : public TensorWriter {
public:
    Writer(std::filesystem::path path, const TensorList& tensors, const std::map<std::string, std::string>& notes) : path_(std::move(path)), tensors_(tensors) {
        const auto hold = h5::lock();
        file_ = h5::create_file(path_);
        numbers_.emplace(path_, OutputFile::Open::existing);
        std::vector<std::string> layers;
        std::map<std::string, std::vector<std::string>> weights;
        for (const auto& [name, dims] : tensors) {
            const std::size_t slash = name.find('/');
            const std::string layer = name.substr(0, slash);
            if (layers.empty() || layers.back() != layer) layers.push_back(layer);
            weights[layer].push_back(name.substr(slash + 1));
        }
        for (const std::string& layer : layers) set_string_list(h5::create_group(file_, layer), "weight_names", weights[layer]);
        set_string_list(file_, "layer_names", layers);
        h5::set_attribute(file_, "backend", "tensorflow");
        h5::set_attribute(file_, "keras_version", "2.3.1");  // the layout's
        for (const auto& [name, text] : notes) h5::set_attribute(file_, name, text);
    }
    ~Writer() override {
        const auto hold = h5::lock();
        file_.close();
    }
    void write(const float* data) override {
        RF_REQUIRE(next_ < tensors_.size(), "more tensors than declared");
        const auto& [name, dims] = tensors_[next_++];
        std::int64_t bytes = 4;
        for (const std::int64_t d : dims) bytes *= d;
        // The library makes the place; what lies in it is none of its business, and whoever reads another file by it need not wait.
        numbers_->put(data, bytes, make_place(name, dims));
    }
    void finish() override {
        RF_REQUIRE(next_ == tensors_.size(), "fewer tensors than declared");
        numbers_->finish();
        const auto hold = h5::lock();
        h5::close_file(file_, path_.string());
    }

private:
    /// Offset of a new dataset's numbers.
    std::int64_t make_place(const std::string& name, const Dims& dims) {
        const auto hold = h5::lock();
        std::vector<hsize_t> extent(dims.begin(), dims.end());
        const h5::Dataspace space(h5::check(H5Screate_simple(static_cast<int>(extent.size()), extent.data(), nullptr), name));
        const h5::PropertyList create(h5::check(H5Pcreate(H5P_DATASET_CREATE), name)), links(h5::check(H5Pcreate(H5P_LINK_CREATE), name));
        H5Pset_layout(create, H5D_CONTIGUOUS);
        H5Pset_alloc_time(create, H5D_ALLOC_TIME_EARLY);
        H5Pset_fill_time(create, H5D_FILL_TIME_NEVER);
        H5Pset_obj_track_times(create, false);
        H5Pset_create_intermediate_group(links, 1);
        const h5::Dataset set(h5::check(H5Dcreate2(file_, name.c_str(), H5T_IEEE_F32LE, space, links, create, H5P_DEFAULT), name));
        const haddr_t offset = H5Dget_offset(set);
        if (offset == HADDR_UNDEF) fail(path_.string(), ": no place for weight ", name);
        return static_cast<std::int64_t>(offset);
    }

    std::filesystem::path path_;
    TensorList tensors_;
    std::size_t next_ = 0;
    h5::File file_;
    std::optional<OutputFile> numbers_;
};

}  // namespace

std::unique_ptr<KerasReader> read_keras(const std::filesystem::path& path, Trial trial) {
    if (trial == Trial::in_child) try_in_child(path);
    return std::make_unique<Reader>(path);
}

std::unique_ptr<TensorWriter> write_keras(const std::filesystem::path& path, const TensorList& tensors, const std::map<std::string, std::string>& notes) {
    return std::make_unique<Writer>(path, tensors, notes);
}

}  // namespace rf::convert
