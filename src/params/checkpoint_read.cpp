#include "io/files.hpp"
#include "io/hdf5.hpp"
#include "io/schema.hpp"
#include "params/checkpoint_index.hpp"

#include <algorithm>
#include <set>

namespace rf {

namespace fs = std::filesystem;

namespace {

h5::File open_index(const fs::path& checkpoint) {
    const fs::path path = checkpoint / "checkpoint.h5";
    if (!fs::exists(path)) fail_usage(checkpoint.string(), ": not a checkpoint (no checkpoint.h5 in it)");
    h5::File file = h5::open_checked_file(path);
    if (!h5::has_attribute(file, schema::kind) || h5::string_attribute(file, schema::kind) != schema::kind_checkpoint)
        fail_usage(path.string(), ": not a checkpoint (attribute \"kind\" expected to be \"", schema::kind_checkpoint, "\")");
    return file;
}

Shape shape_of(hid_t set) {
    const h5::Dataspace space(h5::check(H5Dget_space(set), "dataset"));
    hsize_t dims[Shape::max_rank] = {};
    const int rank = H5Sget_simple_extent_ndims(space);
    if (rank < 0 || rank > Shape::max_rank) fail("a tensor with ", rank, " axes in a checkpoint");
    H5Sget_simple_extent_dims(space, dims, nullptr);
    Shape shape;
    shape.rank = rank;
    constexpr hsize_t most = hsize_t{1} << 50;  // elements, so that no product of sizes overflows
    hsize_t count = 1;
    for (int i = 0; i < rank; ++i) {
        if (dims[i] > most || (dims[i] > 0 && count > most / dims[i])) fail("a tensor in a checkpoint is too large to be one");
        count *= dims[i];
        shape[i] = static_cast<std::int64_t>(dims[i]);
    }
    return shape;
}

/// Reads rows [first, first + out.shape[0]) of this tensor rank's part of a logical tensor.
void read_rows(hid_t file, const std::string& name, const ParamEntry& entry, std::int64_t first, const Tensor& out) {
    const h5::Dataset set(h5::check(H5Dopen2(file, name.c_str(), H5P_DEFAULT), name));
    const h5::Dataspace space(h5::check(H5Dget_space(set), name));
    hsize_t start[Shape::max_rank] = {}, count[Shape::max_rank] = {};
    for (int i = 0; i < entry.local.rank; ++i) count[i] = static_cast<hsize_t>(out.shape[i]);
    if (entry.spec.split_axis >= 0) start[entry.spec.split_axis] = static_cast<hsize_t>(entry.split_begin);
    start[0] += static_cast<hsize_t>(first);
    h5::check(H5Sselect_hyperslab(space, H5S_SELECT_SET, start, nullptr, count, nullptr), name);
    const h5::Dataspace memory(h5::check(H5Screate_simple(entry.local.rank, count, nullptr), name));
    h5::check(H5Dread(set, h5::native_type(out.dtype), memory, space, H5P_DEFAULT, out.data), name);
}

/// Fills `out` with a range of the flat array that lies in one entry.
void read_range(hid_t file, const std::string& name, const ParamEntry& entry, Range range, const Stream& stream, const Tensor& out) {
    const std::int64_t row = entry.local.count() / entry.local[0], begin = range.begin - entry.offset, end = range.end - entry.offset;
    Shape shape = entry.local;
    shape[0] = (end + row - 1) / row - begin / row;
    const Buffer rows(shape.count() * size_of(out.dtype));
    read_rows(file, name, entry, begin / row, rows.tensor(shape, out.dtype));
    upload(stream, rows.data() + begin % row * size_of(out.dtype), out);
}

void collect(hid_t group, const std::string& prefix, std::vector<std::pair<std::string, Shape>>& out, int depth = 0) {
    if (depth > h5::deepest_group) fail("HDF5: ", prefix, ": groups within groups without end");
    for (const std::string& name : h5::list(group)) {
        H5O_info_t info;
        h5::check(H5Oget_info_by_name(group, name.c_str(), &info, H5P_DEFAULT), name);
        if (info.type == H5O_TYPE_GROUP) {
            const h5::Group inner(h5::check(H5Gopen2(group, name.c_str(), H5P_DEFAULT), name));
            collect(inner, prefix + name + "/", out, depth + 1);
        } else if (prefix + name != "vocab") {
            const h5::Dataset set(h5::check(H5Dopen2(group, name.c_str(), H5P_DEFAULT), name));
            out.emplace_back(prefix + name, shape_of(set));
        }
    }
}

/// Adds the files behind the virtual datasets of a group and of those below it.
void collect_sources(hid_t group, const fs::path& folder, std::set<fs::path>& out, int depth = 0) {
    if (depth > h5::deepest_group) fail("HDF5: ", folder.string(), ": groups within groups without end");
    for (const std::string& name : h5::list(group)) {
        H5O_info_t info;
        h5::check(H5Oget_info_by_name(group, name.c_str(), &info, H5P_DEFAULT), name);
        if (info.type == H5O_TYPE_GROUP) {
            collect_sources(h5::Group(h5::check(H5Gopen2(group, name.c_str(), H5P_DEFAULT), name)), folder, out, depth + 1);
            continue;
        }
        const h5::Dataset set(h5::check(H5Dopen2(group, name.c_str(), H5P_DEFAULT), name));
        const h5::PropertyList create(h5::check(H5Dget_create_plist(set), name));
        std::size_t count = 0;
        if (H5Pget_layout(create) != H5D_VIRTUAL) continue;
        h5::check(H5Pget_virtual_count(create, &count), name);
        for (std::size_t i = 0; i < count; ++i) {
            char source[256] = "";
            h5::check(static_cast<herr_t>(H5Pget_virtual_filename(create, i, source, sizeof source) < 0 ? -1 : 0), name);
            // A file of another name could be anywhere, or this one: the library follows a dataset made of itself without end.
            if (fs::path(source).filename() != fs::path(source) || !std::string_view(source).starts_with(checkpoint_part_prefix))
                fail_usage((folder / "checkpoint.h5").string(), ": tensor ", name, " names the file ", source, "; expected ", checkpoint_part_prefix, "… of the checkpoint's folder");
            out.insert(folder / source);
        }
    }
}

}  // namespace

std::vector<fs::path> checkpoint_parts(const fs::path& checkpoint) {
    const fs::path index = checkpoint / "checkpoint.h5";
    std::set<fs::path> files{index};
    // Missing sources would read as zeros, so the index says what must be there; it is trusted only when whole.
    if (find_damage(index).empty()) {
        const auto hold = h5::lock();
        collect_sources(h5::open_file(index), checkpoint, files);
    }
    return {files.begin(), files.end()};
}

std::string find_checkpoint_damage(const fs::path& checkpoint, BlockShare share) {
    if (!fs::is_directory(checkpoint)) return checkpoint.string() + ": missing";
    for (const fs::path& file : checkpoint_parts(checkpoint))
        if (std::string damage = find_damage(file, share); !damage.empty()) return damage;
    return {};
}

CheckpointMeta read_checkpoint_meta(const fs::path& checkpoint) {
    const auto hold = h5::lock();
    const h5::File file = open_index(checkpoint);
    CheckpointMeta meta;
    meta.step = h5::int_attribute(file, "step");
    meta.samples = h5::int_attribute(file, "samples");
    meta.model = h5::string_attribute(file, "model");
    meta.input = h5::string_attribute(file, "input");
    meta.identity = h5::string_attribute(file, "identity");
    const std::vector<std::string> vocab = h5::read_strings(file, "vocab");
    if (!vocab.empty()) meta.vocab = vocab.front();
    return meta;
}

bool read_checkpoint(const fs::path& checkpoint, const Stream& stream, const ParamLayout& layout, const ParamState& state,
                     const std::string& optional) {
    const auto hold = h5::lock();
    const h5::File file = open_index(checkpoint);
    const bool moments = state.m() && h5::exists(file, "optimizer/m");
    for (const ParamEntry& entry : layout.entries()) {
        const bool there = h5::exists(file, entry.spec.name);
        if (!there && !optional.empty() && entry.spec.name.starts_with(optional)) continue;
        if (!there) fail_usage(checkpoint.string(), ": tensor ", entry.spec.name, " is missing");
        // Every rank looks at all tensors, so that all meet the same trouble.
        const h5::Dataset set(h5::check(H5Dopen2(file, entry.spec.name.c_str(), H5P_DEFAULT), entry.spec.name));
        if (const Shape found = shape_of(set); found != entry.spec.shape)
            fail_usage(checkpoint.string(), ": tensor ", entry.spec.name, " has shape ", found, ", the model's is ", entry.spec.shape);
        for (int b = 0; b < state.shards().buckets(); ++b) {
            const Range piece = state.shards().piece(b, state.data_rank());
            const Range own{std::max(piece.begin, entry.offset), std::min(piece.end, entry.offset + entry.local.count())};
            if (own.begin >= own.end) continue;
            const std::int64_t at = state.shards().in_shard(b).begin + own.begin - piece.begin;
            const auto fetch = [&](const std::string& name, const Tensor& shard) {
                read_range(file, name, entry, own, stream, shard.part(at, {own.size()}));
            };
            fetch(entry.spec.name, state.master());
            if (!moments) continue;
            fetch("optimizer/m/" + entry.spec.name, state.m());
            fetch("optimizer/v/" + entry.spec.name, state.v());
        }
    }
    return moments;
}

std::vector<std::pair<std::string, Shape>> list_checkpoint(const fs::path& checkpoint) {
    const auto hold = h5::lock();
    const h5::File file = open_index(checkpoint);
    std::vector<std::pair<std::string, Shape>> tensors;
    collect(file, "", tensors);
    std::sort(tensors.begin(), tensors.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    return tensors;
}

CheckpointDigest digest_checkpoint(const fs::path& checkpoint) {
    const auto hold = h5::lock();
    std::uintmax_t room = 0;
    for (const auto& entry : fs::directory_iterator(checkpoint)) room += entry.is_regular_file() ? entry.file_size() : 0;
    const h5::File file = open_index(checkpoint);
    std::string weights, state;
    for (const auto& [name, shape] : list_checkpoint(checkpoint)) {
        const h5::Dataset set(h5::check(H5Dopen2(file, name.c_str(), H5P_DEFAULT), name));
        const h5::Datatype type(H5Dget_type(set));
        const std::int64_t bytes = shape.count() * static_cast<std::int64_t>(H5Tget_size(type));
        if (bytes < 0 || static_cast<std::uintmax_t>(bytes) > room)
            fail_usage(checkpoint.string(), ": tensor ", name, ' ', shape, " does not fit into the files of the checkpoint");
        const Buffer data(bytes);
        h5::check(H5Dread(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data.data()), name);
        const std::string line = message(name, ' ', shape, ' ', digest(data.data(), bytes), '\n');
        (name.starts_with("optimizer/") ? state : weights) += line;
    }
    state = weights + state + message("step ", h5::int_attribute(file, "step"), " samples ", h5::int_attribute(file, "samples"), '\n');
    return {digest(weights.data(), static_cast<std::int64_t>(weights.size())), digest(state.data(), static_cast<std::int64_t>(state.size()))};
}

}  // namespace rf
