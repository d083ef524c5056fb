/// The journal of a run that continues, of any content, and damage to the results that are made of it.

#include "io/files.hpp"
#include "tests/fuzz/fuzz.hpp"
#include "train/results.hpp"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace rf;
    static const std::string lines = [] {
        write_file(fuzz::folder() / "results.jsonl", "");
        Results results(fuzz::folder(), 0);
        results.declare("train", {{"step", "updates", ""}, {"loss", "nats", ""}});
        for (int i = 1; i <= 4; ++i) results.append("train", {static_cast<double>(i), 0.5 * i});
        return read_file(fuzz::folder() / "results.jsonl");
    }();
    fuzz::Bytes bytes(data, size);
    const std::uint8_t how = bytes.byte();
    std::string journal = lines;
    if (how % 2) {
        journal += bytes.rest();
    } else {
        for (int n = 0; n < 3 && !bytes.empty(); ++n) journal[bytes.below(1 << 16) % journal.size()] ^= static_cast<char>(bytes.byte());
    }
    write_file(fuzz::folder() / "results.jsonl", journal);
    fuzz::may_refuse([&] {
        Results results(fuzz::folder(), 1 << 20);
        results.declare("train", {{"step", "updates", ""}, {"loss", "nats", ""}});
        const std::size_t rows = results.column("train", "step").size();
        // Of damaged lines none is taken for a row of other numbers.
        if (how % 2 == 0)
            for (std::size_t i = 0; i < rows; ++i) fuzz::demand(results.column("train", "loss")[i] == 0.5 * results.column("train", "step")[i]);
        results.append("train", {9, 9});
        if (how % 16) return;  // the HDF5 file is the slow part
        results.flush(true);
        fuzz::demand(results.trouble().empty());
        const auto path = fuzz::folder() / "results.h5";
        fuzz::demand(find_damage(path).empty());
        std::string file = read_file(path);
        const std::size_t at = bytes.below(1 << 16) % file.size();
        const auto mask = static_cast<char>(bytes.byte() | 1);
        file[at] = static_cast<char>(file[at] ^ mask);
        write_file(path, file);
        fuzz::demand(!has_seal(path) || !find_damage(path).empty());
    });
    return 0;
}
