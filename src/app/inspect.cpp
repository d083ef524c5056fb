#include "app/command.hpp"
#include "io/files.hpp"
#include "io/hdf5.hpp"
#include "io/schema.hpp"
#include "model/config.hpp"
#include "params/checkpoint.hpp"

#include <iostream>

namespace rf::app {

namespace fs = std::filesystem;

namespace {

void inspect_checkpoint(const fs::path& path) {
    if (const std::string damage = find_checkpoint_damage(path); !damage.empty()) fail("checkpoint ", damage);
    const CheckpointMeta meta = read_checkpoint_meta(path);
    ModelConfig model;
    json::read(json::parse(meta.model, path.string()), model, {path.string(), "model"});
    std::cout << path.string() << ": checkpoint at step " << meta.step << ", " << meta.samples << " samples read\n"
              << "model " << model.family << " L " << model.num_hidden_layers << " C " << model.hidden_size << " H " << model.num_attention_heads
              << " F " << model.intermediate_size << " V " << model.vocab_size << " residual " << model.residual_mode << ", "
              << model.parameter_count() << " parameters\n";
    for (const auto& [name, shape] : list_checkpoint(path))
        if (!name.starts_with("optimizer/")) std::cout << "tensor " << name << ' ' << shape << '\n';
    const CheckpointDigest digest = digest_checkpoint(path);
    std::cout << "digest weights " << digest.weights << "\ndigest state " << digest.state << '\n';
}

void print_table(hid_t file, const std::string& name) {
    const h5::Group group(h5::check(H5Gopen2(file, name.c_str(), H5P_DEFAULT), name));
    std::string columns;
    std::size_t rows = 0;
    for (const std::string& column : h5::list(group)) {
        columns += (columns.empty() ? "" : " ") + column;
        rows = h5::read_vector<double>(group, column).size();
    }
    std::cout << "table /" << name << ": " << rows << " rows; columns " << columns << '\n';
}

/// Name and extent of every dataset below a group.
void print_datasets(hid_t group, const std::string& prefix, int depth = 0) {
    if (depth > h5::deepest_group) fail("HDF5: ", prefix, ": groups within groups without end");
    for (const std::string& name : h5::list(group)) {
        H5O_info_t info;
        h5::check(H5Oget_info_by_name(group, name.c_str(), &info, H5P_DEFAULT), name);
        if (info.type == H5O_TYPE_GROUP) {
            print_datasets(h5::Group(h5::check(H5Gopen2(group, name.c_str(), H5P_DEFAULT), name)), prefix + name + "/", depth + 1);
            continue;
        }
        const h5::Dataset set(h5::check(H5Dopen2(group, name.c_str(), H5P_DEFAULT), name));
        const h5::Dataspace space(h5::check(H5Dget_space(set), name));
        hsize_t dims[H5S_MAX_RANK] = {};
        const int rank = H5Sget_simple_extent_dims(space, dims, nullptr);
        std::cout << "dataset " << prefix << name << " [";
        for (int i = 0; i < rank; ++i) std::cout << (i ? ", " : "") << dims[i];
        std::cout << "]\n";
    }
}

void inspect_file(const fs::path& path) {
    const auto hold = h5::lock();
    // A digest, where there is one, is checked before the library sees a byte.
    if (fs::exists(path.string() + ".digest") || has_seal(path))
        if (const std::string damage = find_damage(path); !damage.empty()) fail(damage);
    if (H5Fis_hdf5(path.c_str()) <= 0) fail_usage(path.string(), ": not a data file of this program (not HDF5)");
    const h5::File file = h5::open_file(path);
    if (!h5::has_attribute(file, schema::kind)) fail_usage(path.string(), ": not a file of this program (no attribute \"kind\")");
    const std::string kind = h5::string_attribute(file, schema::kind);
    std::cout << path.string() << ": " << kind << ", schema " << h5::int_attribute(file, schema::version) << '\n';
    if (kind == schema::kind_corpus) {
        for (const char* name : {schema::corpus::documents, schema::corpus::shard, schema::corpus::shards, schema::corpus::vocab_size})
            std::cout << name << ' ' << h5::int_attribute(file, name) << '\n';
        for (const char* name : {schema::corpus::vocab_digest, schema::corpus::segmenter, schema::corpus::tokenizer, schema::corpus::sources})
            std::cout << name << ' ' << h5::string_attribute(file, name) << '\n';
        for (const char* name : {schema::corpus::tokens, schema::corpus::word_start, schema::corpus::document_offsets}) {
            const h5::Dataset set(h5::check(H5Dopen2(file, name, H5P_DEFAULT), name));
            const h5::Dataspace space(H5Dget_space(set));
            std::cout << "dataset " << name << " [" << H5Sget_simple_extent_npoints(space) << "] digest "
                      << h5::string_attribute(set, schema::corpus::digest) << '\n';
        }
    } else if (kind == schema::kind_results) {
        for (const char* name : {"train", "eval/mlm"})
            if (h5::exists(file, name)) print_table(file, name);
    } else {
        print_datasets(file, "");
    }
}

}  // namespace

int run_inspect(const Invocation& invocation, World& world) {
    if (invocation.positional.empty()) fail_usage("inspect needs at least one file");
    if (world.communicator().rank() != 0) return 0;
    for (const std::string& name : invocation.positional) {
        fs::path path = name;
        if (!fs::exists(path)) fail_usage(name, " does not exist");
        if (path.filename() == "checkpoint.h5") path = path.parent_path();
        if (fs::is_directory(path) && fs::exists(path / "checkpoint.h5")) {
            inspect_checkpoint(path);
        } else if (fs::is_directory(path)) {
            // An output folder: its newest checkpoint and its results; a corpus folder: its shards.
            bool any = false;
            for (const fs::path& folder : {path / "checkpoints", path})
                if (const auto steps = checkpoint_steps(folder); !any && !steps.empty()) inspect_checkpoint(checkpoint_path(folder, steps.front())), any = true;
            for (const auto& entry : fs::directory_iterator(path))
                if (entry.path().extension() == ".h5") inspect_file(entry.path()), any = true;
            if (!any) fail_usage(name, ": holds no file of this program");
        } else {
            inspect_file(path);
        }
    }
    return 0;
}

}  // namespace rf::app
