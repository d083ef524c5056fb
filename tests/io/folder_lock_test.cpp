#include "io/folder_lock.hpp"

#include "io/files.hpp"
#include "tests/scratch.hpp"

#include <boost/test/unit_test.hpp>

#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ctime>

using namespace rf;
namespace fs = std::filesystem;

namespace {

std::string host() {
    char name[256] = "";
    gethostname(name, sizeof name - 1);
    return name;
}

std::string lock_text(const std::string& on, long long pid, const std::string& job, long long age) {
    return message("roformer-lock 1\nhost ", on, "\npid ", pid, "\njob ", job, "\nsince ", std::time(nullptr) - age, '\n');
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_folder_is_held_by_one_and_given_back) {
    const test::Scratch scratch;
    const fs::path folder = scratch / "deep/out";
    {
        const FolderLock first(folder);
        RF_TEST_HOLDS(read_file(folder / ".lock"), message("host ", host(), "\npid ", getpid()));
        const std::string text = test::refusal([&] { FolderLock second(folder); });
        RF_TEST_HOLDS(text, message("is in use by process ", getpid(), " on host ", host()));
        BOOST_TEST(fs::exists(folder / ".lock"));
    }
    BOOST_TEST(!fs::exists(folder / ".lock"));
    const FolderLock again(folder);
}

BOOST_AUTO_TEST_CASE(moving_a_lock_keeps_it) {
    const test::Scratch scratch;
    FolderLock lock;
    lock = FolderLock(scratch.path());
    BOOST_TEST(test::refusal([&] { FolderLock second(scratch.path()); }) != "no error");
    const FolderLock moved = std::move(lock);
    BOOST_TEST(test::refusal([&] { FolderLock second(scratch.path()); }) != "no error");
}

BOOST_AUTO_TEST_CASE(what_a_killed_process_of_this_host_left_is_taken_over) {
    const test::Scratch scratch;
    const pid_t child = fork();
    if (child == 0) {
        const FolderLock lock(scratch.path());
        _exit(0);  // as a kill would: nothing is given back
    }
    int status = 0;
    waitpid(child, &status, 0);
    BOOST_TEST(fs::exists(scratch / ".lock"));
    BOOST_TEST(test::refusal([&] { FolderLock lock(scratch.path()); }) == "no error");
}

BOOST_AUTO_TEST_CASE(another_host_is_named_and_explained) {
    const test::Scratch scratch;
    test::write(scratch / ".lock", lock_text("n0815", 4711, "99", 3 * 86400));
    const std::string text = test::refusal([&] { FolderLock lock(scratch.path()); });
    RF_TEST_HOLDS(text, "is held by process 4711 on host n0815, Slurm job 99, for 3 days");
    RF_TEST_HOLDS(text, "remove " + scratch(".lock") + " and start again");
    setenv("SLURM_JOB_ID", "99", 1);
    BOOST_TEST(test::refusal([&] { FolderLock lock(scratch.path()); }) == "no error");
    unsetenv("SLURM_JOB_ID");
}

BOOST_AUTO_TEST_CASE(a_lock_from_the_future_has_age_zero) {
    const test::Scratch scratch;
    test::write(scratch / ".lock", lock_text("n0815", 1, "-", -5000));
    RF_TEST_HOLDS(test::refusal([&] { FolderLock lock(scratch.path()); }), "for 0 s");
}

BOOST_AUTO_TEST_CASE(files_are_made_with_the_users_umask) {
    const test::Scratch scratch;
    const mode_t before = umask(027);
    const FolderLock lock(scratch / "a");
    write_file_atomically(scratch / "b", "x");
    umask(before);
    for (const fs::path& path : {scratch / "a/.lock", scratch / "b"}) {
        struct stat about {};
        BOOST_TEST(stat(path.c_str(), &about) == 0);
        BOOST_TEST((about.st_mode & 0777) == 0640U);
    }
}
