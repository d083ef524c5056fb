#pragma once
/// HDF5 files of any content that the library itself takes as whole, with digests that agree: what a foreign or broken writer could leave, and
/// what no digest catches.

#include "io/hdf5.hpp"
#include "tests/fuzz/fuzz.hpp"

#include <vector>

namespace rf::fuzz {

/// A dataset of any type and shape; numbers mostly small.
inline void put_dataset(hid_t parent, const std::string& name, Bytes& bytes) {
    const hid_t types[] = {H5T_NATIVE_UINT16, H5T_NATIVE_UINT8, H5T_NATIVE_UINT64, H5T_NATIVE_INT64, H5T_NATIVE_DOUBLE, H5T_NATIVE_FLOAT};
    const hid_t type = types[bytes.below(6)];
    const int rank = static_cast<int>(bytes.below(8) == 0 ? bytes.below(6) : 1);
    hsize_t dims[6], count = 1;
    for (int i = 0; i < rank; ++i) count *= dims[i] = bytes.below(rank > 1 ? 4 : 24);
    std::vector<std::uint64_t> values(static_cast<std::size_t>(count) + 1);
    for (auto& value : values) value = bytes.number();
    const h5::Dataspace space(rank == 0 ? H5Screate(H5S_SCALAR) : H5Screate_simple(rank, dims, nullptr));
    const h5::PropertyList create(H5Pcreate(H5P_DATASET_CREATE));
    // Sometimes claims more than the file holds: chunks that were never written.
    if (bytes.below(16) == 0 && rank > 0 && count > 0) {
        hsize_t huge[6];
        for (int i = 0; i < rank; ++i) huge[i] = (dims[i] + 1) << bytes.below(40 / static_cast<std::uint32_t>(rank));
        const h5::Dataspace wide(H5Screate_simple(rank, huge, nullptr));
        for (int i = 0; i < rank; ++i) dims[i] = std::max<hsize_t>(1, dims[i]);
        H5Pset_chunk(create, rank, dims);
        const h5::Dataset set(H5Dcreate2(parent, name.c_str(), type, wide, H5P_DEFAULT, create, H5P_DEFAULT));
        return;
    }
    if (bytes.below(8) == 0) H5Pset_layout(create, H5D_COMPACT);
    const h5::Dataset set(H5Dcreate2(parent, name.c_str(), type, space, H5P_DEFAULT, create, H5P_DEFAULT));
    if (set >= 0) H5Dwrite(set, H5T_NATIVE_UINT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data());
}

/// An attribute: the text expected, another, a number, a list, or none.
inline void put_attribute(hid_t object, const std::string& name, const std::string& expected, Bytes& bytes) {
    switch (bytes.below(12)) {
        case 0: return;
        case 1: return h5::set_attribute(object, name, bytes.text(40));
        case 2: return h5::set_attribute(object, name, static_cast<std::int64_t>(bytes.number()));
        case 3: {
            const double list[] = {1, 2, 3};
            const hsize_t n = 3;
            const h5::Dataspace space(H5Screate_simple(1, &n, nullptr));
            const h5::Attribute attribute(H5Acreate2(object, name.c_str(), H5T_NATIVE_DOUBLE, space, H5P_DEFAULT, H5P_DEFAULT));
            H5Awrite(attribute, H5T_NATIVE_DOUBLE, list);
            return;
        }
        case 4: {  // text of fixed length, as other writers store it
            const h5::Dataspace space(H5Screate(H5S_SCALAR));
            const h5::Datatype type(H5Tcopy(H5T_C_S1));
            H5Tset_size(type, 4);
            const h5::Attribute attribute(H5Acreate2(object, name.c_str(), type, space, H5P_DEFAULT, H5P_DEFAULT));
            H5Awrite(attribute, type, "text");
            return;
        }
        default: return h5::set_attribute(object, name, expected);
    }
}

}  // namespace rf::fuzz
