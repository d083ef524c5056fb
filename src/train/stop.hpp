#pragma once
/// Signals that ask a run to stop, looked at between updates: SIGTERM, SIGUSR1 and SIGINT.
/// No thread that computes may ever be interrupted by a handler: oneDNN's f32 products on AVX2 let the stack pointer wander
/// into their workspace on the heap, and the frame of a handler would be written over what lies below it. So every thread
/// blocks these signals, and one thread waits for them.

namespace rf {

/// To be called once, before any other thread is started (MPI starts some). Until `watch_signals` they end the program as
/// ever.
void hold_signals();
/// From now on they only leave a note; a second SIGINT ends the program at once.
void watch_signals();
/// The signal noted so far, or 0.
int noted_signal();

}  // namespace rf
