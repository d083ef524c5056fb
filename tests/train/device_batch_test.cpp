#include "train/device_batch.hpp"

#include "core/build.hpp"
#include "core/device_memory.hpp"

#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <utility>

using namespace rf;
using tasks::LaneBatch;

namespace {

/// Sequences of these lengths, every third token predicted; ids repeat.
PackedBatch batch_of(const std::vector<int>& lengths) {
    PackedBatch batch;
    batch.cu_seqlens.push_back(0);
    for (const int length : lengths) {
        for (int t = 0; t < length; ++t) {
            if (t % 3 == 0) {
                batch.rows.push_back(static_cast<std::int32_t>(batch.ids.size()));
                batch.targets.push_back(100 + t);
            }
            batch.ids.push_back(1 + (7 * t + length) % 11);
            batch.position.push_back(t);
            batch.token_sample.push_back(static_cast<std::int32_t>(batch.sample.size()) - 3);
        }
        batch.sample.push_back(static_cast<std::int32_t>(batch.sample.size()) - 3);
        batch.cu_seqlens.push_back(static_cast<std::int32_t>(batch.ids.size()));
    }
    return batch;
}

std::vector<std::int32_t> read(const Stream& stream, const ConstTensor& t) {
    std::vector<std::int32_t> values(static_cast<std::size_t>(t.count()));
    download(stream, t, values.data());
    return values;
}

/// What `list` says of the predicted tokens.
std::vector<std::int32_t> of_rows(const PackedBatch& batch, const std::vector<std::int32_t>& list) {
    std::vector<std::int32_t> values;
    for (const std::int32_t row : batch.rows) values.push_back(list[static_cast<std::size_t>(row)]);
    return values;
}

/// `list` and then `filler` up to n values.
std::vector<std::int32_t> filled(std::vector<std::int32_t> list, std::int64_t n, std::int32_t filler) {
    list.resize(static_cast<std::size_t>(n), filler);
    return list;
}

bool has_gpu() {
    if constexpr (has_cuda) return cuda::device_count() > 0;
    return false;
}

}  // namespace

BOOST_AUTO_TEST_CASE(sizes_are_counted_from_the_batch) {
    const PackedBatch batch = batch_of({4, 0, 9, 1});
    const BatchSizes sizes = BatchSizes::of(LaneBatch(batch), group_by_id(batch.ids));
    BOOST_TEST(sizes.tokens == 14);
    BOOST_TEST(sizes.sequences == 4);
    BOOST_TEST(sizes.targets == 2 + 3 + 1);
    std::vector<std::int32_t> ids = batch.ids;
    std::sort(ids.begin(), ids.end());
    BOOST_TEST(sizes.ids == std::unique(ids.begin(), ids.end()) - ids.begin());
    BOOST_TEST(sizes.longest == 9);
}

BOOST_AUTO_TEST_CASE(a_bucket_is_at_least_the_batch_and_little_larger) {
    std::int64_t before = 0;
    double excess = 0;
    for (std::int64_t n = 1; n <= 40000; ++n) {
        const BatchSizes sizes{.tokens = n, .sequences = n, .targets = n, .ids = n, .longest = n}, bucket = sizes.bucket();
        BOOST_TEST_REQUIRE(bucket.tokens >= n);
        BOOST_TEST_REQUIRE(bucket.tokens - n < std::max<std::int64_t>(16, n / 8 + 1));
        BOOST_TEST_REQUIRE(bucket.tokens % 16 == 0);
        BOOST_TEST_REQUIRE(bucket.tokens >= before);
        BOOST_TEST_REQUIRE((bucket.sequences == bucket.tokens && bucket.targets == bucket.tokens && bucket.ids == bucket.tokens));
        BOOST_TEST_REQUIRE((bucket.longest >= n && bucket.longest - n < 64 && bucket.longest % 64 == 0));
        BOOST_TEST_REQUIRE((bucket.bucket() == bucket));
        before = bucket.tokens;
        if (n > 16384 && n <= 32768) excess += static_cast<double>(bucket.tokens - n) / static_cast<double>(n);
    }
    BOOST_TEST(excess / 16384 < 0.05);
    BOOST_TEST(BatchSizes{}.bucket().targets == 0);
    // Near-equal batches share a bucket, others do not.
    BOOST_TEST((BatchSizes{.tokens = 16000, .sequences = 60}.bucket() == BatchSizes{.tokens = 16300, .sequences = 63}.bucket()));
    BOOST_TEST((BatchSizes{.tokens = 16000}.bucket() < BatchSizes{.tokens = 17000}.bucket()));
}

BOOST_AUTO_TEST_CASE(on_the_cpu_it_is_the_batch_itself) {
    const LaneBatch lane(batch_of({4, 9}));
    const PackedBatch& batch = lane.packed;
    IdGroups groups = group_by_id(batch.ids);
    const BatchSizes sizes = BatchSizes::of(lane, groups);
    Stream stream;
    Staging staging(Device::cpu, 2);
    DeviceBatch loaded;
    loaded.load(stream, staging, lane, sizes, groups);
    const BatchView& view = loaded.view();
    BOOST_TEST(view.ids.data == batch.ids.data());
    BOOST_TEST(view.cu_seqlens.data == batch.cu_seqlens.data());
    BOOST_TEST(view.sample.data == batch.sample.data());
    BOOST_TEST(view.origin.sample.data == batch.token_sample.data());
    BOOST_TEST(view.origin.position.data == batch.position.data());
    BOOST_TEST(loaded.view().read.data == batch.rows.data());
    BOOST_TEST(loaded.targets().data == batch.targets.data());
    BOOST_TEST(read(stream, view.read_origin.sample) == of_rows(batch, batch.token_sample));
    BOOST_TEST(read(stream, view.read_origin.position) == of_rows(batch, batch.position));
    BOOST_TEST(view.longest == 9);
    BOOST_TEST(!view.segments);
    BOOST_TEST(read(stream, view.id_tokens) == groups.tokens);
    BOOST_TEST(read(stream, view.id_begin) == groups.begin);
    BOOST_TEST(view.tokens() == 13);
}

BOOST_AUTO_TEST_CASE(without_targets_there_are_empty_lists) {
    PackedBatch batch = batch_of({3});
    batch.rows.clear(), batch.targets.clear();
    Stream stream;
    Staging staging(Device::cpu, 1);
    DeviceBatch loaded;
    IdGroups groups = group_by_id(batch.ids);
    const LaneBatch lane(batch);
    loaded.load(stream, staging, lane, BatchSizes::of(LaneBatch(batch), groups), groups);
    BOOST_TEST(!!loaded.view().read);  // present, with nothing in it
    BOOST_TEST((loaded.view().read.shape == Shape{0}));
}

BOOST_AUTO_TEST_CASE(staging_memory_is_written_again_only_when_its_copy_is_done) {
    if (!has_gpu()) return;
    Stream stream(Device::cuda);
    Staging staging(Device::cuda, 2);
    std::vector<PackedBatch> batches;
    for (const int length : {3, 40, 17, 5, 29, 40}) batches.push_back(batch_of({length, 2}));
    std::vector<DeviceBatch> loaded(batches.size());
    for (std::size_t round = 0; round < 2; ++round) {  // in the second one nothing is allocated, so nothing else waits
        for (std::size_t i = 0; i < batches.size(); ++i) {
            IdGroups groups = group_by_id(batches[i].ids);
            const BatchSizes sizes = BatchSizes::of(LaneBatch(batches[i]), groups);
            loaded[i].load(stream, staging, LaneBatch(batches[i]), sizes, std::move(groups));
        }
        for (std::size_t i = 0; i < batches.size(); ++i) BOOST_TEST(read(stream, loaded[i].view().ids) == batches[i].ids);
    }
}

BOOST_AUTO_TEST_CASE(on_a_gpu_it_is_filled_up_to_its_sizes) {
    if (!has_gpu()) return;
    Stream stream(Device::cuda);
    Staging staging(Device::cuda, 2);
    DeviceBatch loaded;
    // One object takes larger and smaller batches in turn, more of them than there are pieces of staging memory.
    for (const std::vector<int>& lengths : {std::vector<int>{4, 0, 9, 1}, {100, 70, 3}, {2}, {33, 33}}) {
        const PackedBatch batch = batch_of(lengths);
        const IdGroups groups = group_by_id(batch.ids);
        for (const bool exact : {false, true}) {
            const BatchSizes own = BatchSizes::of(LaneBatch(batch), groups), sizes = exact ? own : own.bucket();
            loaded.load(stream, staging, LaneBatch(batch), sizes, groups);
            const BatchView& view = loaded.view();
            std::vector<std::int32_t> order = groups.tokens;
            for (std::int64_t t = batch.tokens(); t < sizes.tokens; ++t) order.push_back(static_cast<std::int32_t>(t));
            BOOST_TEST(read(stream, view.ids) == filled(batch.ids, sizes.tokens, 0));
            BOOST_TEST(read(stream, view.origin.sample) == filled(batch.token_sample, sizes.tokens, 0));
            BOOST_TEST(read(stream, view.origin.position) == filled(batch.position, sizes.tokens, 0));
            BOOST_TEST(read(stream, view.id_tokens) == order);
            BOOST_TEST(read(stream, view.id_begin) == filled(groups.begin, sizes.ids + 1, static_cast<std::int32_t>(batch.tokens())));
            BOOST_TEST(read(stream, view.cu_seqlens) == filled(batch.cu_seqlens, sizes.sequences + 1, static_cast<std::int32_t>(batch.tokens())));
            BOOST_TEST(read(stream, view.sample) == filled(batch.sample, sizes.sequences, 0));
            BOOST_TEST(read(stream, view.read) == filled(batch.rows, sizes.targets, -1));
            BOOST_TEST(read(stream, view.read_origin.sample) == filled(of_rows(batch, batch.token_sample), sizes.targets, 0));
            BOOST_TEST(read(stream, view.read_origin.position) == filled(of_rows(batch, batch.position), sizes.targets, 0));
            BOOST_TEST(read(stream, loaded.targets()) == filled(batch.targets, sizes.targets, -1));
            BOOST_TEST(view.longest == sizes.longest);
        }
    }
}
