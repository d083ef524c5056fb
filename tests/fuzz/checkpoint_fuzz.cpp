/// A checkpoint's index of any content whose digest agrees, beside a whole part: refused, or its tensors can be listed and digested.

#include "io/files.hpp"
#include "io/schema.hpp"
#include "params/checkpoint.hpp"
#include "tests/fuzz/hdf5_edits.hpp"

namespace {

/// A part that whatever index can point to.
void make_part(const std::filesystem::path& folder) {
    using namespace rf;
    const std::string path = (folder / "part-000-00000.h5").string();
    const auto hold = h5::lock();
    h5::File file = h5::create_file(path);
    const std::vector<float> values{1, 2, 3, 4, 5, 6};
    h5::write(file, "a", ConstTensor{values.data(), {2, 3}, Dtype::f32}, {"1", ""});
    h5::write(file, "optimizer/m/a", ConstTensor{values.data(), {2, 3}, Dtype::f32}, {"1", ""});
    h5::close_file(file, path);
    write_digest(path, {});
}

/// A virtual dataset as checkpoints have them, with sizes, names and a file that may be of any kind.
void put_virtual(hid_t file, const std::string& name, rf::fuzz::Bytes& bytes) {
    using namespace rf;
    hsize_t dims[2] = {2, 3}, part[2] = {2, 3}, start[2] = {0, 0};
    if (bytes.below(4) == 0)
        for (hsize_t& d : dims) d = std::min<std::uint64_t>(bytes.number(), std::uint64_t{1} << 60);
    if (bytes.below(4) == 0)
        for (hsize_t& d : part) d = bytes.below(5);
    if (bytes.below(8) == 0) start[0] = bytes.below(4);
    constexpr const char* files[] = {"part-000-00000.h5", "part-000-00001.h5", "../checkpoint.h5", ".", "/dev/zero", "", "checkpoint.h5"};
    const std::string from = files[bytes.below(3) ? 0 : bytes.below(7)], inner = bytes.below(4) ? name : bytes.text(20);
    const h5::Dataspace space(H5Screate_simple(2, dims, nullptr)), source(H5Screate_simple(2, part, nullptr));
    if (space < 0 || source < 0) return;
    const h5::Dataspace target(H5Scopy(space));
    const h5::PropertyList create(H5Pcreate(H5P_DATASET_CREATE)), links(H5Pcreate(H5P_LINK_CREATE));
    H5Pset_create_intermediate_group(links, 1);
    if (H5Sselect_hyperslab(target, H5S_SELECT_SET, start, nullptr, part, nullptr) < 0) return;
    if (H5Pset_virtual(create, target, from.c_str(), inner.c_str(), source) < 0) return;
    const h5::Dataset set(H5Dcreate2(file, name.c_str(), H5T_NATIVE_FLOAT, space, links, create, H5P_DEFAULT));
}

void make_index(const std::filesystem::path& folder, rf::fuzz::Bytes& bytes) {
    using namespace rf;
    const std::string path = (folder / "checkpoint.h5").string();
    const auto hold = h5::lock();
    h5::File file = h5::create_file(path);
    fuzz::put_attribute(file, schema::kind, schema::kind_checkpoint, bytes);
    for (const char* name : {"step", "samples"})
        if (bytes.below(8)) h5::set_attribute(file, name, static_cast<std::int64_t>(bytes.number()));
        else fuzz::put_attribute(file, name, "3", bytes);
    for (const char* name : {"model", "input", "identity"}) fuzz::put_attribute(file, name, "{}", bytes);
    if (bytes.below(4)) h5::write_strings(file, "vocab", {"[PAD]\n"}, {"1", ""});
    else fuzz::put_dataset(file, "vocab", bytes);
    put_virtual(file, "a", bytes);
    put_virtual(file, "optimizer/m/a", bytes);
    while (!bytes.empty()) {
        const std::string name = "x" + std::to_string(bytes.below(6));
        switch (bytes.below(5)) {
            case 0: put_virtual(file, name, bytes); break;
            case 1: fuzz::put_dataset(file, name, bytes); break;
            case 2: H5Lcreate_external(bytes.below(2) ? "checkpoint.h5" : "/dev/zero", "/", file, name.c_str(), H5P_DEFAULT, H5P_DEFAULT); break;
            case 3: H5Lcreate_soft("/", file, name.c_str(), H5P_DEFAULT, H5P_DEFAULT); break;
            default: H5Lcreate_hard(file, "/", file, name.c_str(), H5P_DEFAULT, H5P_DEFAULT); break;  // a group within itself
        }
    }
    h5::close_file(file, path);
    write_digest(path, {});
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace rf;
    static const std::filesystem::path folder = [] {
        const auto path = fuzz::folder() / "step-00000003";
        std::filesystem::create_directories(path);
        make_part(path);
        return path;
    }();
    fuzz::Bytes bytes(data, size);
    make_index(folder, bytes);
    fuzz::may_refuse([&] {
        checkpoint_parts(folder);  // the digests themselves: target `corpus`
        fuzz::may_refuse([&] { read_checkpoint_meta(folder); });
        digest_checkpoint(folder);  // lists it first
    });
    return 0;
}
