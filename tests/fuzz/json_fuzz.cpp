/// Inputs: strict JSON with a `--set` after a zero byte, read into the largest described structs. What is accepted is written and read back.

#include "data/corpus_build.hpp"
#include "io/json.hpp"
#include "tasks/task_file.hpp"
#include "tests/fuzz/fuzz.hpp"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace rf;
    const std::string_view all(reinterpret_cast<const char*>(data), size);
    const std::size_t zero = std::min(all.find('\0'), all.size());
    fuzz::may_refuse([&] {
        json::value value = json::parse(all.substr(0, zero), "input.json");
        const std::string text = json::pretty(value);
        fuzz::demand(json::pretty(json::parse(text, "written")) == text);
        if (zero < all.size()) json::set(value, all.substr(zero + 1));
        fuzz::may_refuse([&] {
            BuildCorpusInput input;
            json::read(value, input, {"input.json", ""});
            const json::value written = json::write(input);
            BuildCorpusInput again;
            json::read(json::parse(json::pretty(written), "written"), again, {"written", ""});
            fuzz::demand(json::pretty(json::write(again)) == json::pretty(written));
        });
        tasks::TaskFile task;
        json::read(value, task, {"task.json", ""});
        json::line(json::write(task));
    });
    return 0;
}
