#include "app/bench_trace.hpp"

#include "app/bench_ops.hpp"
#include "app/command.hpp"
#include "core/build.hpp"
#include "core/log.hpp"
#include "core/op_log.hpp"
#include "io/files.hpp"
#include "io/json.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <filesystem>
#include <fstream>

namespace rf::app {

namespace fs = std::filesystem;

namespace {

constexpr std::array<const char*, 5> lines = {"updates", "compute", "communication", "input", "checkpoint"};
constexpr std::string_view opening = R"({"displayTimeUnit":"ms","otherData":{"program":"roformer)";

int line_of(LoggedOp::Kind kind) {
    switch (kind) {
        case LoggedOp::Kind::compute: return 1;
        case LoggedOp::Kind::communication: return 2;
        case LoggedOp::Kind::input: return 3;
        case LoggedOp::Kind::checkpoint: return 4;
    }
    return 0;
}

std::string quoted(const std::string& text) { return boost::json::serialize(boost::json::value(text)); }

/// What names a process or one of its lines.
std::string label(const char* what, int process, int line, const std::string& key, const std::string& value) {
    return message(",\n{\"name\":\"", what, "\",\"ph\":\"M\",\"pid\":", process, ",\"tid\":", line, ",\"args\":{\"", key, "\":", value, "}}");
}

class Trace {
public:
    /// Finds how far this rank's clock is from rank 0's. Collective.
    explicit Trace(Communicator& world);
    void add(const std::vector<LoggedOp>& ops);
    void add_update(std::int64_t number, double begin, double end) { add(message("update ", number).c_str(), 0, begin, end, ""); }
    /// The events of all ranks as one file's text, on rank 0. Collective.
    std::string gather(const std::string& what);

private:
    void add(const char* name, int line, double begin, double end, const std::string& details);
    Communicator& world_;
    double zero_ = 0;     ///< of the file's time, by this rank's clock
    std::string events_;  ///< each with ",\n" before it
};

Trace::Trace(Communicator& world) : world_(world) {
    // Nobody leaves a barrier before all have come to it. So this clock is ahead of rank 0's by no more than from rank 0's coming to
    // this rank's leaving, and by no less than from rank 0's leaving to this rank's coming, in every one of many barriers.
    constexpr std::int64_t rounds = 100;
    std::vector<double> own, all(static_cast<std::size_t>(2 * rounds * world.size()));
    for (std::int64_t i = 0; i < rounds; ++i) {
        own.push_back(seconds());
        world.barrier();
        own.push_back(seconds());
    }
    Stream host;
    world.all_gather(host, view(std::as_const(own).data(), {2 * rounds}), view(all.data(), {2 * rounds * world.size()}));
    double least = own[0] - all[1], most = own[1] - all[0];
    for (std::size_t i = 0; i < own.size(); i += 2) least = std::max(least, own[i] - all[i + 1]), most = std::min(most, own[i + 1] - all[i]);
    zero_ = all[2 * rounds - 1] + (least + most) / 2;
    char name[256] = "";
    ::gethostname(name, sizeof name - 1);
    const int rank = world.rank();
    events_ += label("process_name", rank, 0, "name", quoted(message("rank ", rank, " on ", name)));
    events_ += label("process_sort_index", rank, 0, "sort_index", message(rank));
    for (int i = 0; i < static_cast<int>(lines.size()); ++i) {
        events_ += label("thread_name", rank, i, "name", quoted(lines[static_cast<std::size_t>(i)]));
        events_ += label("thread_sort_index", rank, i, "sort_index", message(i));
    }
}

void Trace::add(const char* name, int line, double begin, double end, const std::string& details) {
    char text[200];
    std::snprintf(text, sizeof text, R"("ph":"X","pid":%d,"tid":%d,"ts":%.3f,"dur":%.3f)", world_.rank(), line, 1e6 * (begin - zero_), 1e6 * (end - begin));
    events_ += message(",\n{\"name\":", quoted(name), ",\"cat\":\"", lines[static_cast<std::size_t>(line)], "\",", text, ",\"args\":{", details, "}}");
}

void Trace::add(const std::vector<LoggedOp>& ops) {
    for (const LoggedOp& op : ops) {
        std::string details;
        char text[100];
        if (op.shape[0] > 0) details += message("\"shape\":\"", op.shape[0], " x ", op.shape[1], " x ", op.shape[2], "\",");
        if (op.flops > 0 && op.seconds() > 0) {
            std::snprintf(text, sizeof text, "\"GFLOP/s\":%.1f,", 1e-9 * op.flops / op.seconds());
            details += text;
        }
        std::snprintf(text, sizeof text, "\"bytes\":%.0f", op.bytes);
        add(op.name, line_of(op.kind), op.begin, op.end, details + text);
    }
}

std::string Trace::gather(const std::string& what) {
    const auto size = static_cast<std::int64_t>(events_.size());
    const std::vector<std::int64_t> sizes = world_.gather(size);
    // Everything goes to rank 0.
    const bool first = world_.rank() == 0;
    std::vector<std::int64_t> send(sizes.size() + 1, size), recv(sizes.size() + 1, 0);
    send[0] = 0;
    if (first)
        for (std::size_t r = 0; r < sizes.size(); ++r) recv[r + 1] = recv[r] + sizes[r];
    std::string all(static_cast<std::size_t>(recv.back()), ' ');
    Stream host;
    world_.all_to_all(host, events_.data(), send, all.data(), recv);
    if (!first) return {};
    return message(opening, ' ', program_version, "\",\"what\":", quoted(what), "},\"traceEvents\":[\n", std::string_view(all).substr(2), "\n]}\n");
}

/// Removes the folder on rank 0 whatever happens.
class TemporaryFolder {
public:
    TemporaryFolder(fs::path path, Communicator& world) : path_(std::move(path)), world_(world) { remove(); }
    ~TemporaryFolder() { remove(); }
    TemporaryFolder(const TemporaryFolder&) = delete;
    TemporaryFolder& operator=(const TemporaryFolder&) = delete;
    const fs::path& path() const { return path_; }

private:
    void remove() {
        std::error_code ignored;
        if (world_.rank() == 0) fs::remove_all(path_, ignored);
    }
    fs::path path_;
    Communicator& world_;
};

}  // namespace

std::string trace_trouble(const std::string& path) {
    if (const std::string trouble = place_trouble(path); !trouble.empty() || !fs::exists(path)) return trouble;
    std::string there(opening.size(), ' ');
    std::ifstream(path, std::ios::binary).read(there.data(), static_cast<std::streamsize>(there.size()));
    if (there != opening) return path + " is there and no trace of this program (expected one, or no file)";
    return {};
}

void trace_updates(Trainer& trainer, EncoderModel& model, ParallelGrid& grid, const Draw& draw, std::int64_t first, std::int64_t count, const std::string& path) {
    using Drawn = std::pair<std::vector<PackedBatch>, std::vector<LoggedOp>>;
    const Stream host;
    Trace trace(grid.world);
    {
        Prefetcher<Drawn> prefetch(
            [&](std::int64_t n) {
                OpLog log;  // of the thread that draws
                std::vector<PackedBatch> lanes;
                {
                    const OpScope scope(host, {.name = "draw batches", .kind = LoggedOp::Kind::input});
                    lanes = draw(n);
                }
                return Drawn{std::move(lanes), std::move(log.ops)};
            },
            first);
        OpLog log;
        for (std::int64_t n = first; n < first + count; ++n) {
            const Drawn drawn = prefetch.next();
            trace.add(drawn.second);
            const double begin = seconds();
            trainer.update(drawn.first, n, 1e-4, 1);
            trace.add_update(n, begin, seconds());
        }
        trace.add(log.ops);
    }
    const TemporaryFolder folder(path + ".checkpoint.partial", grid.world);
    OpLog log;
    {
        CheckpointWriter writer(folder.path(), grid, model.layout(), 1);
        {
            const OpScope scope(host, {.name = "copy the state", .kind = LoggedOp::Kind::checkpoint, .bytes = static_cast<double>(model.state().bytes())});
            writer.start(model.stream(), model.state(), {.step = first + count - 1, .model = json::pretty(json::write(model.config())), .input = "{}", .identity = "{}"});
        }
        const OpScope scope(host, {.name = "write and flush", .kind = LoggedOp::Kind::checkpoint});
        writer.finish();
    }
    trace.add(log.ops);
    const std::string text = trace.gather(message(count, " updates and a checkpoint, ", grid.data->size(), " data x ", grid.tensor->size(), " tensor ranks"));
    const std::string trouble = trouble_on_rank_0(grid.world, [&] { return write_file_atomically(path, text), std::string(); });
    if (!trouble.empty()) fail(trouble);
    log::info("trace of ", count, " updates and a checkpoint: ", path, " (open it in chrome://tracing or Perfetto)");
}

}  // namespace rf::app
