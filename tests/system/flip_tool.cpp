/// Damages files in many places, one after another, and asks those who read them: `flip_tool CHECKPOINT SHARD RESULTS JOURNAL FLIPS CUTS SEED`.
/// Prints a table's rows; ends with 1 at the first damage that is not found, or is found without its file being named. For flip_campaign.py.

#include "core/log.hpp"
#include "data/corpus.hpp"
#include "io/files.hpp"
#include "params/checkpoint.hpp"
#include "train/results.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <iostream>
#include <map>
#include <random>

using namespace rf;
namespace fs = std::filesystem;

namespace {

/// Says what is wrong with the files, or nothing.
using Look = std::function<std::string()>;
struct Place {
    std::string name;
    fs::path file;
    std::int64_t begin = 0, end = 0;
};

void put(const fs::path& file, const std::string& bytes) { std::ofstream(file, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size())); }

/// One byte in place, without rewriting the file.
void put_byte(const fs::path& file, std::int64_t at, char byte) {
    std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
    stream.seekp(at);
    stream.put(byte);
}

/// The places of an HDF5 file with a digest beside it: ranges of data as its digest tells, what is between them, and the digest.
std::vector<Place> places_of(const fs::path& file) {
    std::vector<Place> places{{"header", file, 0, std::min<std::int64_t>(512, static_cast<std::int64_t>(fs::file_size(file)))}};
    const fs::path digest = file.string() + ".digest";
    std::ifstream in(digest);
    std::int64_t at = 512;
    for (std::string word; in >> word;) {
        if (word != "range") continue;
        std::int64_t begin = 0, end = 0;
        in >> begin >> end;
        if (begin > at) places.push_back({"structure", file, at, begin});
        if (end > begin) places.push_back({"data", file, begin, end});
        at = std::max(at, end);
    }
    if (const auto size = static_cast<std::int64_t>(fs::file_size(file)); size > at) places.push_back({"structure", file, at, size});
    places.push_back({"digest", digest, 0, static_cast<std::int64_t>(fs::file_size(digest))});
    return places;
}

class Campaign {
public:
    explicit Campaign(unsigned seed) : random_(seed) {}

    void flips(const std::string& what, const std::vector<Place>& places, std::int64_t flips, const Look& look) {
        std::map<std::string, std::vector<Place>> kinds;
        for (const Place& place : places) kinds[place.name].push_back(place);
        require(look().empty(), what, "is damaged before anything was done to it: " + look());
        for (const auto& [kind, list] : kinds) {
            std::int64_t found = 0;
            const std::int64_t count = flips / static_cast<std::int64_t>(kinds.size());
            for (std::int64_t n = 0; n < count; ++n) {
                const Place& place = list[random_() % list.size()];
                const auto at = place.begin + static_cast<std::int64_t>(random_() % static_cast<std::uint64_t>(place.end - place.begin));
                std::ifstream in(place.file, std::ios::binary);
                in.seekg(at);
                const auto byte = static_cast<char>(in.get());
                put_byte(place.file, at, static_cast<char>(byte ^ static_cast<char>(1 + random_() % 255)));
                found += is_named(look(), place.file, message("byte ", at));
                put_byte(place.file, at, byte);
            }
            std::cout << "| " << what << " | " << kind << " | " << count << " | " << found << " | " << count - found << " |" << std::endl;
        }
    }

    void cuts(const std::string& what, const std::vector<fs::path>& files, std::int64_t cuts, const Look& look) {
        std::int64_t found = 0;
        for (std::int64_t n = 0; n < cuts; ++n) {
            const fs::path& file = files[random_() % files.size()];
            const std::string bytes = read_file(file);
            const auto size = random_() % bytes.size();
            fs::resize_file(file, size);
            found += is_named(look(), file, message("cut to ", size));
            put(file, bytes);
        }
        std::cout << "| " << what << " | cut anywhere | " << cuts << " | " << found << " | " << cuts - found << " |" << std::endl;
    }

private:
    static void require(bool ok, const std::string& what, const std::string& text) {
        if (ok) return;
        std::cerr << "flip_tool: " << what << ' ' << text << '\n';
        std::exit(1);
    }
    static bool is_named(const std::string& found, const fs::path& file, const std::string& harm) {
        require(!found.empty(), file.string(), harm + " was not noticed");
        // A digest is named by itself or by the file that it belongs to.
        std::string name = file.filename().string();
        if (const std::size_t end = name.rfind(".digest"); end != std::string::npos) name.resize(end);
        require(found.find(name) != std::string::npos, file.string(), harm + " was found, but not named: " + found);
        return true;
    }
    std::mt19937_64 random_;
};

}  // namespace

int main(int argc, char** argv) {
    if (argc != 8) {
        std::cerr << "usage: flip_tool CHECKPOINT SHARD RESULTS JOURNAL FLIPS CUTS SEED\n";
        return 2;
    }
    log::set_rank(1, 2);  // thousands of warnings about the journal are not to be read
    const fs::path checkpoint = argv[1], shard = argv[2], results = argv[3], journal = argv[4];
    const std::int64_t flips = std::atoll(argv[5]), cuts = std::atoll(argv[6]);
    Campaign campaign(static_cast<unsigned>(std::atoi(argv[7])));

    const Look look_at_checkpoint = [&] { return find_checkpoint_damage(checkpoint); };
    std::vector<Place> places;
    std::vector<fs::path> files;
    for (const auto& entry : fs::directory_iterator(checkpoint)) {
        files.push_back(entry.path());
        if (entry.path().extension() != ".h5") continue;
        for (Place& place : places_of(entry.path())) places.push_back(std::move(place));
    }
    campaign.flips("checkpoint", places, flips, look_at_checkpoint);
    campaign.cuts("checkpoint", files, cuts, look_at_checkpoint);

    // What loads do: sizes and index first, everything else as it is read.
    const Look read_checkpoint = [&]() -> std::string {
        if (std::string damage = find_checkpoint_damage(checkpoint, {.parts = 0}); !damage.empty()) return damage;
        try {
            digest_checkpoint(checkpoint);
        } catch (const Damage& e) {
            return e.what();
        }
        return {};
    };
    campaign.flips("checkpoint as it is read", places, flips, read_checkpoint);
    campaign.cuts("checkpoint as it is read", files, cuts, read_checkpoint);

    // What a run does with it: the digest comes before the HDF5 library.
    const Look look_at_shard = [&]() -> std::string {
        try {
            const Corpus corpus(boost::json::string(shard.string()), {"input.json", "corpus"});
            return {};
        } catch (const UsageError& e) {
            return e.what();
        }
    };
    campaign.flips("corpus shard", places_of(shard), flips, look_at_shard);
    campaign.cuts("corpus shard", {shard, shard.string() + ".digest"}, cuts, look_at_shard);

    const auto size = static_cast<std::int64_t>(fs::file_size(results));
    const Look look_at_results = [&] { return has_seal(results) ? find_damage(results) : results.string() + ": not HDF5"; };
    campaign.flips("results.h5", {{"seal", results, 0, seal_bytes}, {"header", results, seal_bytes, 2 * seal_bytes}, {"structure and data", results, 2 * seal_bytes, size}},
                   flips, look_at_results);
    campaign.cuts("results.h5", {results}, cuts, look_at_results);

    // The journal says what it lost in a line of the log, and gives no row that was not written.
    const std::string whole = read_file(journal);
    std::mt19937_64 random(static_cast<unsigned>(std::atoi(argv[7])));
    const fs::path folder = journal.parent_path() / "journal";
    fs::create_directories(folder);
    std::vector<std::vector<double>> rows;
    const auto read_rows = [&](const std::string& text) {
        put(folder / "results.jsonl", text);
        Results read(folder, std::int64_t{1} << 40);
        std::vector<Column> columns;
        for (int c = 0; c < 12; ++c) columns.push_back({message("c", c), "1", ""});
        read.declare("train", columns);
        std::vector<std::vector<double>> list;
        for (const Column& column : columns) list.push_back(read.column("train", column.name));
        return list;
    };
    rows = read_rows(whole);
    std::int64_t lost = 0;
    for (std::int64_t n = 0; n < flips; ++n) {
        std::string text = whole;
        const std::size_t at = random() % text.size();
        text[at] = static_cast<char>(text[at] ^ static_cast<char>(1 + random() % 255));
        const auto found = read_rows(text);
        for (std::size_t i = 0; i < found[0].size(); ++i) {
            const auto same = std::find(rows[0].begin(), rows[0].end(), found[0][i]);
            const auto k = same - rows[0].begin();
            for (std::size_t c = 0; c < rows.size(); ++c)
                if (same == rows[0].end() || !(found[c][i] == rows[c][static_cast<std::size_t>(k)] || std::isnan(found[c][i]))) {
                    std::cerr << "flip_tool: results.jsonl: byte " << at << " flipped gives a row that was not written\n";
                    return 1;
                }
        }
        lost += found[0].size() < rows[0].size();
    }
    fs::remove_all(folder);
    std::cout << "| results.jsonl | anywhere | " << flips << " | " << lost << " | " << flips - lost << " |" << std::endl;
    return 0;
}
