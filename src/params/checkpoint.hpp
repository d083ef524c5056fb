#pragma once
/// Checkpoints: a folder `step-00012000` with one plain HDF5 file a writing rank and `checkpoint.h5`, in which every
/// logical tensor stands whole under its own name (virtual datasets): weights at the root, moments under
/// `optimizer/m` and `optimizer/v`. The folder is written as `step-….partial`, flushed, then renamed: it is whole or
/// absent. Beside each file lies its digest. Any tensor × data split can read what any other wrote.

#include "core/check.hpp"
#include "io/files.hpp"
#include "params/state.hpp"

#include <atomic>
#include <filesystem>
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace rf {

/// What a checkpoint says besides its tensors.
struct CheckpointMeta {
    std::int64_t step = 0;       ///< updates done
    std::int64_t samples = 0;    ///< data cursor: sequences consumed
    std::string model;           ///< JSON
    std::string input;           ///< JSON, as resolved
    std::string identity;        ///< JSON of what may not change within an output folder
    std::string vocab;           ///< text of vocab.txt, so that a checkpoint can be used alone
    std::filesystem::path journal;  ///< a file that must be on the disk before the checkpoint counts; not stored, may be empty
};

/// A checkpoint could not be written. Every rank meets it alike; those before are untouched and the next may be tried.
class CheckpointFailure : public Error {
    using Error::Error;
};

/// Writes checkpoints behind the training loop. Collective calls: `start`, `finish`. Between them `local_state` tells how
/// this rank's thread fares; once every rank reports `done`, `publish` (on every rank, no communication) completes it.
class CheckpointWriter {
public:
    enum class State { idle, busy, done, failed };

    CheckpointWriter(std::filesystem::path folder, ParallelGrid& grid, const ParamLayout& layout, std::int64_t keep);
    ~CheckpointWriter();

    /// Copies the state, so that the next update may run, and writes it on a thread. Finishes an earlier one first. Throws a
    /// CheckpointFailure on every rank where there is no place to write. `gives_way`: the thread runs at a lower priority, beside updates that go on.
    void start(const Stream& stream, const ParamState& state, const CheckpointMeta& meta, bool gives_way = false);
    State local_state() const;
    /// All ranks are done: rank 0 makes checkpoint.h5, renames the folder and retires old ones, on its thread.
    void publish();
    /// Waits until what was started is durable. Otherwise throws the first rank's error on every rank as a CheckpointFailure, with what was
    /// written removed.
    void finish();
    /// This step's checkpoint stays, whatever is newer; the one protected before no longer does.
    void protect(std::int64_t step) { protected_ = step; }
    /// Steps whose checkpoint is on disk for good, for messages; rank 0 only.
    std::int64_t last_durable() const { return durable_; }

private:
    struct Job;
    void write_part(const Job& job) const;
    void write_index(const Job& job) const;
    void retire(std::int64_t newest) const;

    std::filesystem::path folder_;
    ParallelGrid& grid_;
    const ParamLayout& layout_;
    std::int64_t keep_;
    std::int64_t durable_ = -1;
    std::atomic<std::int64_t> protected_ = -1;
    std::vector<Buffer> copies_;  ///< weights, m, v of the owned range, kept from checkpoint to checkpoint: new memory would take longer than the copy
    Buffer pieces_;               ///< of one array, as other ranks send them
    std::unique_ptr<Job> job_;
    std::thread thread_;
};

/// Host memory of the rank that writes most, from the first checkpoint on: whole tensors of three arrays (master, m, v), and of several data ranks
/// the pieces of one as they arrive.
std::int64_t checkpoint_copy_bytes(const ParamLayout& layout, const Shards& shards, Dtype dtype);

std::filesystem::path checkpoint_path(const std::filesystem::path& folder, std::int64_t step);
/// Steps of the folders `step-N` in `folder`, newest first.
std::vector<std::int64_t> checkpoint_steps(const std::filesystem::path& folder);
/// The checkpoint that a user means by `given`: itself, or the newest in it or its folder `checkpoints` that has all its files, of the right
/// sizes, and a whole index. What the tensors hold is checked as they are read. Throws a UsageError that begins with `place` otherwise.
std::filesystem::path find_checkpoint(const std::filesystem::path& given, const std::string& place);
/// Deletes `step-*.partial` left by killed runs.
void remove_partial_checkpoints(const std::filesystem::path& folder);

/// Empty when every file of a checkpoint agrees with its digest; otherwise the first damage found in this share of the files' blocks. The
/// index, which is small, is always looked at whole.
std::string find_checkpoint_damage(const std::filesystem::path& checkpoint, BlockShare share = {});

/// The files a checkpoint consists of, as its index tells; the index alone when that is damaged.
std::vector<std::filesystem::path> checkpoint_parts(const std::filesystem::path& checkpoint);
CheckpointMeta read_checkpoint_meta(const std::filesystem::path& checkpoint);
/// Fills master (and m, v where the state has them and the file too) with this rank's shard. Names and shapes must agree with
/// the layout; a UsageError names the first difference, Damage a block that is not what its digest says. Tensors whose name begins with `optional` (where not empty) may be missing and are
/// left as they are, their moments too. Returns whether moments were read.
bool read_checkpoint(const std::filesystem::path& checkpoint, const Stream& stream, const ParamLayout& layout, const ParamState& state,
                     const std::string& optional = {});

/// Digests over the logical tensors in order of their names: equal states give equal digests however they are split.
struct CheckpointDigest {
    std::string weights;
    std::string state;  ///< weights, moments, step and cursor
};
CheckpointDigest digest_checkpoint(const std::filesystem::path& checkpoint);

/// Name and shape of every logical tensor, sorted by name.
std::vector<std::pair<std::string, Shape>> list_checkpoint(const std::filesystem::path& checkpoint);

}  // namespace rf
