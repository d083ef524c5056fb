#include "params/checkpoint.hpp"

#include "core/build.hpp"
#include "core/log.hpp"
#include "io/files.hpp"
#include "io/hdf5.hpp"
#include "io/schema.hpp"
#include "params/checkpoint_index.hpp"

#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <exception>

namespace rf {

namespace fs = std::filesystem;

namespace {

constexpr const char* prefixes[] = {"", "optimizer/m/", "optimizer/v/"};

/// The data rank that writes an entry: the one in whose equal part of the flat array its middle lies. Owned entries are neighbours
/// in the layout. `shard`: elements of such a part.
int owner_of(const ParamEntry& entry, std::int64_t shard) { return static_cast<int>((entry.offset + entry.local.count() / 2) / shard); }

/// Flat range [begin[r], begin[r+1]) of the entries that data rank r writes.
std::vector<std::int64_t> owned_ranges(const ParamLayout& layout, std::int64_t shard, int data_size) {
    std::vector<std::int64_t> begin(static_cast<std::size_t>(data_size) + 1, layout.size());
    for (int r = data_size - 1; r >= 0; --r) {
        begin[static_cast<std::size_t>(r)] = begin[static_cast<std::size_t>(r) + 1];
        for (const ParamEntry& entry : layout.entries())
            if (owner_of(entry, shard) == r) begin[static_cast<std::size_t>(r)] = std::min(begin[static_cast<std::size_t>(r)], entry.offset);
    }
    begin[0] = 0;
    return begin;
}

/// By all threads: the run waits for it.
void copy_bytes(const std::byte* from, std::byte* to, std::int64_t bytes) {
    constexpr std::int64_t most = 1 << 20;
#pragma omp parallel for schedule(static)
    for (std::int64_t at = 0; at < bytes; at += most) std::memcpy(to + at, from + at, static_cast<std::size_t>(std::min(most, bytes - at)));
}

/// `pieces`: what each rank owns of a range of the flat array, rank after rank. `flat`: the range in order.
void put_in_place(const Shards& shards, Range range, std::int64_t item, const std::byte* pieces, std::byte* flat) {
    for (int r = 0; r < shards.ranks(); ++r) {
        for (int b = 0; b < shards.buckets(); ++b) {
            const Range piece = shards.piece(b, r);
            const std::int64_t from = std::max(piece.begin, range.begin), to = std::min(piece.end, range.end);
            if (from >= to) continue;
            copy_bytes(pieces, flat + (from - range.begin) * item, (to - from) * item);
            pieces += (to - from) * item;
        }
    }
}

/// At no instant does a part of it stand under its name: a kill leaves it whole, or a partial one that the next start removes.
fs::path set_aside(const fs::path& path) {
    const fs::path aside = path.string() + ".retired.partial";
    fs::remove_all(aside);
    fs::rename(path, aside);
    return aside;
}

/// Gives a written checkpoint its name. One of the same step (damaged and found so at the start, or of a rename that was said to have
/// failed) leaves only when the new one stands.
void give_name(const fs::path& partial, const fs::path& final) {
    if (!fs::exists(final)) return rename_durably(partial, final);
    const fs::path aside = set_aside(final);
    try {
        rename_durably(partial, final);
    } catch (...) {
        std::error_code ignored;
        if (!fs::exists(final)) fs::rename(aside, final, ignored);
        throw;
    }
    fs::remove_all(aside);
}

}  // namespace

std::string checkpoint_part_name(int tensor_rank, int data_rank) {
    char text[40];
    std::snprintf(text, sizeof text, "%s%03d-%05d.h5", checkpoint_part_prefix, tensor_rank, data_rank);
    return text;
}

void write_checkpoint_index(const fs::path& folder, const CheckpointMeta& meta, const ParamLayout& layout, WritingRanks ranks, std::size_t arrays, Dtype dtype) {
    const fs::path path = folder / "checkpoint.h5";
    const int tensor_size = ranks.tensor;
    // Where a dimension does not divide evenly, offsets differ between tensor ranks, and with them an entry's writer.
    std::vector<ParamLayout> layouts;
    for (int t = 0; t < tensor_size; ++t) {
        layouts.emplace_back(t, tensor_size);
        for (const ParamEntry& entry : layout.entries()) layouts.back().add(entry.spec);
    }
    {
        const auto hold = h5::lock();
        h5::File file = h5::create_file(path);
        h5::set_attribute(file, schema::kind, schema::kind_checkpoint);
        h5::set_attribute(file, schema::version, std::int64_t{1});
        h5::set_attribute(file, "program", message("roformer ", program_version));
        h5::set_attribute(file, "step", meta.step);
        h5::set_attribute(file, "samples", meta.samples);
        h5::set_attribute(file, "model", meta.model);
        h5::set_attribute(file, "input", meta.input);
        h5::set_attribute(file, "identity", meta.identity);
        h5::write_strings(file, "vocab", {meta.vocab}, {"1", "text of vocab.txt"});
        for (std::size_t a = 0; a < arrays; ++a) {
            for (std::size_t e = 0; e < layout.entries().size(); ++e) {
                const ParamEntry& entry = layout.entries()[e];
                const Shape& whole = entry.spec.shape;
                hsize_t dims[Shape::max_rank] = {};
                for (int i = 0; i < whole.rank; ++i) dims[i] = static_cast<hsize_t>(whole[i]);
                const h5::Dataspace space(h5::check(H5Screate_simple(whole.rank, dims, nullptr), path));
                const h5::PropertyList create(h5::check(H5Pcreate(H5P_DATASET_CREATE), path));
                H5Pset_obj_track_times(create, false);
                const std::string name = prefixes[a] + entry.spec.name;
                const int axis = entry.spec.split_axis;
                for (int t = 0; t < (axis < 0 ? 1 : tensor_size); ++t) {
                    hsize_t start[Shape::max_rank] = {}, part[Shape::max_rank];
                    std::copy_n(dims, whole.rank, part);
                    if (axis >= 0) {
                        start[axis] = static_cast<hsize_t>(part_begin(whole[axis], t, tensor_size));
                        part[axis] = static_cast<hsize_t>(part_begin(whole[axis], t + 1, tensor_size)) - start[axis];
                    }
                    const h5::Dataspace source(h5::check(H5Screate_simple(whole.rank, part, nullptr), path));
                    const h5::Dataspace target(h5::check(H5Scopy(space), path));
                    h5::check(H5Sselect_hyperslab(target, H5S_SELECT_SET, start, nullptr, part, nullptr), path);
                    const ParamLayout& part_layout = layouts[static_cast<std::size_t>(t)];
                    const int owner = owner_of(part_layout.entries()[e], Shards(part_layout.size(), ranks.data).shard_size());
                    h5::check(H5Pset_virtual(create, target, checkpoint_part_name(t, owner).c_str(), name.c_str(), source), path);
                }
                const h5::PropertyList links(h5::check(H5Pcreate(H5P_LINK_CREATE), path));
                H5Pset_create_intermediate_group(links, 1);
                const h5::Dataset set(h5::check(H5Dcreate2(file, name.c_str(), h5::native_type(dtype), space, links, create, H5P_DEFAULT), name));
                h5::set_attribute(set, "units", "1");
            }
        }
        h5::close_file(file, path.string());
    }
    write_digest(path, {});
}

/// What this rank writes of the copy, and where its writing stands.
struct CheckpointWriter::Job {
    CheckpointMeta meta;
    std::int64_t shard = 0;           ///< elements of a data rank
    std::int64_t begin = 0;           ///< first flat element of the owned entries
    std::size_t arrays = 0;           ///< how many of weights, m, v, f32 or f64
    Dtype dtype = Dtype::f32;
    fs::path partial, final;
    std::atomic<State> state{State::busy};
    std::exception_ptr error;
    bool published = false;

    void run(auto&& work) {
        try {
            work();
            state = State::done;
        } catch (...) {
            error = std::current_exception();
            state = State::failed;
        }
    }
};

CheckpointWriter::CheckpointWriter(fs::path folder, ParallelGrid& grid, const ParamLayout& layout, std::int64_t keep)
    : folder_(std::move(folder)), grid_(grid), layout_(layout), keep_(keep) {}

CheckpointWriter::~CheckpointWriter() {
    if (thread_.joinable()) thread_.join();
}

std::int64_t checkpoint_copy_bytes(const ParamLayout& layout, const Shards& shards, Dtype dtype) {
    const std::vector<std::int64_t> owned = owned_ranges(layout, shards.shard_size(), shards.ranks());
    std::int64_t most = 0;
    for (std::size_t r = 0; r + 1 < owned.size(); ++r) most = std::max(most, owned[r + 1] - owned[r]);
    return (shards.ranks() > 1 ? 4 : 3) * most * size_of(dtype);
}

CheckpointWriter::State CheckpointWriter::local_state() const {
    if (!job_) return State::idle;
    const State state = job_->state;
    return job_->published && state != State::failed ? State::idle : state;
}

void CheckpointWriter::start(const Stream& stream, const ParamState& state, const CheckpointMeta& meta, bool gives_way) {
    finish();
    auto job = std::make_unique<Job>();
    job->meta = meta;
    job->shard = state.shard_size();
    job->dtype = state.master().dtype;
    job->final = checkpoint_path(folder_, meta.step);
    job->partial = job->final.string() + ".partial";
    std::string trouble;
    if (grid_.world.rank() == 0) {
        std::error_code error;
        fs::create_directories(job->partial, error);
        if (error) trouble = message("the checkpoint of step ", meta.step, " could not be written (cannot create ", job->partial.string(), ": ", error.message(),
                                     "); the one before it is untouched");
    }
    grid_.world.broadcast(trouble, 0);
    if (!trouble.empty()) throw CheckpointFailure(trouble);

    // Whole tensors to their writers. What a writer gets of a shard is one run of it: pieces and entries are in the same order.
    const int size = grid_.data->size(), me = grid_.data->rank();
    const std::vector<std::int64_t> owned = owned_ranges(layout_, job->shard, size);
    const auto at = [](const auto& list, int r) { return list[static_cast<std::size_t>(r)]; };
    const std::int64_t item = size_of(job->dtype), first = at(owned, me), last = at(owned, me + 1);
    const Shards& shards = state.shards();
    std::vector<std::int64_t> send, recv{0};
    for (int r = 0; r <= size; ++r) send.push_back(shards.owned_before(at(owned, r), me) * item);
    for (int r = 0; r < size; ++r) recv.push_back(recv.back() + (shards.owned_before(last, r) - shards.owned_before(first, r)) * item);
    job->begin = first;
    Stream host;
    Buffer copy;
    const std::int64_t bytes = (last - first) * item;
    if (size > 1 && pieces_.size() != bytes) pieces_ = Buffer(bytes);
    for (const Tensor& shard : {state.master(), state.m(), state.v()}) {
        if (!shard) continue;
        const auto* from = static_cast<const std::byte*>(shard.data);
        if (stream.device() != Device::cpu) {
            if (copy.size() == 0) copy = Buffer(shard.bytes());
            download(stream, shard, copy.data());
            from = copy.data();
        }
        if (size > 1) grid_.data->all_to_all(host, from, send, pieces_.data(), recv);
        if (copies_.size() == job->arrays) copies_.emplace_back();
        Buffer& array = copies_[job->arrays++];
        if (array.size() != bytes) array = Buffer(bytes);
        put_in_place(shards, {first, last}, item, size > 1 ? pieces_.data() : from + send.front(), array.data());
    }
    job_ = std::move(job);
    thread_ = std::thread([this, gives_way, job = job_.get()] {
        if (gives_way) setpriority(PRIO_PROCESS, 0, 10);  // of this thread
        job->run([&] { write_part(*job); });
    });
}

void CheckpointWriter::write_part(const Job& job) const {
    const fs::path path = job.partial / checkpoint_part_name(grid_.tensor->rank(), grid_.data->rank());
    std::vector<FileDigest::Range> ranges;
    {
        const auto hold = h5::lock();
        h5::File file = h5::create_file(path);
        h5::set_attribute(file, schema::kind, schema::kind_checkpoint_part);
        h5::set_attribute(file, schema::version, std::int64_t{1});
        for (std::size_t a = 0; a < job.arrays; ++a) {
            for (const ParamEntry& entry : layout_.entries()) {
                if (owner_of(entry, job.shard) != grid_.data->rank()) continue;
                if (entry.spec.split_axis < 0 && grid_.tensor->rank() != 0) continue;
                const std::string name = prefixes[a] + entry.spec.name;
                const Tensor part = copies_[a].tensor(entry.local, job.dtype, (entry.offset - job.begin) * size_of(job.dtype));
                const h5::Dataset set = h5::write(file, name, part, {"1", "part of a logical tensor; checkpoint.h5 shows it whole"});
                const auto begin = static_cast<std::int64_t>(H5Dget_offset(set));
                ranges.push_back({name, begin, begin + part.bytes()});
            }
        }
        h5::close_file(file, path.string());
    }
    write_digest(path, std::move(ranges));
}

void CheckpointWriter::write_index(const Job& job) const {
    write_checkpoint_index(job.partial, job.meta, layout_, {grid_.tensor->size(), grid_.data->size()}, job.arrays, job.dtype);
    sync_path(job.partial);
    if (!job.meta.journal.empty()) sync_path(job.meta.journal);
    give_name(job.partial, job.final);
}

void CheckpointWriter::retire(std::int64_t newest) const {
    // Nothing older goes unless the newest is whole where readers will look for it.
    if (const std::string damage = find_checkpoint_damage(checkpoint_path(folder_, newest), {.parts = 0}); !damage.empty()) fail(damage);
    std::int64_t kept = 0;
    for (const std::int64_t step : checkpoint_steps(folder_)) {
        if (step > newest || ++kept <= keep_ || step == protected_) continue;
        fs::remove_all(set_aside(checkpoint_path(folder_, step)));
    }
}

void CheckpointWriter::publish() {
    if (!job_ || job_->published) return;
    if (thread_.joinable()) thread_.join();
    job_->published = true;
    if (grid_.world.rank() != 0) return;
    job_->state = State::busy;
    thread_ = std::thread([this, job = job_.get()] {
        job->run([&] {
            write_index(*job);
            try {
                retire(job->meta.step);
            } catch (const std::exception& e) {
                log::warning("older checkpoints in ", folder_.string(), " could not be removed (", e.what(), "); it is tried again after the next");
            }
        });
    });
}

void CheckpointWriter::finish() {
    if (!job_) return;
    const auto agree = [&] {
        if (thread_.joinable()) thread_.join();
        const bool failed = job_->state == State::failed;
        std::string text;
        if (failed) {
            try {
                std::rethrow_exception(job_->error);
            } catch (const std::exception& e) {
                text = e.what();
            }
        }
        const std::vector<std::int64_t> all = grid_.world.gather(failed);
        for (int r = 0; r < grid_.world.size(); ++r) {
            if (!all[static_cast<std::size_t>(r)]) continue;
            grid_.world.broadcast(text, r);
            const std::int64_t step = job_->meta.step;
            // No thread of any rank works in it any more. What stays of it, where not even this can be done, goes at the next start.
            std::error_code ignored;
            if (grid_.world.rank() == 0) fs::remove_all(job_->partial, ignored);
            job_.reset();
            throw CheckpointFailure(message("the checkpoint of step ", step, " could not be written (rank ", r, ": ", text, "); the one before it is untouched"));
        }
    };
    agree();
    publish();
    agree();
    durable_ = job_->meta.step;
    job_.reset();
}

fs::path checkpoint_path(const fs::path& folder, std::int64_t step) {
    char name[40];
    std::snprintf(name, sizeof name, "step-%08lld", static_cast<long long>(step));
    return folder / name;
}

std::vector<std::int64_t> checkpoint_steps(const fs::path& folder) {
    std::vector<std::int64_t> steps;
    if (!fs::is_directory(folder)) return steps;
    for (const auto& entry : fs::directory_iterator(folder)) {
        const std::string name = entry.path().filename();
        std::int64_t step = 0;
        if (!name.starts_with("step-")) continue;
        const auto [end, error] = std::from_chars(name.data() + 5, name.data() + name.size(), step);
        if (error == std::errc() && end == name.data() + name.size()) steps.push_back(step);
    }
    std::sort(steps.rbegin(), steps.rend());
    return steps;
}

fs::path find_checkpoint(const fs::path& given, const std::string& place) {
    if (fs::exists(given / "checkpoint.h5")) {
        if (const std::string damage = find_checkpoint_damage(given, {.parts = 0}); !damage.empty()) fail_usage(place, " ", damage);
        return given;
    }
    for (const fs::path& folder : {given / "checkpoints", given})
        for (const std::int64_t step : checkpoint_steps(folder))
            if (find_checkpoint_damage(checkpoint_path(folder, step), {.parts = 0}).empty()) return checkpoint_path(folder, step);
    fail_usage(place, " ", given.string(), ": neither a checkpoint nor a folder with a whole one");
}

void remove_partial_checkpoints(const fs::path& folder) {
    if (!fs::is_directory(folder)) return;
    for (const auto& entry : fs::directory_iterator(folder))
        if (entry.path().filename().string().starts_with("step-") && entry.path().extension() == ".partial") fs::remove_all(entry.path());
}

}  // namespace rf
