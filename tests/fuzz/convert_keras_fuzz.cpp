/// Fuzz target: a weight file of Keras whose HDF5 is whole and whose content is any: lists of names of either kind, cut in parts, of what is not there or
/// twice; datasets and groups in one another's place.

#include "convert/keras_file.hpp"
#include "tests/fuzz/hdf5_edits.hpp"

namespace {

using namespace rf;

const char* const layers[] = {"a", "Embedding-Token", "b", ""};
const char* const weights[] = {"kernel:0", "bias:0", "sub/kernel:0", "", "."};

/// A list of names as a writer of Keras' files stores one, of fixed or variable length.
void put_list(hid_t object, const std::string& name, const std::vector<std::string>& list, fuzz::Bytes& bytes) {
    const std::uint32_t how = bytes.below(8);
    if (how == 0) return fuzz::put_attribute(object, name, "a", bytes);
    const h5::Datatype type(H5Tcopy(H5T_C_S1));
    const hsize_t count = list.size();
    const h5::Dataspace space(count == 0 ? H5Screate(how == 1 ? H5S_NULL : H5S_SCALAR) : H5Screate_simple(1, &count, nullptr));
    constexpr std::size_t width = 16;
    H5Tset_size(type, how < 4 ? H5T_VARIABLE : width);
    const h5::Attribute attribute(H5Acreate2(object, name.c_str(), type, space, H5P_DEFAULT, H5P_DEFAULT));
    if (attribute < 0 || list.empty()) return;
    std::vector<const char*> pointers;
    std::string fixed;
    for (const std::string& text : list) {
        pointers.push_back(text.c_str());
        fixed += text.substr(0, width);
        fixed.resize(pointers.size() * width, '\0');
    }
    H5Awrite(attribute, type, how < 4 ? static_cast<const void*>(pointers.data()) : fixed.data());
}

std::vector<std::string> draw(const auto& names, fuzz::Bytes& bytes) {
    std::vector<std::string> list;
    for (std::uint32_t n = bytes.below(4); n > 0; --n) list.push_back(names[bytes.below(std::size(names))]);
    if (bytes.below(8) == 0) list.push_back(bytes.text(20));
    return list;
}

/// What stands under a name besides a dataset of its own: one made of itself or of nothing, and links.
void put_other(hid_t group, const char* name, fuzz::Bytes& bytes) {
    const char* const files[] = {".", "weights.h5", "/dev/zero"};
    const std::string other = files[bytes.below(3)];
    const hsize_t dims[2] = {2, 3};
    const h5::Dataspace space(H5Screate_simple(2, dims, nullptr));
    const h5::PropertyList create(H5Pcreate(H5P_DATASET_CREATE));
    switch (bytes.below(5)) {
        case 0: H5Pset_virtual(create, space, other.c_str(), bytes.below(2) ? "/a/kernel:0" : name, space); break;
        case 1: H5Pset_external(create, other.c_str(), 0, 24); break;
        case 2: H5Lcreate_external(other.c_str(), "/a/kernel:0", group, name, H5P_DEFAULT, H5P_DEFAULT); return;
        case 3: H5Lcreate_soft(bytes.below(2) ? "/a" : name, group, name, H5P_DEFAULT, H5P_DEFAULT); return;
        default: H5Lcreate_hard(group, ".", group, name, H5P_DEFAULT, H5P_DEFAULT); return;  // a group within itself
    }
    const h5::Dataset set(H5Dcreate2(group, name, H5T_NATIVE_FLOAT, space, H5P_DEFAULT, create, H5P_DEFAULT));
}

void make(const std::string& path, fuzz::Bytes& bytes) {
    const auto hold = h5::lock();
    h5::File file = h5::create_file(path);
    h5::Group within;
    if (bytes.below(4) == 0) within = h5::create_group(file, "model_weights");
    const hid_t root = within >= 0 ? static_cast<hid_t>(within) : static_cast<hid_t>(file);
    put_list(root, bytes.below(8) ? "layer_names" : "layer_names0", draw(layers, bytes), bytes);
    for (const char* layer : {"a", "Embedding-Token"}) {
        if (bytes.below(8) == 0) {
            fuzz::put_dataset(root, layer, bytes);
            continue;
        }
        const h5::Group group = h5::create_group(root, layer);
        put_list(group, bytes.below(8) ? "weight_names" : "weight_names0", draw(weights, bytes), bytes);
        const h5::Group sub = h5::create_group(group, "sub");
        if (bytes.below(4)) fuzz::put_dataset(group, "kernel:0", bytes);
        else put_other(group, "kernel:0", bytes);
        if (bytes.below(2)) fuzz::put_dataset(group, "bias:0", bytes);
        if (bytes.below(2)) fuzz::put_dataset(sub, "kernel:0", bytes);
    }
    if (bytes.below(4) == 0) fuzz::put_attribute(root, "note", "text", bytes);
    h5::close_file(file, path);
}

void read(const std::string& path) {
    const auto reader = convert::read_keras(path, convert::Trial::none);
    reader->note("note");
    for (const auto& [name, info] : reader->tensors()) {
        // Chunks that were never written may claim any size, which a model's shape would refuse before it is asked for.
        const std::int64_t count = convert::element_count(info.dims, 1 << 14, "input", name);
        std::vector<float> out(static_cast<std::size_t>(count));
        reader->read(name, out.data());
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    rf::fuzz::Bytes bytes(data, size);
    const std::string path = rf::fuzz::folder() / "weights.h5";
    make(path, bytes);
    rf::fuzz::may_refuse([&] { read(path); });
    return 0;
}
