#include "io/hdf5.hpp"

#include "tests/scratch.hpp"

#include <boost/test/unit_test.hpp>

#include <sys/resource.h>

#include <csignal>
#include <limits>

using namespace rf;

BOOST_AUTO_TEST_CASE(numbers_read_back_as_they_were) {
    const test::Scratch scratch;
    const auto hold = h5::lock();
    const std::vector<double> f64{0.1, -1e300, 5e-324};
    const std::vector<float> f32{0.1F, -3e38F};
    const std::vector<std::int64_t> i64{std::numeric_limits<std::int64_t>::min(), 7};
    const std::vector<std::uint16_t> u16{0, 65535};
    const std::vector<std::uint64_t> u64{std::numeric_limits<std::uint64_t>::max()};
    {
        h5::File file = h5::create_file(scratch("a.h5"));
        h5::Group group = h5::create_group(file, "deep");
        h5::write_vector(file, "f64", f64, {"nats", "a loss"});
        h5::write_vector(file, "f32", f32, {});
        h5::write_vector(group, "i64", i64, {});
        h5::write_vector(file, "u16", u16, {});
        h5::write_vector(file, "u64", u64, {});
        h5::write_vector(file, "none", std::vector<double>{}, {});
    }
    const h5::File file = h5::open_file(scratch("a.h5"));
    BOOST_TEST((h5::read_vector<double>(file, "f64") == f64));
    BOOST_TEST((h5::read_vector<float>(file, "f32") == f32));
    BOOST_TEST((h5::read_vector<std::int64_t>(file, "deep/i64") == i64));
    BOOST_TEST((h5::read_vector<std::uint16_t>(file, "u16") == u16));
    BOOST_TEST((h5::read_vector<std::uint64_t>(file, "u64") == u64));
    BOOST_TEST(h5::read_vector<double>(file, "none").empty());
    BOOST_TEST((h5::list(file) == std::vector<std::string>{"deep", "f32", "f64", "none", "u16", "u64"}));
    BOOST_TEST(h5::exists(file, "deep"));
    BOOST_TEST(!h5::exists(file, "shallow"));
    const h5::Dataset set(H5Dopen2(file, "f64", H5P_DEFAULT));
    BOOST_TEST(h5::string_attribute(set, "units") == "nats");
    BOOST_TEST(h5::string_attribute(set, "description") == "a loss");
}

BOOST_AUTO_TEST_CASE(tensors_keep_their_shape_and_lie_in_one_piece) {
    const test::Scratch scratch;
    const auto hold = h5::lock();
    std::vector<float> data{1, 2, 3, 4, 5, 6};
    {
        h5::File file = h5::create_file(scratch("t.h5"));
        h5::write(file, "w", ConstTensor{data.data(), {2, 3}, Dtype::f32}, {});
    }
    const h5::File file = h5::open_file(scratch("t.h5"));
    const h5::Dataset set(H5Dopen2(file, "w", H5P_DEFAULT));
    const h5::Dataspace space(H5Dget_space(set));
    hsize_t extent[2] = {};
    BOOST_REQUIRE(H5Sget_simple_extent_dims(space, extent, nullptr) == 2);
    BOOST_TEST(extent[0] == 2U);
    BOOST_TEST(extent[1] == 3U);
    BOOST_TEST(H5Dget_offset(set) != HADDR_UNDEF);
    BOOST_TEST((h5::read_vector<float>(file, "w") == data));
}

BOOST_AUTO_TEST_CASE(strings_and_attributes_read_back) {
    const test::Scratch scratch;
    const auto hold = h5::lock();
    const std::vector<std::string> words{"中文", "", "a b"};
    {
        h5::File file = h5::create_file(scratch("s.h5"));
        h5::write_strings(file, "words", words, {});
        h5::set_attribute(file, "text", "词");
        h5::set_attribute(file, "text", "a longer one");  // replaced
        h5::set_attribute(file, "empty", "");
        h5::set_attribute(file, "integer", std::int64_t{-9007199254740993});
        h5::set_attribute(file, "real", 0.1);
    }
    const h5::File file = h5::open_file(scratch("s.h5"));
    BOOST_TEST((h5::read_strings(file, "words") == words));
    BOOST_TEST(h5::string_attribute(file, "text") == "a longer one");
    BOOST_TEST(h5::string_attribute(file, "empty") == "");
    BOOST_TEST(h5::int_attribute(file, "integer") == -9007199254740993);
    BOOST_TEST(h5::double_attribute(file, "real") == 0.1);
    BOOST_TEST(h5::has_attribute(file, "real"));
    BOOST_TEST(!h5::has_attribute(file, "unreal"));
}

BOOST_AUTO_TEST_CASE(equal_content_makes_equal_bytes) {
    const test::Scratch scratch;
    const auto hold = h5::lock();
    for (const char* name : {"a.h5", "b.h5"}) {
        h5::File file = h5::create_file(scratch(name));
        h5::create_group(file, "g");
        h5::write_vector(file, "x", std::vector<double>{1, 2}, {});
    }
    std::ifstream a(scratch / "a.h5", std::ios::binary), b(scratch / "b.h5", std::ios::binary);
    BOOST_TEST((std::string(std::istreambuf_iterator<char>(a), {}) == std::string(std::istreambuf_iterator<char>(b), {})));
}

BOOST_AUTO_TEST_CASE(failures_name_the_file_or_the_name) {
    const test::Scratch scratch;
    const auto hold = h5::lock();
    const auto says = [](auto act, const std::string& part) {
        try {
            act();
            BOOST_ERROR("no error");
        } catch (const Error& e) {
            RF_TEST_HOLDS(e.what(), part);
        }
    };
    says([&] { h5::open_file(scratch("absent.h5")); }, scratch("absent.h5"));
    test::write(scratch / "text.h5", "not HDF5");
    says([&] { h5::open_file(scratch("text.h5")); }, scratch("text.h5"));
    h5::File file = h5::create_file(scratch("a.h5"));
    says([&] { h5::read_vector<double>(file, "absent"); }, "absent");
    says([&] { h5::string_attribute(file, "missing"); }, "missing");
}

BOOST_AUTO_TEST_CASE(a_disk_that_fails_is_told_at_the_end_and_the_library_goes_on) {
    const test::Scratch scratch;
    const auto hold = h5::lock();
    const std::vector<double> much(20000, 1.5);
    {
        // No file may grow beyond 64 KiB: write returns an error then, and the signal that would come with it is ignored.
        const auto signal = std::signal(SIGXFSZ, SIG_IGN);
        rlimit before{};
        getrlimit(RLIMIT_FSIZE, &before);
        const rlimit small{.rlim_cur = 1 << 16, .rlim_max = before.rlim_max};
        setrlimit(RLIMIT_FSIZE, &small);
        h5::File file = h5::create_file(scratch("full.h5"));
        h5::write_vector(file, "much", much, {});
        h5::create_group(file, "after");
        std::string what;
        try {
            h5::close_file(file, scratch("full.h5"));
        } catch (const Error& e) {
            what = e.what();
        }
        setrlimit(RLIMIT_FSIZE, &before);
        std::signal(SIGXFSZ, signal);
        BOOST_TEST(what == "cannot write " + scratch("full.h5") + ": File too large");
    }
    h5::File again = h5::create_file(scratch("full.h5"));
    h5::write_vector(again, "much", much, {});
    h5::close_file(again, scratch("full.h5"));
    BOOST_TEST((h5::read_vector<double>(h5::open_file(scratch("full.h5")), "much") == much));
    BOOST_CHECK_EXCEPTION(h5::create_file(scratch("no/such/folder.h5")), Error,
                          [](const Error& e) { return std::string(e.what()).find("folder.h5: No such file or directory") != std::string::npos; });
}

BOOST_AUTO_TEST_CASE(bytes_before_the_file_are_left_alone_and_the_file_reads_as_any_other) {
    const test::Scratch scratch;
    const auto hold = h5::lock();
    h5::File file = h5::create_file(scratch("reserved.h5"), 512);
    h5::write_vector(file, "a", std::vector<double>{1, 2}, {});
    h5::close_file(file, scratch("reserved.h5"));
    BOOST_TEST((h5::read_vector<double>(h5::open_file(scratch("reserved.h5")), "a") == std::vector<double>{1, 2}));
}

BOOST_AUTO_TEST_CASE(a_size_that_the_file_has_no_room_for_is_refused) {
    const test::Scratch scratch;
    const auto hold = h5::lock();
    h5::File file = h5::create_file(scratch("huge.h5"));
    const hsize_t count = hsize_t{1} << 50, chunk = 1024;
    const h5::Dataspace space(H5Screate_simple(1, &count, nullptr));
    const h5::PropertyList create(H5Pcreate(H5P_DATASET_CREATE));
    H5Pset_chunk(create, 1, &chunk);
    h5::Dataset(H5Dcreate2(file, "huge", H5T_NATIVE_DOUBLE, space, H5P_DEFAULT, create, H5P_DEFAULT));
    h5::close_file(file, scratch("huge.h5"));
    const h5::File read = h5::open_file(scratch("huge.h5"));
    BOOST_CHECK_EXCEPTION(h5::read_vector<double>(read, "huge"), Error, [](const Error& e) { return std::string(e.what()).find("do not fit") != std::string::npos; });
}

BOOST_AUTO_TEST_CASE(a_link_that_leads_elsewhere_is_refused) {
    const test::Scratch scratch;
    const auto hold = h5::lock();
    h5::File file = h5::create_file(scratch("links.h5"));
    H5Lcreate_external("/etc/passwd", "/", file, "out", H5P_DEFAULT, H5P_DEFAULT);
    BOOST_CHECK_THROW(h5::list(file), Error);
}
