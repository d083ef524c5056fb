/// What a stream and an event wait for, on a GPU or the emulator. On the CPU nothing is ever waited for.

#include "core/stream.hpp"

#include "core/buffer.hpp"
#include "core/build.hpp"
#include "core/device_memory.hpp"
#include "core/event.hpp"

#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <numeric>
#include <vector>

using namespace rf;

namespace {

constexpr std::int64_t n = 1000, bytes = n * 4;

bool has_gpu() {
    if constexpr (has_cuda) return cuda::device_count() > 0;
    return false;
}

/// Numbers go to the GPU, over to other memory there and back; `wait` comes before the host reads them.
template <class Wait>
void check_round_trip(const Wait& wait) {
    if constexpr (has_cuda) {
        if (!has_gpu()) return;
        const Stream stream(Device::cuda);
        const Buffer there = Buffer::staging(bytes, Device::cuda), back = Buffer::staging(bytes, Device::cuda);
        const Buffer first(bytes, Device::cuda), second(bytes, Device::cuda);
        for (int round = 1; round < 4; ++round) {
            auto* numbers = reinterpret_cast<std::int32_t*>(there.data());
            std::iota(numbers, numbers + n, 1000 * round);
            cuda::copy(stream.handle(), there.data(), first.data(), bytes);
            cuda::copy(stream.handle(), first.data(), second.data(), bytes);
            cuda::copy(stream.handle(), second.data(), back.data(), bytes);
            wait(stream);
            BOOST_TEST(std::equal(numbers, numbers + n, reinterpret_cast<const std::int32_t*>(back.data())));
        }
    }
}

}  // namespace

BOOST_AUTO_TEST_CASE(what_was_put_on_a_stream_is_done_when_it_was_synchronised) {
    check_round_trip([](const Stream& stream) { stream.synchronise(); });
}

BOOST_AUTO_TEST_CASE(what_came_before_an_event_is_done_when_it_was_waited_for) {
    if (!has_gpu()) return;
    Event event(Device::cuda);
    event.wait();  // nothing was recorded
    check_round_trip([&](const Stream& stream) {
        event.record(stream);
        event.wait();
    });
}

BOOST_AUTO_TEST_CASE(a_stream_that_an_event_holds_goes_on_after_it) {
    if constexpr (has_cuda) {
        if (!has_gpu()) return;
        const Stream first(Device::cuda), second(Device::cuda);
        Event event(Device::cuda);
        event.hold(second);  // nothing was recorded
        const Buffer there = Buffer::staging(bytes, Device::cuda), back = Buffer::staging(bytes, Device::cuda), between(bytes, Device::cuda);
        for (int round = 1; round < 8; ++round) {
            auto* numbers = reinterpret_cast<std::int32_t*>(there.data());
            std::iota(numbers, numbers + n, 1000 * round);
            cuda::copy(first.handle(), there.data(), between.data(), bytes);
            event.record(first);
            event.hold(second);
            cuda::copy(second.handle(), between.data(), back.data(), bytes);
            second.synchronise();
            BOOST_TEST(std::equal(numbers, numbers + n, reinterpret_cast<const std::int32_t*>(back.data())));
        }
    }
}

BOOST_AUTO_TEST_CASE(whole_tensors_go_up_and_down) {
    for (const Device device : {Device::cpu, Device::cuda}) {
        if (device == Device::cuda && !has_gpu()) continue;
        const Stream stream(device);
        const Buffer memory(bytes, device);
        const Tensor t = memory.tensor({n}, Dtype::i32);
        std::vector<std::int32_t> numbers(n, -1), found(n, -2);
        download(stream, t, found.data());
        BOOST_TEST(found == std::vector<std::int32_t>(n, 0), "a buffer begins with zeros");
        std::iota(numbers.begin(), numbers.end(), 5);
        upload(stream, numbers.data(), t);
        download(stream, t, found.data());
        BOOST_TEST(found == numbers);
    }
}
