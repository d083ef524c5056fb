#pragma once
/// Checkpoints tensor by tensor, for programs that never hold the whole of one: `roformer convert`.

#include "io/files.hpp"
#include "io/hdf5.hpp"
#include "params/checkpoint.hpp"

#include <filesystem>
#include <string>
#include <vector>

namespace rf {

/// One of the equal leading slices of a logical tensor; the whole of it by default.
struct TensorSlice {
    std::string name;
    std::int64_t index = 0;
    std::int64_t count = 1;
};

/// Writes the weights of a checkpoint in any order, each once, as f32.
class CheckpointSink {
public:
    /// Files go into `folder`, which must exist. `layout`: of one tensor rank.
    CheckpointSink(std::filesystem::path folder, const ParamLayout& layout, CheckpointMeta meta);
    void write(const TensorSlice& slice, const float* data);
    /// Index and digests; every file is flushed. Fails naming what was not written.
    void finish();

private:
    std::filesystem::path folder_, part_;
    const ParamLayout& layout_;
    CheckpointMeta meta_;
    h5::File file_;
    std::vector<FileDigest::Range> ranges_;
    std::vector<std::int64_t> missing_;  ///< elements of each entry that are to come
};

/// Reads the weights of a checkpoint whose files agree with their digests.
class CheckpointSource {
public:
    explicit CheckpointSource(const std::filesystem::path& checkpoint);
    ~CheckpointSource();
    /// `data`: as many numbers as the slice has.
    void read(const TensorSlice& slice, float* data) const;

private:
    h5::File file_;
};

}  // namespace rf
