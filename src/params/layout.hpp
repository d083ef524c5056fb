#pragma once
/// Where every parameter stands in the flat buffers. Weights, master weights, gradients and both moments share one
/// layout, so that reduction buckets, optimizer shards and per-tensor norms are plain ranges.

#include "core/tensor.hpp"
#include "kernels/optimizer.hpp"

#include <string>
#include <vector>

namespace rf {

struct ParamSpec {
    std::string name;             ///< logical name, as checkpoints show it
    Shape shape;                  ///< global
    int split_axis = -1;          ///< axis divided over the tensor group; -1: every tensor rank holds it whole
    std::int64_t fan = 0;         ///< of the initialiser (section "Initialisation" of model/config.hpp); 0: starts at `initial`
    double initial = 0;           ///< value of every element where fan is 0
    std::int64_t tensors = 1;     ///< leading slices that count as tensors of their own for trust ratios (q, k, v: 3)
    bool decays = true;           ///< takes part in weight decay
};

struct ParamEntry {
    ParamSpec spec;
    Shape local;                  ///< this tensor rank's part
    std::int64_t split_begin = 0; ///< first global index of it along split_axis
    std::int64_t offset = 0;      ///< first element in the flat buffers
    std::int32_t first_group = 0; ///< its trust-ratio groups are first_group … first_group + tensors - 1
};

/// Handle of a parameter; only ParamLayout makes them.
struct ParamId {
    int index = -1;
};

class ParamLayout {
public:
    /// Segments end at its multiples.
    static constexpr std::int64_t segment_length = 4096;

    explicit ParamLayout(int tensor_rank = 0, int tensor_size = 1) : rank_(tensor_rank), size_(tensor_size) {}

    ParamId add(ParamSpec spec);

    const std::vector<ParamEntry>& entries() const { return entries_; }
    const ParamEntry& operator[](ParamId id) const { return entries_[static_cast<std::size_t>(id.index)]; }
    int tensor_rank() const { return rank_; }
    int tensor_size() const { return size_; }
    /// Elements of this rank's flat buffer, alignment gaps included.
    std::int64_t size() const { return size_total_; }
    /// Parameters of the whole model, over all tensor ranks.
    std::int64_t parameter_count() const;
    std::int32_t group_count() const { return groups_; }
    /// "layer_0/attention/qkv[1]": the tensor of a trust-ratio group.
    std::string group_name(std::int32_t group) const;
    /// The entry's elements cut at multiples of 4096 and at the borders of its groups, in order.
    const std::vector<Segment>& segments() const { return segments_; }

private:
    int rank_;
    int size_;
    std::int64_t size_total_ = 0;
    std::int32_t groups_ = 0;
    std::vector<ParamEntry> entries_;
    std::vector<Segment> segments_;
};

/// First index of part r of n items over `size` ranks: parts differ by at most one.
constexpr std::int64_t part_begin(std::int64_t n, int r, int size) { return n * r / size; }

/// Named tensors over one flat buffer.
class ParamView {
public:
    ParamView() = default;
    ParamView(const ParamLayout& layout, Tensor flat) : layout_(&layout), flat_(flat) {}
    Tensor operator[](ParamId id) const {
        const ParamEntry& entry = (*layout_)[id];
        return flat_.part(entry.offset, entry.local);
    }
    const Tensor& flat() const { return flat_; }

private:
    const ParamLayout* layout_ = nullptr;
    Tensor flat_;
};

}  // namespace rf
