#include "core/log.hpp"
#include "data/corpus_parts.hpp"
#include "io/files.hpp"
#include "io/hdf5.hpp"
#include "io/schema.hpp"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <span>

namespace rf {

namespace fs = std::filesystem;

namespace {

/// A run of blocks that makes one shard.
struct ShardPlan {
    std::size_t first_block = 0, end_block = 0;
    std::int64_t first_source = 0;  ///< source documents before it: its place in the list of those that stay
    std::int64_t first_document = 0, documents = 0, tokens = 0;
};

/// What every shard will hold. Which source documents stay is in a file beside the parts, one byte each, 0 or 1.
struct Plan {
    std::vector<ShardPlan> shards;
    AssemblyReport report;
};

fs::path keep_path(const fs::path& partial) { return partial / "keep"; }

/// Decides, in the order of the input, which documents were seen before.
class DuplicateFilter {
public:
    DuplicateFilter(const BuildCorpusInput& in, std::int64_t documents)
        : in_(in), whole_(in.drop_duplicates ? documents : 0), bands_(in.near_duplicates.drop ? documents * in.near_duplicates.bands : 0) {}
    bool keep(const CorpusPart& part, std::size_t document, AssemblyReport& report) {
        if (in_.drop_duplicates && !whole_.insert(part.documents[document].hash)) {
            ++report.duplicates;
            return false;
        }
        if (!in_.near_duplicates.drop) return true;
        const auto bands = static_cast<std::size_t>(in_.near_duplicates.bands);
        const auto keys = std::span(part.bands).subspan(document * bands, bands);
        if (std::any_of(keys.begin(), keys.end(), [&](std::uint64_t key) { return bands_.contains(key); })) {
            ++report.near_duplicates;
            return false;
        }
        for (const std::uint64_t key : keys) bands_.insert(key);
        return true;
    }

private:
    const BuildCorpusInput& in_;
    SeenSet<Hash128> whole_;
    SeenSet<std::uint64_t> bands_;
};

/// The least number of shards that have about `most` tokens, all nearly the same: as many of them are written at once as there are ranks.
std::vector<ShardPlan> join_blocks(const std::vector<ShardPlan>& blocks, std::int64_t tokens, std::int64_t most) {
    const auto number = static_cast<double>((tokens - 1) / most + 1), all = static_cast<double>(std::max<std::int64_t>(tokens, 1));
    std::vector<ShardPlan> shards;
    std::int64_t before = 0, last = -1;  // tokens; number of the last shard
    for (const ShardPlan& block : blocks) {
        const auto here = static_cast<std::int64_t>(number * (static_cast<double>(before) / all));
        before += block.tokens;
        if (block.documents > 0 && here > last) {
            shards.push_back(block);
            last = here;
        } else if (!shards.empty()) {
            ShardPlan& shard = shards.back();
            shard.end_block = block.end_block;
            shard.documents += block.documents;
            shard.tokens += block.tokens;
        }
    }
    return shards;
}

/// Reads the front of the parts one after another: beside one of them only the filter and a byte a document are in memory.
Plan make_plan(const BuildCorpusInput& in, const fs::path& partial, const std::vector<fs::path>& parts) {
    std::int64_t sources = 0;
    for (const fs::path& part : parts) sources += CorpusPart::counts_of_file(part).documents;
    DuplicateFilter filter(in, sources);
    std::string keep;
    Plan plan;
    std::vector<ShardPlan> blocks;
    std::int64_t source = 0;
    for (std::size_t b = 0; b < parts.size(); ++b) {
        const CorpusPart part = CorpusPart::front_of_file(parts[b]);
        ShardPlan& block = blocks.emplace_back(ShardPlan{.first_block = b, .end_block = b + 1, .first_source = source, .first_document = plan.report.documents});
        for (std::size_t d = 0; d < part.documents.size(); ++d, ++source) {
            const bool stays = filter.keep(part, d, plan.report);
            keep.push_back(stays ? 1 : 0);
            if (!stays) continue;
            const CorpusPart::Document& document = part.documents[d];
            block.documents += document.pieces;
            block.tokens += document.tokens;
            plan.report.documents += document.pieces;
            plan.report.tokens += document.tokens;
            plan.report.words += document.words;
            plan.report.unknown += document.unknown;
        }
        plan.report.bytes += part.counts.bytes;
        plan.report.bad_lines += part.counts.bad_lines;
        plan.report.too_short += part.counts.too_short;
        plan.report.too_long += part.counts.too_long;
    }
    plan.shards = join_blocks(blocks, plan.report.tokens, in.shard_tokens);
    plan.report.shards = static_cast<std::int64_t>(plan.shards.size());
    write_file(keep_path(partial), keep);
    return plan;
}

/// Rank 0 makes the plan; the others hear it.
Plan share_plan(const BuildCorpusInput& in, const fs::path& partial, const std::vector<fs::path>& parts, Communicator& world) {
    Plan plan;
    if (world.rank() == 0) plan = make_plan(in, partial, parts);
    std::string bytes(reinterpret_cast<const char*>(&plan.report), sizeof plan.report);
    bytes.append(reinterpret_cast<const char*>(plan.shards.data()), plan.shards.size() * sizeof(ShardPlan));
    world.broadcast(bytes, 0);
    std::memcpy(&plan.report, bytes.data(), sizeof plan.report);
    plan.shards.resize((bytes.size() - sizeof plan.report) / sizeof(ShardPlan));
    if (!plan.shards.empty()) std::memcpy(plan.shards.data(), bytes.data() + sizeof plan.report, plan.shards.size() * sizeof(ShardPlan));
    return plan;
}

/// A dataset filled from the front, with a digest over the digests of what was added.
class Filler {
public:
    Filler(hid_t file, const char* name, hid_t type, std::int64_t item, std::int64_t count, const h5::Info& info)
        : rows_(file, name, type, {count}, info), item_(item), name_(name) {}
    void add(const void* data, std::int64_t count) {
        if (count == 0) return;
        rows_.add(data, count);
        digests_ += digest(data, count * item_);
        count_ += count;
    }
    /// Where the bytes lie.
    FileDigest::Range finish() {
        h5::set_attribute(rows_.set(), schema::corpus::digest, digest(digests_.data(), static_cast<std::int64_t>(digests_.size())));
        const auto begin = static_cast<std::int64_t>(H5Dget_offset(rows_.set()));
        return {name_, begin, begin + count_ * item_};
    }

private:
    h5::RowWriter rows_;
    std::int64_t item_, count_ = 0;
    std::string name_, digests_;
};

fs::path shard_path(const fs::path& folder, std::int64_t shard, std::int64_t shards) {
    char name[60];
    std::snprintf(name, sizeof name, "corpus-%05lld-of-%05lld.h5", static_cast<long long>(shard), static_cast<long long>(shards));
    return folder / name;
}

/// The tokens and word starts of the documents that stay move to the front of the part; `ends` gets the end of each piece in the shard.
void drop_documents(CorpusPart& part, std::istream& keep, std::uint64_t begin, std::vector<std::uint64_t>& ends) {
    ends.clear();
    std::size_t piece = 0;
    std::ptrdiff_t from = 0, to = 0;
    const auto move = [&](auto& list, std::ptrdiff_t count) {
        if (from != to) std::copy(list.begin() + from, list.begin() + from + count, list.begin() + to);
    };
    for (const CorpusPart::Document& document : part.documents) {
        const auto pieces = static_cast<std::size_t>(document.pieces);
        const int stays = keep.get();
        if (stays != 0 && stays != 1) fail("which documents stay cannot be read");
        if (stays == 1) {
            move(part.tokens, document.tokens);
            move(part.word_start, document.tokens);
            to += document.tokens;
            for (std::size_t p = 0; p < pieces; ++p) ends.push_back(begin += static_cast<std::uint64_t>(part.lengths[piece + p]));
        }
        from += document.tokens;
        piece += pieces;
    }
    part.tokens.resize(static_cast<std::size_t>(to));
    part.word_start.resize(static_cast<std::size_t>(to));
}

/// Eight bytes of 0 or 1 become the bits of one; what is left over waits in `starts`.
void pack_bits(std::vector<std::uint8_t>& starts, std::vector<std::uint8_t>& packed) {
    packed.resize(starts.size() / 8);
    for (std::size_t i = 0; i < packed.size(); ++i) {
        const std::uint8_t* s = starts.data() + 8 * i;
        packed[i] = static_cast<std::uint8_t>(s[0] | s[1] << 1 | s[2] << 2 | s[3] << 3 | s[4] << 4 | s[5] << 5 | s[6] << 6 | s[7] << 7);
    }
    starts.erase(starts.begin(), starts.begin() + static_cast<std::ptrdiff_t>(8 * packed.size()));
}

void write_shard(const Plan& plan, std::int64_t number, const PartMaker& maker, const fs::path& partial, const std::vector<fs::path>& parts,
                 const std::string& sources) {
    const ShardPlan& shard = plan.shards[static_cast<std::size_t>(number)];
    const fs::path path = shard_path(partial, number, plan.report.shards);
    std::ifstream keep(keep_path(partial), std::ios::binary);
    keep.seekg(shard.first_source);
    std::vector<FileDigest::Range> ranges;
    {
        const auto hold = h5::lock();
        h5::File file = h5::create_file(path);
        h5::set_attribute(file, schema::kind, schema::kind_corpus);
        h5::set_attribute(file, schema::version, std::int64_t{1});
        h5::set_attribute(file, schema::corpus::vocab_digest, maker.vocabulary().digest());
        h5::set_attribute(file, schema::corpus::vocab_size, maker.vocabulary().size());
        h5::set_attribute(file, schema::corpus::segmenter, maker.segmenter_identity());
        h5::set_attribute(file, schema::corpus::tokenizer, Tokenizer::identity());
        h5::set_attribute(file, schema::corpus::sources, sources);
        h5::set_attribute(file, schema::corpus::shard, number);
        h5::set_attribute(file, schema::corpus::shards, plan.report.shards);
        h5::set_attribute(file, schema::corpus::first_document, shard.first_document);
        h5::set_attribute(file, schema::corpus::documents, plan.report.documents);
        Filler tokens(file, schema::corpus::tokens, H5T_NATIVE_UINT16, 2, shard.tokens, {"ids", "documents one after another, without [CLS] and [SEP]"});
        Filler words(file, schema::corpus::word_start, H5T_NATIVE_UINT8, 1, (shard.tokens + 7) / 8, {"bits", "bit t % 8 of byte t / 8: token t begins a word"});
        Filler offsets(file, schema::corpus::document_offsets, H5T_NATIVE_UINT64, 8, shard.documents + 1, {"tokens", "first token of each document, and the end"});
        std::uint64_t end = 0;
        offsets.add(&end, 1);
        std::vector<std::uint8_t> starts, packed;
        std::vector<std::uint64_t> ends;
        for (std::size_t b = shard.first_block; b < shard.end_block; ++b) {
            CorpusPart part = CorpusPart::from_file(parts[b]);
            drop_documents(part, keep, end, ends);
            if (!ends.empty()) end = ends.back();
            starts.insert(starts.end(), part.word_start.begin(), part.word_start.end());
            if (b + 1 == shard.end_block) starts.resize((starts.size() + 7) / 8 * 8);
            pack_bits(starts, packed);
            tokens.add(part.tokens.data(), static_cast<std::int64_t>(part.tokens.size()));
            words.add(packed.data(), static_cast<std::int64_t>(packed.size()));
            offsets.add(ends.data(), static_cast<std::int64_t>(ends.size()));
        }
        ranges = {tokens.finish(), words.finish(), offsets.finish()};
        h5::close_file(file, path.string());
    }
    write_digest(path, std::move(ranges));
}

}  // namespace

AssemblyReport assemble(const BuildCorpusInput& in, const json::Place& place, const PartMaker& maker, const fs::path& partial, const fs::path& folder,
                        const std::vector<fs::path>& parts, const std::string& sources, Communicator& world) {
    const Plan plan = share_plan(in, partial, parts, world);
    if (plan.report.bad_lines > in.max_bad_lines)
        fail_usage(place.at("max_bad_lines"), ": ", plan.report.bad_lines, " malformed lines, at most ", in.max_bad_lines, " are allowed");
    if (plan.report.documents == 0) fail_usage(place.at("text"), ": the text holds no document");
    for (std::int64_t s = world.rank(); s < plan.report.shards; s += world.size()) write_shard(plan, s, maker, partial, parts, sources);
    world.barrier();
    if (world.rank() == 0) {
        for (std::int64_t s = 0; s < plan.report.shards; ++s) {
            const fs::path from = shard_path(partial, s, plan.report.shards), to = shard_path(folder, s, plan.report.shards);
            rename_durably(from.string() + ".digest", to.string() + ".digest");
            rename_durably(from, to);
        }
    }
    return plan.report;
}

}  // namespace rf
