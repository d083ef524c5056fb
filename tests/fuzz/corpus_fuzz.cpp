/// A corpus shard. Even inputs are flips of a whole one, whose digest must find them; odd ones are shards of any content whose digest agrees:
/// refused, or every document can be read.

#include "data/corpus.hpp"
#include "io/files.hpp"
#include "io/schema.hpp"
#include "tests/fuzz/hdf5_edits.hpp"

namespace {

namespace names = rf::schema::corpus;

void make(const std::string& path, rf::fuzz::Bytes& bytes, bool whole) {
    using namespace rf;
    const auto hold = h5::lock();
    h5::File file = h5::create_file(path);
    const auto text = [&](hid_t object, const char* name, const std::string& value) {
        if (whole) h5::set_attribute(object, name, value);
        else fuzz::put_attribute(object, name, value, bytes);
    };
    const auto number = [&](const char* name, std::int64_t value) {
        if (whole || bytes.below(8)) h5::set_attribute(file, name, value);
        else fuzz::put_attribute(file, name, "7", bytes);
    };
    text(file, schema::kind, schema::kind_corpus);
    number(schema::version, 1);
    text(file, names::vocab_digest, "0123456789abcdef0123456789abcdef");
    number(names::vocab_size, 400);
    for (const char* name : {names::segmenter, names::tokenizer, names::sources}) text(file, name, "{}");
    number(names::shard, 0);
    number(names::shards, 1);
    number(names::first_document, 0);
    number(names::documents, 2);
    const std::vector<std::uint16_t> tokens{5, 6, 7, 8, 9};
    const std::vector<std::uint8_t> words{21};
    const std::vector<std::uint64_t> offsets{0, 2, 5};
    const std::uint32_t odd = whole ? 0 : bytes.below(16);
    const auto add = [&](std::uint32_t bit, const char* name, const auto& list) {
        if (odd & bit) fuzz::put_dataset(file, name, bytes);
        else h5::write_vector(file, name, list, {"1", ""});
        const h5::Dataset set(H5Dopen2(file, name, H5P_DEFAULT));
        if (set >= 0 && !(odd & 8)) h5::set_attribute(set, names::digest, "d");
    };
    add(1, names::tokens, tokens);
    add(2, names::word_start, words);
    add(4, names::document_offsets, offsets);
    h5::close_file(file, path);
}

void read(const std::string& path) {
    const rf::Corpus corpus(boost::json::string(path), {"input.json", "corpus"});
    std::int64_t sum = 0;
    for (std::int64_t d = 0; d < corpus.documents(); ++d) {
        const rf::Corpus::Document document = corpus.document(d);
        for (std::size_t t = 0; t < document.tokens.size(); ++t) sum += document.tokens[t] + document.starts_word(static_cast<std::int64_t>(t));
    }
    rf::fuzz::demand(sum >= 0);
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace rf;
    fuzz::Bytes bytes(data, size);
    const std::string path = (fuzz::folder() / "shard.h5").string();
    if (bytes.byte() % 2) {
        make(path, bytes, false);
        write_digest(path, {});
        fuzz::may_refuse([&] { read(path); });
        return 0;
    }
    static const std::string good = [&] {
        make(path, bytes, true);
        return read_file(path);
    }();
    static const std::string sum = (write_file(path, good), write_digest(path, {}), read_file(path + ".digest"));
    std::string shard = good, digest = sum;
    for (int n = 0; n < 4 && !bytes.empty(); ++n) {
        std::string& where = bytes.byte() % 4 ? shard : digest;
        const std::size_t at = bytes.below(1 << 16) % std::max<std::size_t>(1, where.size());
        const std::uint8_t how = bytes.byte();
        if (how == 255) where.resize(at);
        else if (at < where.size()) where[at] = static_cast<char>(where[at] ^ how);
    }
    write_file(path, shard);
    write_file(path + ".digest", digest);
    const bool same = shard == good && digest == sum;
    fuzz::demand(find_damage(path).empty() == same);
    if (same) read(path);
    else fuzz::may_refuse([&] {
        read(path);
        std::abort();  // damage came through
    });
    return 0;
}
