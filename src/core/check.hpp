#pragma once
/// Errors. A message reads: problem (why) what to do. Two kinds reach `main`:
/// `UsageError` (bad usage or input, found before any work: exit code 2) and `Error` (everything else: exit code 1).

#include <sstream>
#include <stdexcept>
#include <string>

namespace rf {

class Error : public std::runtime_error {
    using std::runtime_error::runtime_error;
};

/// Bad usage or bad input. Every rank meets it alike, so only rank 0 prints it.
class UsageError : public Error {
    using Error::Error;
};

/// Joins anything printable into one message.
template <class... Parts>
std::string message(const Parts&... parts) {
    std::ostringstream out;
    (out << ... << parts);
    return out.str();
}

template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
    throw Error(message(parts...));
}

template <class... Parts>
[[noreturn]] void fail_usage(const Parts&... parts) {
    throw UsageError(message(parts...));
}

}  // namespace rf

/// Always on, at public boundaries. Throws rf::Error with file, line and the message.
#define RF_REQUIRE(condition, ...)                                                            \
    do {                                                                                      \
        if (!(condition)) [[unlikely]]                                                        \
            ::rf::fail(__VA_ARGS__, " (", #condition, ", ", __FILE_NAME__, ":", __LINE__, ")"); \
    } while (false)

/// Debug builds only, for inner loops.
#ifdef NDEBUG
#define RF_ASSERT(condition) static_cast<void>(0)
#else
#define RF_ASSERT(condition) RF_REQUIRE(condition, "assertion failed")
#endif
