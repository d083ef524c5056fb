#include "convert/convert.hpp"

#include "convert/safetensors.hpp"
#include "convert/torch_file.hpp"
#include "io/files.hpp"
#include "io/json.hpp"

#include "tests/scratch.hpp"

#include <boost/test/unit_test.hpp>

#include <cstdlib>
#include <random>

using namespace rf;
using namespace rf::convert;
namespace fs = std::filesystem;

namespace {

fs::path fixture(const char* name) {
    const char* source = std::getenv("RF_SOURCE_DIR");
    return fs::path(source ? source : ".") / "tests/convert/fixtures" / name;
}

struct Kind {
    Format format;
    TorchFile torch_file = TorchFile::safetensors;
    const char* name = "";
    const char* weights = "";  ///< the file of numbers in a folder
};
const std::vector<Kind> kinds = {{Format::hf, TorchFile::safetensors, "hf_safetensors", "model.safetensors"},
                                 {Format::hf, TorchFile::zip, "hf", "pytorch_model.bin"},
                                 {Format::tf, TorchFile::safetensors, "tf", "bert_model.ckpt.data-00000-of-00001"},
                                 {Format::keras, TorchFile::safetensors, "keras", "roformer.v2.weights"}};

Converted to_rf(Format from, const fs::path& in, const fs::path& out) { return convert::convert({.from = from, .to = Format::rf, .in = in, .out = out}); }

std::string weights_digest(const fs::path& checkpoint) { return digest_checkpoint(checkpoint).weights; }

/// The peers' model as a checkpoint of ours.
struct Model {
    test::Scratch scratch;
    fs::path checkpoint = scratch / "model";
    std::string digest;
    Model() {
        to_rf(Format::hf, fixture("hf"), checkpoint);
        digest = weights_digest(checkpoint);
    }
};

/// A copy of a fixture's folder that may be spoilt.
fs::path copy(const test::Scratch& scratch, const char* name) {
    fs::remove_all(scratch / name);
    fs::copy(fixture(name), scratch / name, fs::copy_options::recursive);
    return scratch / name;
}

std::string refused(Format from, const fs::path& in, const test::Scratch& scratch) {
    const fs::path out = scratch / "out";
    const std::string text = test::refusal([&] { to_rf(from, in, out); });
    BOOST_TEST((fs::exists(out) == (text == "no error")));
    BOOST_TEST(!fs::exists(scratch / "out.partial"));
    return text;
}

/// The fixture with one key of its config set, or removed with null.
std::string refused_config(const char* name, const char* file, const char* key, const json::value& value) {
    const test::Scratch scratch;
    const fs::path folder = copy(scratch, name);
    json::value config = json::parse_file((folder / file).string());
    if (value.is_null()) config.as_object().erase(key);
    else config.as_object()[key] = value;
    test::write(folder / file, json::pretty(config));
    return refused(std::string_view(name) == "tf" ? Format::tf : Format::hf, folder, scratch);
}

/// Opens and reads everything.
std::string read_all(Format format, const fs::path& path) {
    return test::refusal([&] {
        const std::unique_ptr<Origin> origin = format == Format::hf ? open_hf(path, {}) : format == Format::tf ? open_tf(path, {}) : open_keras(path, {});
        std::vector<float> data, scratch;
        for (const Weight& weight : origin->content().weights) {
            data.resize(static_cast<std::size_t>(weight.count()));
            origin->read(weight, data.data(), scratch);
        }
    });
}

}  // namespace

BOOST_AUTO_TEST_CASE(what_every_peer_wrote_is_the_same_model) {
    const Model model;
    for (const auto& [format, name] : {std::pair{Format::hf, "hf_legacy"}, {Format::hf, "hf_safetensors"}, {Format::tf, "tf"}, {Format::keras, "keras"}}) {
        to_rf(format, fixture(name), model.scratch / name);
        BOOST_TEST(weights_digest(model.scratch / name) == model.digest, name);
        const CheckpointMeta meta = read_checkpoint_meta(model.scratch / name);
        BOOST_TEST(meta.vocab == read_file(fixture(name) / "vocab.txt"), name);
        BOOST_TEST(find_checkpoint_damage(model.scratch / name).empty());
    }
}

BOOST_AUTO_TEST_CASE(weights_come_back_from_every_format_as_they_were) {
    const Model model;
    for (const Kind& kind : kinds) {
        const fs::path there = model.scratch / "there", back = model.scratch / "back";
        fs::remove_all(there);
        fs::remove_all(back);
        convert::convert({.from = Format::rf, .to = kind.format, .in = model.checkpoint, .out = there, .torch_file = kind.torch_file});
        BOOST_TEST(fs::exists(there / kind.weights), kind.name);
        to_rf(kind.format, there, back);
        BOOST_TEST(weights_digest(back) == model.digest, kind.name);
        const CheckpointMeta meta = read_checkpoint_meta(back), before = read_checkpoint_meta(model.checkpoint);
        BOOST_TEST(meta.model == before.model, kind.name);
        BOOST_TEST(meta.vocab == before.vocab, kind.name);
        for (const Kind& other : kinds) {
            const fs::path across = model.scratch / "across";
            fs::remove_all(across);
            fs::remove_all(back);
            convert::convert({.from = kind.format, .to = other.format, .in = there, .out = across, .torch_file = other.torch_file});
            to_rf(other.format, across, back);
            BOOST_TEST(weights_digest(back) == model.digest, kind.name << " to " << other.name);
        }
    }
}

BOOST_AUTO_TEST_CASE(numbers_are_written_as_the_peers_write_them) {
    // The released layout to the byte: TensorFlow's data file has nothing but numbers in the order of the names.
    const Model model;
    convert::convert({.from = Format::rf, .to = Format::tf, .in = model.checkpoint, .out = model.scratch / "tf"});
    const char* data = "bert_model.ckpt.data-00000-of-00001";
    BOOST_TEST((read_file(model.scratch / "tf" / data) == read_file(fixture("tf") / data)));
    convert::convert({.from = Format::rf, .to = Format::hf, .in = model.checkpoint, .out = model.scratch / "hf"});
    const auto ours = read_safetensors(std::make_unique<Bytes>(model.scratch / "hf/model.safetensors")),
               theirs = read_safetensors(std::make_unique<Bytes>(fixture("hf_safetensors") / "model.safetensors"));
    BOOST_TEST(ours->tensors().size() == theirs->tensors().size());
    for (const auto& [name, info] : theirs->tensors()) {
        BOOST_REQUIRE(ours->tensors().contains(name));
        BOOST_TEST(ours->tensors().at(name).dims == info.dims, boost::test_tools::per_element());
    }
}

BOOST_AUTO_TEST_CASE(a_file_of_keras_alone_holds_model_and_vocabulary) {
    const Model model;
    convert::convert({.from = Format::rf, .to = Format::keras, .in = model.checkpoint, .out = model.scratch / "one.h5"});
    BOOST_TEST(fs::is_regular_file(model.scratch / "one.h5"));
    to_rf(Format::keras, model.scratch / "one.h5", model.scratch / "back");
    BOOST_TEST(weights_digest(model.scratch / "back") == model.digest);
    BOOST_TEST(read_checkpoint_meta(model.scratch / "back").vocab == read_checkpoint_meta(model.checkpoint).vocab);
}

BOOST_AUTO_TEST_CASE(nothing_is_overwritten) {
    const Model model;
    for (const char* name : {"folder", "file"}) {
        if (std::string_view(name) == "folder") fs::create_directory(model.scratch / name);
        else test::write(model.scratch / name, "mine");
        RF_TEST_HOLDS(test::refusal([&] { to_rf(Format::hf, fixture("hf"), model.scratch / name); }), "exists already");
    }
    BOOST_TEST(read_file(model.scratch / "file") == "mine");
    RF_TEST_HOLDS(test::refusal([&] { to_rf(Format::hf, fixture("hf"), model.scratch / "no/such/folder"); }), "is no folder");
    RF_TEST_HOLDS(test::refusal([&] { to_rf(Format::hf, model.scratch / "absent", model.scratch / "x"); }), "does not exist");
}

BOOST_AUTO_TEST_CASE(configs_of_other_models_are_refused) {
    const char* config = "config.json";
    RF_TEST_HOLDS(refused_config("hf", config, "norm_type", "layer_norm"), "RoFormer of the first version");
    RF_TEST_HOLDS(refused_config("hf", config, "norm_type", nullptr), "RoFormer of the first version");
    RF_TEST_HOLDS(refused_config("hf", config, "use_bias", true), "a model with biases");
    RF_TEST_HOLDS(refused_config("hf", config, "model_type", "bert"), "model_type \"bert\"");
    RF_TEST_HOLDS(refused_config("hf", config, "hidden_act", "gelu"), "hidden_act \"gelu\"");
    RF_TEST_HOLDS(refused_config("tf", "bert_config.json", "hidden_act", "gelu"), "BERT or RoFormer");
    for (const auto& [key, value] : std::vector<std::pair<const char*, json::value>>{{"rotary_value", true}, {"rope_style", "half"}, {"is_neox_style", true},
                                                                                   {"rope_interleaved", false}, {"rotate_half", true}, {"rope_theta", 500000},
                                                                                   {"rope_scaling", {{"type", "linear"}}}, {"rotary_layout", 2}}) {
        const std::string text = refused_config("hf", config, key, value);
        RF_TEST_HOLDS(text, key);
        RF_TEST_HOLDS(text, "interleaved pairs");
    }
    for (const auto& [key, value] : std::vector<std::pair<const char*, json::value>>{{"rope_theta", 10000}, {"rope_interleaved", true}, {"is_neox_style", false}})
        BOOST_TEST(refused_config("hf", config, key, value) == "no error", key);
    RF_TEST_HOLDS(refused_config("hf", config, "embedding_size", 16), "embedding_size");
    RF_TEST_HOLDS(refused_config("hf", config, "hidden_size", nullptr), "hidden_size: missing");
    RF_TEST_HOLDS(refused_config("hf", config, "num_attention_heads", 5), "5 heads do not divide");
    RF_TEST_HOLDS(refused_config("hf", config, "vocab_size", 121), "a vocabulary of 120 entries");
}

BOOST_AUTO_TEST_CASE(missing_and_misshapen_tensors_are_listed) {
    const std::string shape = refused_config("hf", "config.json", "intermediate_size", 64);
    RF_TEST_HOLDS(shape, "encoder.layer.1.intermediate.dense.weight is [48, 32], expected [64, 32]");
    RF_TEST_HOLDS(shape, "encoder.layer.0.output.dense.weight is [32, 48], expected [32, 64]");
    const std::string missing = refused_config("tf", "bert_config.json", "num_hidden_layers", 3);
    RF_TEST_HOLDS(missing, "missing: bert/encoder/layer_2/attention/self/query/kernel");
    RF_TEST_HOLDS(missing, "bert/encoder/layer_2/output/dense/kernel");
    RF_TEST_HOLDS(refused_config("hf", "config.json", "num_hidden_layers", 1), "unexpected: roformer.encoder.layer.1.");
}

BOOST_AUTO_TEST_CASE(weights_of_the_first_version_and_of_bert_are_refused) {
    const test::Scratch scratch;
    const fs::path folder = copy(scratch, "hf_safetensors");
    const auto source = read_safetensors(std::make_unique<Bytes>(folder / "model.safetensors"));
    TensorList list;
    for (const auto& [name, info] : source->tensors()) list.emplace_back(name, info.dims);
    list.emplace_back("roformer.encoder.layer.0.attention.output.LayerNorm.weight", Dims{32});
    list.emplace_back("roformer.encoder.layer.0.attention.self.query.bias", Dims{32});
    fs::remove(folder / "model.safetensors");
    const auto writer = write_safetensors(folder / "model.safetensors", list);
    std::vector<float> data(120 * 32);
    for (const auto& tensor : list) {
        if (source->tensors().contains(tensor.first)) source->read(tensor.first, data.data());
        writer->write(data.data());
    }
    writer->finish();
    const std::string text = refused(Format::hf, folder, scratch);
    RF_TEST_HOLDS(text, "RoFormer of the first version or BERT");
    RF_TEST_HOLDS(text, "attention.self.query.bias");
}

BOOST_AUTO_TEST_CASE(a_decoder_of_its_own_is_refused) {
    const test::Scratch scratch;
    const fs::path folder = copy(scratch, "hf");
    const auto source = read_torch(std::make_unique<Bytes>(fixture("hf") / "pytorch_model.bin"));
    TensorList list;
    for (const auto& [name, info] : source->tensors()) list.emplace_back(name, info.dims);
    fs::remove(folder / "pytorch_model.bin");
    const auto writer = write_torch(folder / "pytorch_model.bin", list, {});
    std::vector<float> data(120 * 32);
    for (const auto& tensor : list) {
        source->read(tensor.first, data.data());
        if (tensor.first.starts_with("cls.")) data[7] += 1;
        writer->write(data.data());
    }
    writer->finish();
    RF_TEST_HOLDS(refused(Format::hf, folder, scratch), "cls.predictions.decoder.weight differs from");
}

BOOST_AUTO_TEST_CASE(a_vocabulary_of_another_size_is_refused) {
    const test::Scratch scratch;
    for (const char* name : {"hf", "tf", "keras"}) {
        const fs::path folder = copy(scratch, name);
        test::write(folder / "vocab.txt", read_file(folder / "vocab.txt") + "more\n");
        RF_TEST_HOLDS(refused(name[0] == 'h' ? Format::hf : name[0] == 't' ? Format::tf : Format::keras, folder, scratch), "a vocabulary of 121 entries, the model has 120");
    }
}

BOOST_AUTO_TEST_CASE(without_a_config_heads_of_64_channels_are_assumed_or_asked_for) {
    const test::Scratch scratch;
    const fs::path folder = copy(scratch, "tf");
    fs::remove(folder / "bert_config.json");
    RF_TEST_HOLDS(refused(Format::tf, folder, scratch), "32 channels are no multiple of the released heads' 64; give the model's shape with --config");
    const OriginOptions options{.config = (fixture("tf") / "bert_config.json").string()};
    convert::convert({.from = Format::tf, .to = Format::rf, .in = folder, .out = scratch / "out", .origin = options});
    BOOST_TEST(fs::exists(scratch / "out/checkpoint.h5"));
}

BOOST_AUTO_TEST_CASE(files_cut_anywhere_are_one_clear_error) {
    std::mt19937 random(5);
    for (const auto& [format, name, file] : {std::tuple{Format::hf, "hf_safetensors", "model.safetensors"}, {Format::hf, "hf", "pytorch_model.bin"},
                                             {Format::hf, "hf_legacy", "pytorch_model.bin"}, {Format::tf, "tf", "bert_model.ckpt.index"},
                                             {Format::tf, "tf", "bert_model.ckpt.data-00000-of-00001"}, {Format::keras, "keras", "roformer.v2.weights"}}) {
        const test::Scratch scratch;
        const fs::path folder = copy(scratch, name);
        BOOST_TEST(read_all(format, folder) == "no error");
        const std::string whole = read_file(folder / file);
        for (int i = 0; i < 200; ++i) {
            const std::size_t size = i == 0 ? whole.size() - 1 : i == 1 ? 0 : random() % whole.size();
            test::write(folder / file, std::string_view(whole).substr(0, size));
            const std::string text = read_all(format, folder);
            BOOST_TEST(text != "no error", name << '/' << file << " cut to " << size << " bytes");
            // The cut file is named, or the index that tells what it should hold.
            RF_TEST_HOLDS(text, (folder / (format == Format::tf ? "bert_model.ckpt" : file)).string());
        }
    }
}

BOOST_AUTO_TEST_CASE(changed_bytes_are_read_or_refused_and_nothing_else) {
    std::mt19937 random(6);
    for (const auto& [format, name, file, checked] : {std::tuple{Format::hf, "hf_safetensors", "model.safetensors", false}, {Format::hf, "hf", "pytorch_model.bin", false},
                                                      {Format::hf, "hf_legacy", "pytorch_model.bin", false}, {Format::tf, "tf", "bert_model.ckpt.index", true},
                                                      {Format::tf, "tf", "bert_model.ckpt.data-00000-of-00001", true},
                                                      {Format::keras, "keras", "roformer.v2.weights", false}}) {
        const test::Scratch scratch;
        const fs::path folder = copy(scratch, name);
        const std::string whole = read_file(folder / file);
        for (int i = 0; i < 300; ++i) {
            std::string other = whole;
            // Most of a file is numbers; its description is at one end.
            const std::size_t at = i % 2 ? random() % whole.size() : i % 4 ? random() % std::min<std::size_t>(whole.size(), 4096) : whole.size() - 1 - random() % std::min<std::size_t>(whole.size(), 2048);
            other[at] = static_cast<char>(other[at] ^ (1 << random() % 8));
            test::write(folder / file, other);
            const std::string text = read_all(format, folder);
            if (checked) BOOST_TEST(text != "no error", file << " changed at byte " << at);
        }
    }
}

BOOST_AUTO_TEST_CASE(a_keras_file_that_ends_the_library_is_refused) {
    // Each of these bytes made HDF5 1.10 crash.
    const test::Scratch scratch;
    const fs::path folder = copy(scratch, "keras"), file = folder / "roformer.v2.weights";
    const std::string whole = read_file(file);
    for (const auto& [at, bits] : {std::pair{2130, 252}, {2135, 13}, {2710, 212}, {2852, 144}, {3606, 48}}) {
        std::string other = whole;
        other[static_cast<std::size_t>(at)] = static_cast<char>(other[static_cast<std::size_t>(at)] ^ bits);
        test::write(file, other);
        RF_TEST_HOLDS(read_all(Format::keras, folder), file.string());
    }
}
