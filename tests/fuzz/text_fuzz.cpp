/// Text files, plain and compressed (the first byte says which), as lines, as records, and as rows of every format of tasks.

#include "io/files.hpp"
#include "io/text_input.hpp"
#include "tasks/readers.hpp"
#include "tests/fuzz/fuzz.hpp"
#include "text/unicode.hpp"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace rf;
    constexpr const char* endings[] = {".txt", ".jsonl", ".txt.gz", ".jsonl.xz", ".txt.zst"};
    fuzz::Bytes bytes(data, size);
    const std::uint32_t choice = bytes.byte();
    const std::string path = (fuzz::folder() / "text").string() + endings[choice % 5];
    write_file(path, bytes.rest());
    fuzz::may_refuse([&] {
        LineReader lines({path});
        std::int64_t total = 0;
        // A few KiB may stand for GiB: a builder of corpora reads on, a fuzzer need not.
        for (std::string line; total < (1 << 20) && lines.next(line);) {
            total += static_cast<std::int64_t>(line.size()) + 1;
            fuzz::demand(line.find('\n') == std::string::npos && lines.line_number() >= 1);
            fuzz::may_refuse([&] { text_of_record(line); });
            fuzz::may_refuse([&] { decode_utf8(line); });
        }
    });
    if (choice % 5 > 1) return 0;  // formats see lines, however these were stored
    tasks::Reader reader;
    reader.format = tasks::formats()[choice / 5 % tasks::formats().size()];
    if (choice & 128) reader.columns = {"a", "", "b"};
    if (reader.format == "pattern") reader.pattern = "(\\S*) (.*)", reader.columns = {"a", "b"};
    if (choice & 64) reader.each = "items";
    fuzz::may_refuse([&] {
        tasks::read_rows({path}, reader, [](const tasks::Row&, const tasks::RowPlace&) {}, [](const tasks::BadRow&, const tasks::RowPlace&) {});
    });
    return 0;
}
