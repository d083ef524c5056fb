#pragma once
/// What ThreadSanitizer is told in the build that looks for races: nothing runs in parallel, but every CUDA thread, every
/// stream and the host is a "fiber" of the sanitizer, ordered by releases and acquires alone. In other builds all of this is
/// empty.

#include <cstddef>

#ifdef RF_EMULATOR_TSAN
#include <sanitizer/tsan_interface.h>
extern "C" {
void __tsan_ignore_thread_begin();
void __tsan_ignore_thread_end();
void __tsan_read_range(void* address, unsigned long bytes);
void __tsan_write_range(void* address, unsigned long bytes);
}
#endif

namespace rf::emulator::races {

#ifdef RF_EMULATOR_TSAN
inline constexpr bool watched = true;
inline void* current() { return __tsan_get_current_fiber(); }
inline void* make() { return __tsan_create_fiber(0); }
/// Goes on as another fiber, without an order between the two.
inline void become(void* fiber) { __tsan_switch_to_fiber(fiber, __tsan_switch_to_fiber_no_sync); }
/// What was done before `release` comes before what follows an `acquire` of the same token.
inline void release(const void* token) { __tsan_release(const_cast<void*>(token)); }
inline void acquire(const void* token) { __tsan_acquire(const_cast<void*>(token)); }
/// An access that compiled code does not show: the emulated libraries are built without the sanitizer.
inline void read(const void* from, std::size_t bytes) {
    if (bytes) __tsan_read_range(const_cast<void*>(from), bytes);
}
inline void write(void* to, std::size_t bytes) {
    if (bytes) __tsan_write_range(to, bytes);
}
/// The emulator's own bookkeeping is nobody's access.
struct Quiet {
    Quiet() { __tsan_ignore_thread_begin(); }
    ~Quiet() { __tsan_ignore_thread_end(); }
    Quiet(const Quiet&) = delete;
    Quiet& operator=(const Quiet&) = delete;
};
/// Within Quiet: an access of the program after all.
struct Seen {
    Seen() { __tsan_ignore_thread_end(); }
    ~Seen() { __tsan_ignore_thread_begin(); }
    Seen(const Seen&) = delete;
    Seen& operator=(const Seen&) = delete;
};
#else
inline constexpr bool watched = false;
inline void* current() { return nullptr; }
inline void* make() { return nullptr; }
inline void become(void*) {}
inline void release(const void*) {}
inline void acquire(const void*) {}
inline void read(const void*, std::size_t) {}
inline void write(void*, std::size_t) {}
struct Quiet {
    Quiet() {}
};
struct Seen {
    Seen() {}
};
#endif

}  // namespace rf::emulator::races
