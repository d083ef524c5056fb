#include "data/corpus_build.hpp"

#include "core/log.hpp"
#include "io/files.hpp"
#include "io/folder_lock.hpp"
#include "data/corpus_parts.hpp"
#include "io/text_input.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <numeric>

namespace rf {

namespace fs = std::filesystem;

namespace {

/// Bytes of input lines in a block, the unit of work.
constexpr std::int64_t block_bytes = 1 << 20;
/// In place of a rank that reads a file alone.
constexpr int everybody = -1;

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

void check(const BuildCorpusInput& in, const json::Place& place) {
    const json::Requirements require{place};
    require(!in.output.empty(), "output", "expected an output folder");
    require(!in.vocab.empty(), "vocab", "expected a vocab.txt");
    require(in.format == "auto" || in.format == "jsonl" || in.format == "lines" || in.format == "paragraphs", "format",
            "expected \"auto\", \"jsonl\", \"lines\" or \"paragraphs\", found \"", in.format, "\"");
    require(in.document.max_characters >= 1, "document.max_characters", "expected at least 1, found ", in.document.max_characters);
    require(in.document.min_characters >= 0, "document.min_characters", "expected at least 0, found ", in.document.min_characters);
    require(in.document.drop_above == 0 || in.document.drop_above >= in.document.min_characters, "document.drop_above",
            "expected 0 (no limit) or at least document.min_characters, found ", in.document.drop_above);
    const NearDuplicateInput& near = in.near_duplicates;
    require(near.characters >= 1, "near_duplicates.characters", "expected at least 1, found ", near.characters);
    require(near.bands >= 1 && near.bands <= 1024, "near_duplicates.bands", "expected 1 to 1024, found ", near.bands);
    require(near.rows >= 1 && near.rows <= 1024, "near_duplicates.rows", "expected 1 to 1024, found ", near.rows);
    require(in.document.overflow == "split" || in.document.overflow == "cut", "document.overflow", "expected \"split\" or \"cut\", found \"",
            in.document.overflow, "\"");
    require(in.max_bad_lines >= 0, "max_bad_lines", "expected at least 0, found ", in.max_bad_lines);
    require(in.shard_tokens >= 1, "shard_tokens", "expected at least 1, found ", in.shard_tokens);
}

/// What decides the corpus' bytes: the settings, the sources with their sizes, the vocabulary, the segmenter.
std::string fingerprint(const BuildCorpusInput& in, const std::vector<std::string>& paths, const PartMaker& maker) {
    boost::json::object o = json::write(in).as_object();
    o.erase("output");
    o.erase("text");
    boost::json::array sources;
    for (const std::string& path : paths)
        sources.push_back(boost::json::object{{"file", fs::path(path).filename().string()}, {"bytes", static_cast<std::int64_t>(fs::file_size(path))}});
    o["sources"] = std::move(sources);
    o["vocab"] = maker.vocabulary().digest();
    o["segmenter_identity"] = maker.segmenter_identity();
    return boost::json::serialize(o);
}

/// When the sources were last changed. Not part of the corpus, which a copy of them must give again, but parts of a killed build are
/// used only with the very files they came from.
std::string change_times(const std::vector<std::string>& paths) {
    std::string times;
    for (const std::string& path : paths) times += message('\n', fs::last_write_time(path).time_since_epoch().count());
    return times;
}

bool is_of_corpus(const fs::path& path) {
    const std::string name = path.filename().string();
    return name == "corpus.json" || (name.starts_with("corpus-") && (name.ends_with(".h5") || name.ends_with(".h5.digest")));
}

/// corpus.json goes first: what is left of an interrupted removal is not taken for a corpus.
void remove_corpus(const fs::path& folder) {
    fs::remove(folder / "corpus.json");
    std::vector<fs::path> files;
    for (const auto& entry : fs::directory_iterator(folder))
        if (is_of_corpus(entry.path())) files.push_back(entry.path());
    for (const fs::path& file : files) fs::remove(file);
}

/// Why the output folder cannot be built in, or empty. `done`: it holds this very corpus.
std::string prepare_output(const fs::path& folder, const std::string& mark, const std::vector<std::string>& paths, bool restart,
                           bool& done) {
    const fs::path built = folder / "corpus.json", partial = folder / ".partial", fingerprint = partial / "fingerprint";
    if (restart && fs::is_directory(folder)) {
        remove_corpus(folder);
        fs::remove_all(partial);
    }
    fs::create_directories(folder);
    std::int64_t shards = 0, expected = 0;
    for (const auto& entry : fs::directory_iterator(folder)) {
        const std::string name = entry.path().filename().string();
        long long number = 0, count = 0;
        if (!is_of_corpus(entry.path()) || !name.ends_with(".h5")) continue;
        if (std::sscanf(name.c_str(), "corpus-%lld-of-%lld.h5", &number, &count) != 2) continue;
        ++shards;
        expected = count;
    }
    if (fs::exists(built)) {
        done = read_file(built) == mark;
        if (!done)
            return message(folder.string(), " holds a corpus of other input or settings (see corpus.json there); choose another folder, or --restart");
        if (shards == 0 || shards != expected)
            return message(folder.string(), " holds ", shards, " of the ", expected, " shards of its corpus; build it again with --restart");
        fs::remove_all(partial);  // a build killed at its very end
        return "";
    }
    // Shards without corpus.json: of a build that was killed while it moved them here, or somebody's own.
    if (shards > 0 && !fs::exists(fingerprint))
        return message(folder.string(), " holds corpus shards without their corpus.json; choose another folder, or --restart");
    // Parts of versions that counted the bytes of a block in another way are of other lines.
    const std::string own = mark + change_times(paths) + "\nblocks 2";
    if (fs::exists(fingerprint) && read_file(fingerprint) != own) fs::remove_all(partial);
    remove_corpus(folder);
    fs::create_directories(partial);
    write_file_atomically(fingerprint, own);
    return "";
}

/// Rank 0 prepares the output folder; its trouble is everybody's.
bool open_output(const fs::path& folder, const std::string& mark, const std::vector<std::string>& paths, bool restart,
                 Communicator& world) {
    std::string trouble;
    bool done = false;
    if (world.rank() == 0) {
        try {
            trouble = prepare_output(folder, mark, paths, restart, done);
        } catch (const std::exception& e) {
            trouble = message("cannot write the output folder ", folder.string(), " (", e.what(), ")");
        }
    }
    world.broadcast(trouble, 0);
    if (!trouble.empty()) throw UsageError(trouble);
    return world.max(done ? 1 : 0) > 0;
}

/// Who reads a file: every rank, for blocks in turn; or, of compressed files, for decompressing takes as long as the rest, one rank.
/// By size, the largest first to the rank with the least so far; a file that would leave the ranks uneven is everybody's.
std::vector<int> choose_readers(const std::vector<std::string>& paths, int ranks) {
    std::vector<std::uintmax_t> sizes;
    for (const std::string& path : paths) sizes.push_back(without_compression(path) == path ? 0 : fs::file_size(path));
    const std::uintmax_t most = std::accumulate(sizes.begin(), sizes.end(), std::uintmax_t{0}) / static_cast<std::uintmax_t>(4 * ranks);
    std::vector<std::size_t> order(paths.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return sizes[a] > sizes[b]; });
    std::vector<int> readers(paths.size(), everybody);
    std::vector<std::uintmax_t> loads(static_cast<std::size_t>(ranks));
    for (const std::size_t file : order) {
        if (sizes[file] == 0 || sizes[file] > most) continue;
        const auto least = std::min_element(loads.begin(), loads.end());
        readers[file] = static_cast<int>(least - loads.begin());
        *least += sizes[file];
    }
    return readers;
}

/// Reads the input and works on this rank's blocks. Returns the parts in the order of the input.
std::vector<fs::path> make_parts(const BuildCorpusInput& in, const std::vector<std::string>& paths, PartMaker& maker, const fs::path& partial,
                                 Communicator& world, double begin) {
    const std::vector<int> readers = choose_readers(paths, world.size());
    std::vector<std::int64_t> blocks(paths.size());
    std::int64_t turn = 0, total = 0;
    const bool paragraphs = in.format == "paragraphs";
    for (std::size_t file = 0; file < paths.size(); ++file) {
        if (readers[file] != everybody && readers[file] != world.rank()) continue;
        // A block never spans two files, so that a file's name stands for all its lines.
        LineReader lines({paths[file]});
        const std::int64_t before = total;
        std::int64_t block = 0;  // where it begins
        bool mine = false, open = false, between = true;  // paragraphs are not cut: their blocks end at blank lines
        fs::path part;
        const auto start_block = [&] {
            part = part_path(partial, file, blocks[file]++);
            mine = (readers[file] != everybody || turn++ % world.size() == world.rank()) && !part_is_whole(part);
            maker.clear();
            open = true;
        };
        const auto end_block = [&] {
            if (!open) return;
            if (mine) maker.save(part);
            open = false;
            const double s = seconds() - begin;
            log::live(message("read ", total >> 20, " MiB of text, ", static_cast<double>(total >> 10) / 1024 / s, " MiB/s"));
        };
        std::string line;
        for (std::int64_t at = 0; lines.next(line); at = lines.position()) {
            if (at - block >= block_bytes && between) end_block();
            if (!open) start_block(), block = at;
            if (mine) maker.add_line(line, paths[file], lines.line_number());
            if (paragraphs) between = is_blank(line);
            else if (!mine) lines.pass(block + block_bytes - lines.position());
            total = before + lines.position();
        }
        end_block();
    }
    // A rank knows the blocks of the files it has read.
    std::vector<std::int64_t> theirs(paths.size()), most(paths.size());
    for (int rank = 0; rank < world.size(); ++rank) {
        std::string text(reinterpret_cast<const char*>(blocks.data()), blocks.size() * sizeof(std::int64_t));
        world.broadcast(text, rank);
        std::memcpy(theirs.data(), text.data(), text.size());
        for (std::size_t file = 0; file < paths.size(); ++file) most[file] = std::max(most[file], theirs[file]);
    }
    std::vector<fs::path> parts;
    for (std::size_t file = 0; file < paths.size(); ++file)
        for (std::int64_t block = 0; block < most[file]; ++block) parts.push_back(part_path(partial, file, block));
    return parts;
}

}  // namespace

void build_corpus(const BuildCorpusInput& in, const json::Place& place, Communicator& world, bool restart) {
    check(in, place);
    const double begin = seconds();
    const std::vector<std::string> paths = expand_paths(in.text, place.at("text"));
    PartMaker maker(in);
    const std::string mark = fingerprint(in, paths, maker);
    const fs::path folder = in.output, partial = folder / ".partial";
    const FolderLock lock = lock_folder(folder, message(place.at("output")), world);
    if (open_output(folder, mark, paths, restart, world)) {
        log::info("already built: ", in.output);
        return;
    }
    const std::vector<fs::path> parts = make_parts(in, paths, maker, partial, world, begin);
    world.barrier();
    const AssemblyReport report = assemble(in, place, maker, partial, folder, parts, mark, world);
    if (world.rank() == 0) {
        // Its presence says that the corpus is complete, so its digest comes first.
        const fs::path built = folder / "corpus.json", temporary = partial / "corpus.json";
        write_file_atomically(temporary, mark);
        write_digest(temporary, {});
        rename_durably(temporary.string() + ".digest", built.string() + ".digest");
        rename_durably(temporary, built);
        fs::remove_all(partial);
    }
    world.barrier();
    const double s = seconds() - begin;
    const double unknown = 100.0 * static_cast<double>(report.unknown) / std::max(1.0, static_cast<double>(report.tokens));
    const std::string near = in.near_duplicates.drop ? message(report.near_duplicates, " nearly duplicate, ") : "";
    log::info(report.documents, " documents, ", report.tokens, " tokens (", unknown, " % [UNK]), ", report.words, " words in ", report.shards, " shards; dropped: ", report.duplicates, " duplicate, ", near, report.too_short, " short and ", report.too_long,
              " long documents, ", report.bad_lines, " bad lines; ", static_cast<double>(report.bytes) / 1e6 / s, " MB/s of text in ", s, " s -> ",
              in.output);
}

}  // namespace rf
