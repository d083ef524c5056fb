#include "data/corpus.hpp"

#include "core/philox.hpp"
#include "io/files.hpp"
#include "io/hdf5.hpp"
#include "io/schema.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <map>

namespace rf {

namespace fs = std::filesystem;

/// One mapped shard.
struct Corpus::Shard {
    std::string path, sources;
    std::int64_t shards = 0;  ///< of the whole corpus
    void* map = MAP_FAILED;
    std::size_t size = 0;
    const std::uint16_t* tokens = nullptr;
    const std::uint8_t* word_start = nullptr;
    const std::byte* offsets = nullptr;  ///< u64; a file of other origin need not align them
    std::uint64_t offset(std::int64_t document) const {
        std::uint64_t value = 0;
        std::memcpy(&value, offsets + document * 8, 8);
        return value;
    }
    ~Shard() {
        if (map != MAP_FAILED) munmap(map, size);
    }
};

Corpus::~Corpus() = default;
Corpus::Corpus(Corpus&&) noexcept = default;

namespace {

void add_paths(const json::value& where, const json::Place& place, std::vector<std::string>& paths) {
    if (where.is_array()) {
        for (const json::value& item : where.as_array()) add_paths(item, place, paths);
        return;
    }
    if (!where.is_string() || where.as_string().empty()) json::fail_type(place, "a corpus shard, a folder or a list of them", where);
    const std::string path(where.as_string());
    if (!fs::exists(path)) fail_usage(place, ": ", path, " does not exist (build it with: roformer build-corpus)");
    if (!fs::is_directory(path)) {
        paths.push_back(path);
        return;
    }
    const std::size_t before = paths.size();
    for (const auto& entry : fs::directory_iterator(path))
        if (entry.path().extension() == ".h5") paths.push_back(entry.path().string());
    std::sort(paths.begin() + static_cast<std::ptrdiff_t>(before), paths.end());
    if (fs::exists(fs::path(path) / ".partial") && !fs::exists(fs::path(path) / "corpus.json"))
        fail_usage(place, ": the corpus in ", path, " is not complete (its build was interrupted or still runs; the same build-corpus command continues it)");
    if (paths.size() == before) fail_usage(place, ": the folder ", path, " holds no corpus shard (*.h5)");
    // Shards are named corpus-<number>-of-<count>.h5; one that is missing would go unnoticed otherwise.
    const std::string last = fs::path(paths.back()).stem().string();
    const std::size_t of = last.rfind("-of-");
    const std::size_t found = paths.size() - before;
    const long long expected = of == std::string::npos ? 0 : std::atoll(last.c_str() + of + 4);
    if (expected > 0 && found != static_cast<std::size_t>(expected))
        fail_usage(place, ": the folder ", path, " holds ", found, " of the ", expected, " shards of its corpus");
}

/// Byte offset and length of a contiguous dataset.
std::pair<std::uint64_t, std::uint64_t> contiguous(hid_t file, const char* name, std::uint64_t item, const std::string& path) {
    const h5::Dataset set(h5::check(H5Dopen2(file, name, H5P_DEFAULT), path + ": " + name));
    const h5::Dataspace space(h5::check(H5Dget_space(set), path));
    const auto count = static_cast<std::uint64_t>(H5Sget_simple_extent_npoints(space));
    const haddr_t offset = count ? H5Dget_offset(set) : 0;
    const h5::Datatype type(H5Dget_type(set));
    if (offset == HADDR_UNDEF || H5Tget_size(type) != item)
        fail_usage(path, ": dataset ", name, " is not contiguous with ", item, "-byte items (not a corpus shard of this program)");
    return {offset, count};
}

}  // namespace

void Corpus::open_shard(const std::string& path) {
    auto shard = std::make_unique<Shard>();
    shard->path = path;
    const auto hold = h5::lock();
    const h5::File file = h5::open_file(path);
    if (!h5::has_attribute(file, schema::kind) || h5::string_attribute(file, schema::kind) != schema::kind_corpus)
        fail_usage(path, ": not a corpus shard (attribute \"kind\" expected to be \"", schema::kind_corpus, "\")");
    const auto [tokens_at, tokens] = contiguous(file, schema::corpus::tokens, 2, path);
    const auto [words_at, words] = contiguous(file, schema::corpus::word_start, 1, path);
    const auto [offsets_at, offsets] = contiguous(file, schema::corpus::document_offsets, 8, path);
    const std::string vocab = h5::string_attribute(file, schema::corpus::vocab_digest);
    const std::string segmenter = h5::string_attribute(file, schema::corpus::segmenter);
    const std::int64_t vocab_size = h5::int_attribute(file, schema::corpus::vocab_size);
    shard->sources = h5::string_attribute(file, schema::corpus::sources);
    shard->shards = h5::int_attribute(file, schema::corpus::shards);
    if (shards_.empty()) vocab_digest_ = vocab, segmenter_ = segmenter, vocab_size_ = vocab_size;
    if (vocab != vocab_digest_)
        fail_usage(path, ": built with another vocabulary (", vocab, ") than ", shards_.front()->path, " (", vocab_digest_, ")");

    const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) fail_usage("cannot open ", path, ": ", std::strerror(errno));
    shard->size = fs::file_size(path);
    shard->map = mmap(nullptr, shard->size, PROT_READ, MAP_SHARED, descriptor, 0);
    ::close(descriptor);
    if (shard->map == MAP_FAILED) fail("cannot map ", path, ": ", std::strerror(errno));
    const auto* base = static_cast<const char*>(shard->map);
    if (offsets_at + offsets * 8 > shard->size || tokens_at + tokens * 2 > shard->size || words_at + words > shard->size ||
        offsets < 1 || words < (tokens + 7) / 8)
        fail_usage(path, ": truncated shard");
    shard->tokens = reinterpret_cast<const std::uint16_t*>(base + tokens_at);
    shard->word_start = reinterpret_cast<const std::uint8_t*>(base + words_at);
    shard->offsets = reinterpret_cast<const std::byte*>(base + offsets_at);
    const auto documents = static_cast<std::int64_t>(offsets) - 1;
    bool rising = true;
    for (std::int64_t d = 0; d < documents; ++d) rising = rising && shard->offset(d) <= shard->offset(d + 1);
    if (!rising || shard->offset(0) != 0 || shard->offset(documents) != tokens)
        fail_usage(path, ": document_offsets do not cover the tokens");
    tokens_ += static_cast<std::int64_t>(tokens);
    first_.push_back(first_.back() + documents);
    digest_ += h5::string_attribute(h5::Dataset(h5::check(H5Dopen2(file, schema::corpus::tokens, H5P_DEFAULT), path)), schema::corpus::digest);
    digest_ += h5::string_attribute(h5::Dataset(h5::check(H5Dopen2(file, schema::corpus::document_offsets, H5P_DEFAULT), path)),
                                    schema::corpus::digest);
    shards_.push_back(std::move(shard));
}

/// A folder holds all shards of a corpus or none: a copy or a build cut short is not trained on unnoticed.
void Corpus::check_folders(const json::value& where, const json::Place& place) const {
    if (where.is_array()) {
        for (const json::value& item : where.as_array()) check_folders(item, place);
        return;
    }
    const fs::path folder(std::string(where.as_string()));
    if (!fs::is_directory(folder)) return;
    std::map<std::string, std::pair<std::int64_t, std::int64_t>> found;  // by sources: shards there, shards expected
    for (const auto& shard : shards_) {
        if (!fs::equivalent(fs::absolute(shard->path).parent_path(), folder)) continue;
        auto& [there, expected] = found[shard->sources];
        ++there;
        expected = shard->shards;
    }
    for (const auto& [sources, count] : found)
        if (count.first != count.second)
            fail_usage(place, ": the folder ", folder.string(), " holds ", count.first, " of the ", count.second,
                       " shards of a corpus (a copy or a build cut short; name the files to read them alone)");
}

std::string find_corpus_damage(const json::value& where, const json::Place& place, int part, int parts) {
    std::vector<std::string> paths;
    add_paths(where, place, paths);
    for (const std::string& path : paths)
        if (const std::string damage = find_damage(path, {.part = part, .parts = parts}); !damage.empty()) return "corpus shard " + damage;
    return {};
}

Corpus::Corpus(const json::value& where, const json::Place& place, Check check) {
    if (check == Check::digests)
        if (const std::string damage = find_corpus_damage(where, place); !damage.empty()) throw UsageError(damage);
    std::vector<std::string> paths;
    add_paths(where, place, paths);
    for (const std::string& path : paths) open_shard(path);
    check_folders(where, place);
    release_pages();  // of all document offsets
    if (documents() == 0) fail_usage(place, ": the corpus holds no document");
    digest_ = rf::digest(digest_.data(), static_cast<std::int64_t>(digest_.size()));
}

void Corpus::release_pages() const {
    *mapped_ = 0;
    for (const auto& shard : shards_) madvise(shard->map, shard->size, MADV_DONTNEED);  // of a file: unmapped, and read again where touched
}

Corpus::Document Corpus::document(std::int64_t index) const {
    RF_ASSERT(index >= 0 && index < documents());
    const auto at = std::upper_bound(first_.begin(), first_.end(), index) - first_.begin() - 1;
    const Shard& shard = *shards_[static_cast<std::size_t>(at)];
    const std::int64_t local = index - first_[static_cast<std::size_t>(at)];
    const auto begin = shard.offset(local), end = shard.offset(local + 1);
    constexpr std::int64_t most_mapped = 8 << 20, around = 64 << 10;  // bytes; Linux maps 64 KiB around an address that is touched
    if (mapped_->fetch_add(static_cast<std::int64_t>(end - begin) * 2 + 3 * around) > most_mapped) release_pages();
    return {{shard.tokens + begin, static_cast<std::size_t>(end - begin)}, shard.word_start, static_cast<std::int64_t>(begin)};
}

std::int64_t permute(std::int64_t index, std::int64_t n, std::uint64_t seed, std::uint32_t round) {
    RF_ASSERT(index >= 0 && index < n);
    const int half = std::max(1, (static_cast<int>(std::bit_width(static_cast<std::uint64_t>(n - 1))) + 1) / 2);
    const std::uint64_t mask = (std::uint64_t{1} << half) - 1;
    auto value = static_cast<std::uint64_t>(index);
    do {
        std::uint64_t left = value >> half, right = value & mask;
        for (std::uint32_t turn = 0; turn < 4; ++turn) {
            const PhiloxCounter w = philox({static_cast<std::uint32_t>(right), static_cast<std::uint32_t>(right >> 32), round,
                                            philox_stream(Purpose::order, turn)},
                                           philox_key(seed));
            const std::uint64_t next = left ^ ((w[0] | (std::uint64_t{w[1]} << 32)) & mask);
            left = right;
            right = next;
        }
        value = (left << half) | right;
    } while (value >= static_cast<std::uint64_t>(n));
    return static_cast<std::int64_t>(value);
}

}  // namespace rf
