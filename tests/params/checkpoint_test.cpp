#include "params/checkpoint.hpp"

#include "io/files.hpp"
#include "params/initialise.hpp"

#include <boost/test/unit_test.hpp>

#include <cstdlib>
#include <fstream>

using namespace rf;
namespace fs = std::filesystem;

namespace {

Communicator& world() {
    static int argc = 0;
    static char** argv = nullptr;
    static World all(argc, argv);
    return all.communicator();
}

/// A fresh folder that all ranks see, removed at the end.
struct Folder {
    fs::path path;
    Folder() {
        std::string name = (fs::temp_directory_path() / "roformer-checkpoint-XXXXXX").string();
        if (world().rank() == 0 && !mkdtemp(name.data())) BOOST_FAIL("no temporary folder");
        world().broadcast(name, 0);
        path = name;
    }
    ~Folder() {
        world().barrier();
        if (world().rank() == 0) fs::remove_all(path);
    }
};

/// A rank's share of a small model: vocabulary and inner units do not divide evenly; several buckets.
struct Model {
    ParallelGrid grid;
    ParamLayout layout;
    ParamState state;
    Stream stream;

    explicit Model(std::int64_t tensor_size, bool moments = true, std::int64_t inner = 70)
        : grid(world(), tensor_size), layout(make(grid, inner)), state(layout, grid, Device::cpu, Dtype::f32, moments, /*bucket=*/1) {}
    static ParamLayout make(const ParallelGrid& grid, std::int64_t inner) {
        ParamLayout layout(grid.tensor->rank(), grid.tensor->size());
        layout.add({.name = "embedding/word", .shape = {1001, 16}, .split_axis = 0, .fan = 16});
        layout.add({.name = "embedding/segment", .shape = {2, 16}, .fan = 16});
        layout.add({.name = "layer/qkv", .shape = {3, 4, 4, 16}, .split_axis = 1, .fan = 16, .tensors = 3});
        layout.add({.name = "layer/down", .shape = {16, inner}, .split_axis = 1, .fan = 70});
        return layout;
    }
    /// Weights and moments that differ from each other, the same whatever the split.
    void initialise(std::uint64_t seed) {
        rf::initialise(layout, seed, 1, state.master(), state.shards(), state.data_rank());
        if (!state.m()) return;
        rf::initialise(layout, seed + 1, 1, state.m(), state.shards(), state.data_rank());
        rf::initialise(layout, seed + 2, 1, state.v(), state.shards(), state.data_rank());
    }
    bool has(std::uint64_t seed) const {
        Model expected(grid.tensor->size());
        expected.initialise(seed);
        const auto same = [](const Tensor& a, const Tensor& b) { return std::equal(a.as<float>(), a.as<float>() + a.count(), b.as<float>()); };
        return same(state.master(), expected.state.master()) && same(state.m(), expected.state.m()) && same(state.v(), expected.state.v());
    }
};

CheckpointMeta meta(std::int64_t step) {
    return {.step = step, .samples = 16 * step, .model = "{\"a\":1}", .input = "{\"b\":2}", .identity = "{\"c\":3}", .vocab = "[PAD]\n中\n"};
}

void write(const fs::path& folder, std::int64_t tensor_size, std::int64_t step, std::uint64_t seed, std::int64_t keep = 10) {
    Model model(tensor_size);
    model.initialise(seed);
    CheckpointWriter writer(folder, model.grid, model.layout, keep);
    writer.start(model.stream, model.state, meta(step));
    model.initialise(seed + 100);  // the next update may run at once
    writer.finish();
    if (world().rank() == 0) BOOST_TEST(writer.last_durable() == step);
    world().barrier();
}

std::vector<std::int64_t> splits() {
    std::vector<std::int64_t> sizes;
    for (std::int64_t t = 1; t <= world().size(); t *= 2) sizes.push_back(t);
    return sizes;
}

}  // namespace

BOOST_AUTO_TEST_CASE(any_split_reads_what_any_other_wrote) {
    for (const std::int64_t from : splits()) {
        const Folder folder;
        write(folder.path, from, 12, 5);
        const fs::path checkpoint = checkpoint_path(folder.path, 12);
        BOOST_TEST(find_checkpoint_damage(checkpoint) == "");
        for (const std::int64_t to : splits()) {
            Model model(to);
            BOOST_TEST(read_checkpoint(checkpoint, model.stream, model.layout, model.state));
            BOOST_TEST(model.has(5), "written by " << from << ", read by " << to << " tensor ranks");
        }
        // One rank alone, as tools read it.
        const auto self = make_self_communicator();
        const ParallelGrid alone(*self, 1);
        const ParamLayout layout = Model::make(alone, 70);
        const ParamState weights(layout, alone, Device::cpu, Dtype::f32, false);
        BOOST_TEST(!read_checkpoint(checkpoint, Stream(), layout, weights));  // no place for moments
        std::vector<float> expected(static_cast<std::size_t>(weights.shard_size()), 0);
        initialise(layout, 5, 1, view(expected.data(), {weights.shard_size()}), weights.shards(), 0);
        BOOST_TEST(std::equal(expected.begin(), expected.end(), weights.master().as<float>()));
        world().barrier();
    }
}

BOOST_AUTO_TEST_CASE(digests_are_those_of_the_logical_state) {
    std::vector<CheckpointDigest> digests;
    for (const std::int64_t tensor : splits()) {
        const Folder folder;
        write(folder.path, tensor, 3, 5);
        digests.push_back(digest_checkpoint(checkpoint_path(folder.path, 3)));
        world().barrier();
    }
    for (const CheckpointDigest& d : digests) {
        BOOST_TEST(d.weights == digests[0].weights);
        BOOST_TEST(d.state == digests[0].state);
    }
    const Folder folder;
    write(folder.path, 1, 3, 6);
    write(folder.path, 1, 4, 5);
    const CheckpointDigest other = digest_checkpoint(checkpoint_path(folder.path, 3)), later = digest_checkpoint(checkpoint_path(folder.path, 4));
    BOOST_TEST(other.weights != digests[0].weights);
    BOOST_TEST(later.weights == digests[0].weights);
    BOOST_TEST(later.state != digests[0].state);  // the step belongs to the state
}

BOOST_AUTO_TEST_CASE(what_it_says_besides_its_tensors_comes_back) {
    const Folder folder;
    write(folder.path, 1, 7, 5);
    const CheckpointMeta read = read_checkpoint_meta(checkpoint_path(folder.path, 7)), expected = meta(7);
    BOOST_TEST(read.step == expected.step);
    BOOST_TEST(read.samples == expected.samples);
    BOOST_TEST(read.model == expected.model);
    BOOST_TEST(read.input == expected.input);
    BOOST_TEST(read.identity == expected.identity);
    BOOST_TEST(read.vocab == expected.vocab);
    const auto tensors = list_checkpoint(checkpoint_path(folder.path, 7));
    BOOST_TEST(tensors.size() == 12U);  // four tensors, each with two moments
    BOOST_TEST(tensors[1].first == "embedding/word");
    BOOST_TEST((tensors[1].second == Shape{1001, 16}));
}

BOOST_AUTO_TEST_CASE(a_flipped_byte_anywhere_is_found) {
    const Folder folder;
    write(folder.path, world().size(), 1, 5);
    const fs::path checkpoint = checkpoint_path(folder.path, 1);
    if (world().rank() == 0) {
        std::vector<fs::path> files;
        for (const auto& entry : fs::directory_iterator(checkpoint)) files.push_back(entry.path());
        BOOST_TEST(files.size() == 2U * (static_cast<std::size_t>(world().size()) + 1));
        for (const fs::path& file : files) {
            const auto size = static_cast<std::int64_t>(fs::file_size(file));
            for (const std::int64_t at : {std::int64_t{0}, size / 3, size / 2, size - 1}) {
                std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
                const auto flip = [&] {
                    stream.seekg(at);
                    const char byte = static_cast<char>(stream.get() ^ 4);
                    stream.seekp(at);
                    stream.put(byte).flush();
                };
                flip();
                const std::string damage = find_checkpoint_damage(checkpoint);
                BOOST_TEST(damage.find(file.filename().string()) != std::string::npos, "byte " << at << " of " << file.filename() << ": \"" << damage << '"');
                flip();
            }
        }
        BOOST_TEST(find_checkpoint_damage(checkpoint) == "");
    }
    world().barrier();
}

BOOST_AUTO_TEST_CASE(what_is_read_has_been_checked) {
    const Folder folder;
    write(folder.path, world().size(), 1, 5);
    const fs::path checkpoint = checkpoint_path(folder.path, 1);
    const auto read = [&] {
        const auto self = make_self_communicator();
        const ParallelGrid alone(*self, 1);
        const ParamLayout layout = Model::make(alone, 70);
        const ParamState state(layout, alone, Device::cpu, Dtype::f32, true);
        read_checkpoint(checkpoint, Stream(), layout, state);
    };
    const auto refused = [&](const fs::path& file, const std::string& why) {
        BOOST_CHECK_EXCEPTION(read(), Damage, [&](const Damage& e) {
            const std::string text = e.what();
            return text.find(file.filename().string()) != std::string::npos && text.find(why) != std::string::npos;
        });
        BOOST_CHECK_THROW(digest_checkpoint(checkpoint), Damage);
    };
    if (world().rank() == 0) {
        for (const fs::path& file : checkpoint_parts(checkpoint)) {
            const std::string bytes = read_file(file);
            const auto put = [&](const std::string& text) { std::ofstream(file, std::ios::binary) << text; };
            for (const std::size_t at : {std::size_t{0}, bytes.size() / 2, bytes.size() - 1}) {
                std::string other = bytes;
                other[at] = static_cast<char>(other[at] ^ 4);
                put(other);
                refused(file, "differ from their digest");
            }
            put(bytes.substr(0, bytes.size() - 1));
            refused(file, "truncated");
            put(bytes);
            if (file.filename() == "checkpoint.h5") continue;
            fs::remove(file);  // HDF5 alone would show zeros
            refused(file, "missing");
            put(bytes);
        }
        BOOST_CHECK_NO_THROW(read());
    }
    world().barrier();
}

BOOST_AUTO_TEST_CASE(a_missing_or_shortened_file_is_found) {
    const Folder folder;
    if (world().rank() == 0) BOOST_TEST(find_checkpoint_damage(folder.path / "step-00000099").find("missing") != std::string::npos);
    write(folder.path, 1, 1, 5);
    const fs::path checkpoint = checkpoint_path(folder.path, 1), part = checkpoint / "part-000-00000.h5";
    if (world().rank() == 0) {
        const std::string bytes = read_file(part), digest = read_file(part.string() + ".digest");
        const auto put = [](const fs::path& path, const std::string& text) { std::ofstream(path, std::ios::binary) << text; };
        fs::resize_file(part, bytes.size() - 1);
        BOOST_TEST(find_checkpoint_damage(checkpoint).find("truncated") != std::string::npos);
        fs::remove(part);
        BOOST_TEST(find_checkpoint_damage(checkpoint).find("part-000-00000.h5: missing") != std::string::npos);
        // Without its digest too: HDF5 would show its tensors as zeros.
        fs::remove(part.string() + ".digest");
        BOOST_TEST(find_checkpoint_damage(checkpoint).find("part-000-00000.h5: missing") != std::string::npos);
        put(part, bytes);
        BOOST_TEST(find_checkpoint_damage(checkpoint).find("digest") != std::string::npos);
        put(part.string() + ".digest", digest);
        BOOST_TEST(find_checkpoint_damage(checkpoint) == "");
        fs::remove(checkpoint / "checkpoint.h5");
        BOOST_TEST(find_checkpoint_damage(checkpoint).find("checkpoint.h5") != std::string::npos);
    }
    world().barrier();
}

BOOST_AUTO_TEST_CASE(the_newest_are_kept_and_older_ones_retired) {
    const Folder folder;
    for (const std::int64_t step : {2, 4, 6, 8}) write(folder.path, 1, step, 5, 2);
    BOOST_TEST((checkpoint_steps(folder.path) == std::vector<std::int64_t>{8, 6}));
    // One written again after a return to an older state: newer ones are none of its business.
    write(folder.path, 1, 7, 5, 2);
    BOOST_TEST((checkpoint_steps(folder.path) == std::vector<std::int64_t>{8, 7, 6}));
}

BOOST_AUTO_TEST_CASE(partial_and_foreign_folders_are_ignored) {
    const Folder folder;
    write(folder.path, 1, 5, 5);
    if (world().rank() == 0)
        for (const char* name : {"step-00000009.partial", "step-", "step-12x", "other"}) fs::create_directories(folder.path / name);
    world().barrier();
    BOOST_TEST((checkpoint_steps(folder.path) == std::vector<std::int64_t>{5}));
    world().barrier();
    if (world().rank() == 0) {
        remove_partial_checkpoints(folder.path);
        BOOST_TEST(!fs::exists(folder.path / "step-00000009.partial"));
        BOOST_TEST(fs::exists(folder.path / "other"));
        BOOST_TEST(fs::exists(checkpoint_path(folder.path, 5)));
    }
    BOOST_TEST(checkpoint_steps(folder.path / "absent").empty());
}

BOOST_AUTO_TEST_CASE(a_write_left_by_a_killed_run_is_overwritten) {
    const Folder folder;
    if (world().rank() == 0) {
        fs::create_directories(folder.path / "step-00000005.partial");
        std::ofstream(folder.path / "step-00000005.partial" / "part-000-00000.h5") << "half a file";
    }
    world().barrier();
    write(folder.path, 1, 5, 5);
    if (world().rank() == 0) BOOST_TEST(find_checkpoint_damage(checkpoint_path(folder.path, 5)) == "");
    Model model(1);
    BOOST_TEST(read_checkpoint(checkpoint_path(folder.path, 5), model.stream, model.layout, model.state));
    BOOST_TEST(model.has(5));
}

BOOST_AUTO_TEST_CASE(a_failed_write_is_reported_by_every_rank_and_leaves_the_older_one) {
    const Folder folder;
    write(folder.path, 1, 5, 5);
    Model model(1);
    model.initialise(6);
    CheckpointWriter writer(folder.path, model.grid, model.layout, 1);
    // The last rank's file cannot be made: a folder has its name.
    char name[40];
    std::snprintf(name, sizeof name, "part-000-%05d.h5", world().size() - 1);
    if (world().rank() == 0) fs::create_directories(folder.path / "step-00000006.partial" / name);
    world().barrier();
    writer.start(model.stream, model.state, meta(6));
    try {
        writer.finish();
        BOOST_ERROR("the write succeeded");
    } catch (const Error& e) {
        BOOST_TEST(std::string(e.what()).find("step 6") != std::string::npos);
        BOOST_TEST(std::string(e.what()).find("rank " + std::to_string(world().size() - 1)) != std::string::npos);
    }
    BOOST_TEST((checkpoint_steps(folder.path) == std::vector<std::int64_t>{5}));
}

BOOST_AUTO_TEST_CASE(another_models_checkpoint_is_refused_by_name) {
    const Folder folder;
    write(folder.path, 1, 5, 5);
    Model other(1, true, 72);
    try {
        read_checkpoint(checkpoint_path(folder.path, 5), other.stream, other.layout, other.state);
        // Only the ranks whose shard holds some of the tensor look at it.
        const ParamEntry& down = other.layout.entries().back();
        const Shards& shards = other.state.shards();
        const int rank = other.state.data_rank();
        BOOST_TEST(shards.owned_before(down.offset, rank) == shards.owned_before(down.offset + down.local.count(), rank));
    } catch (const UsageError& e) {
        BOOST_TEST(std::string(e.what()).find("layer/down") != std::string::npos);
    }
    BOOST_CHECK_THROW(read_checkpoint_meta(folder.path), UsageError);
}
