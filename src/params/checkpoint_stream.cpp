#include "params/checkpoint_stream.hpp"

#include "io/schema.hpp"
#include "params/checkpoint_index.hpp"

#include <algorithm>

namespace rf {

namespace fs = std::filesystem;

namespace {

/// Moves one slice between a dataset and memory.
template <class Transfer>
void with_slice(hid_t file, const TensorSlice& slice, Transfer transfer) {
    const h5::Dataset set(h5::check(H5Dopen2(file, slice.name.c_str(), H5P_DEFAULT), slice.name));
    const h5::Dataspace space(h5::check(H5Dget_space(set), slice.name));
    hsize_t start[Shape::max_rank] = {}, count[Shape::max_rank] = {};
    const int rank = H5Sget_simple_extent_ndims(space);
    RF_REQUIRE(rank >= 1 && rank <= Shape::max_rank, "tensor ", slice.name, " with ", rank, " axes");
    H5Sget_simple_extent_dims(space, count, nullptr);
    const auto slices = static_cast<hsize_t>(slice.count);
    RF_REQUIRE(slices >= 1 && count[0] % slices == 0 && slice.index >= 0 && slice.index < slice.count, "slice of tensor ", slice.name);
    count[0] /= slices;
    start[0] = count[0] * static_cast<hsize_t>(slice.index);
    h5::check(H5Sselect_hyperslab(space, H5S_SELECT_SET, start, nullptr, count, nullptr), slice.name);
    const h5::Dataspace memory(h5::check(H5Screate_simple(rank, count, nullptr), slice.name));
    h5::check(transfer(set, memory, space), slice.name);
}

}  // namespace

CheckpointSink::CheckpointSink(fs::path folder, const ParamLayout& layout, CheckpointMeta meta)
    : folder_(std::move(folder)), part_(folder_ / checkpoint_part_name(0, 0)), layout_(layout), meta_(std::move(meta)) {
    RF_REQUIRE(layout.tensor_size() == 1, "a checkpoint written as one file needs a layout of one tensor rank");
    const auto hold = h5::lock();
    file_ = h5::create_file(part_);
    h5::set_attribute(file_, schema::kind, schema::kind_checkpoint_part);
    h5::set_attribute(file_, schema::version, std::int64_t{1});
    for (const ParamEntry& entry : layout.entries()) {
        ranges_.push_back({entry.spec.name, 0, 0});
        missing_.push_back(entry.spec.shape.count());
        hsize_t dims[Shape::max_rank] = {};
        for (int i = 0; i < entry.spec.shape.rank; ++i) dims[i] = static_cast<hsize_t>(entry.spec.shape[i]);
        const h5::Dataspace space(h5::check(H5Screate_simple(entry.spec.shape.rank, dims, nullptr), entry.spec.name));
        const h5::PropertyList create(h5::check(H5Pcreate(H5P_DATASET_CREATE), entry.spec.name));
        H5Pset_layout(create, H5D_CONTIGUOUS);
        H5Pset_fill_time(create, H5D_FILL_TIME_NEVER);
        H5Pset_obj_track_times(create, false);
        const h5::PropertyList links(h5::check(H5Pcreate(H5P_LINK_CREATE), entry.spec.name));
        H5Pset_create_intermediate_group(links, 1);
        const h5::Dataset set(h5::check(H5Dcreate2(file_, entry.spec.name.c_str(), H5T_NATIVE_FLOAT, space, links, create, H5P_DEFAULT), entry.spec.name));
        h5::set_attribute(set, "units", "1");
        h5::set_attribute(set, "description", "part of a logical tensor; checkpoint.h5 shows it whole");
    }
}

void CheckpointSink::write(const TensorSlice& slice, const float* data) {
    const auto& entries = layout_.entries();
    const auto entry = std::find_if(entries.begin(), entries.end(), [&](const ParamEntry& e) { return e.spec.name == slice.name; });
    RF_REQUIRE(entry != entries.end(), "no tensor ", slice.name, " in the layout");
    const auto hold = h5::lock();
    with_slice(file_, slice, [&](hid_t set, hid_t memory, hid_t space) { return H5Dwrite(set, H5T_NATIVE_FLOAT, memory, space, H5P_DEFAULT, data); });
    missing_[static_cast<std::size_t>(entry - entries.begin())] -= entry->spec.shape.count() / slice.count;
}

void CheckpointSink::finish() {
    for (std::size_t i = 0; i < missing_.size(); ++i)
        RF_REQUIRE(missing_[i] == 0, "tensor ", layout_.entries()[i].spec.name, " was not written whole");
    {
        const auto hold = h5::lock();
        h5::flush_file(file_, part_.string());
        for (std::size_t i = 0; i < ranges_.size(); ++i) {
            const h5::Dataset set(h5::check(H5Dopen2(file_, ranges_[i].name.c_str(), H5P_DEFAULT), ranges_[i].name));
            ranges_[i].begin = static_cast<std::int64_t>(H5Dget_offset(set));
            ranges_[i].end = ranges_[i].begin + layout_.entries()[i].spec.shape.count() * size_of(Dtype::f32);
        }
        h5::close_file(file_, part_.string());
    }
    write_digest(part_, ranges_);
    write_checkpoint_index(folder_, meta_, layout_, {}, 1, Dtype::f32);
    sync_path(folder_);
}

CheckpointSource::CheckpointSource(const fs::path& checkpoint) {
    const auto hold = h5::lock();
    file_ = h5::open_checked_file(checkpoint / "checkpoint.h5");
}

CheckpointSource::~CheckpointSource() {
    const auto hold = h5::lock();
    file_.close();
}

void CheckpointSource::read(const TensorSlice& slice, float* data) const {
    const auto hold = h5::lock();
    with_slice(file_, slice, [&](hid_t set, hid_t memory, hid_t space) { return H5Dread(set, H5T_NATIVE_FLOAT, memory, space, H5P_DEFAULT, data); });
}

}  // namespace rf
