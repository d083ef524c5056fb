/// A task file over small data of every format; its rows become examples.

#include "io/files.hpp"
#include "tasks/examples.hpp"
#include "tasks/readers.hpp"
#include "tasks/task_file.hpp"
#include "tests/fuzz/fuzz.hpp"

namespace {

const std::string& data_folder() {
    static const std::string path = [] {
        const auto folder = rf::fuzz::folder() / "data";
        std::filesystem::create_directories(folder);
        rf::write_file(folder / "a.jsonl", "{\"text\":\"中文字\",\"label\":\"b\",\"id\":1,\"list\":[{\"t\":\"文\",\"s\":1,\"e\":2}]}\n{\"text\":\"文\",\"label\":\"a\",\"choices\":[\"一\",\"二\"]}\n");
        rf::write_file(folder / "a.json", "{\"data\":[{\"text\":\"中文\",\"label\":0,\"q\":[{\"question\":\"字\",\"answers\":[{\"text\":\"文\",\"start\":1}]}]}]}");
        rf::write_file(folder / "a.tsv", "text\tlabel\n中文\ta\n文字\tb\n");
        rf::write_file(folder / "a.csv", "text,label\n\"中,文\",a\n文,b\n");
        rf::write_file(folder / "a.txt", "中 B-x\n文 I-x\n\n字 O\n");
        return folder.string();
    }();
    return path;
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace rf;
    static const Vocabulary vocabulary("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n中\n文\n字\n一\na\nb\n", "vocab.txt");
    static const Tokenizer tokenizer(vocabulary);
    const std::string path = (fuzz::folder() / "task.json").string();
    write_file(path, {reinterpret_cast<const char*>(data), size});
    fuzz::may_refuse([&] {
        for (const tasks::Task& task : tasks::read_tasks({path}, data_folder())) {
            const tasks::ExampleMaker maker(task, tokenizer);
            const tasks::Losses losses{[](const std::string&) {}, [](const std::string&) {}, [] {}};
            for (const tasks::Split split : tasks::splits)
                for (const tasks::Source& source : task.source(split))
                    tasks::read_rows(source.files, source.reader, [&](const tasks::Row& row, const tasks::RowPlace&) {
                        if (!maker.is_wanted(row)) return;
                        maker.texts(row);
                        maker.make(row, split, losses);
                    }, [](const tasks::BadRow&, const tasks::RowPlace&) {});
        }
    });
    return 0;
}
