// Ctrl-C and SIGTERM: the run stops at its next look at the transport, keeps the answers it has, and leaves.
//
// The handler only sets a flag and wakes a watchdog. Every rank's engine looks at its transport all the time,
// so a transport that checks the flag is enough to end a run on every rank; the watchdog ends the process
// should that take longer than the grace period (a long read, a large allocation). Further signals change
// nothing.
#pragma once

#include <chrono>

namespace aurora {

/// Installs the handlers of SIGINT and SIGTERM, starts the watchdog and ignores SIGPIPE (a closed output is
/// reported as a failed write). Once per process, before other threads start. mpirun kills about a second
/// after it signals, so `grace` should be shorter.
void install_interrupt_handlers(std::chrono::milliseconds grace);

/// The signal that interrupted this process; 0 for none.
int interrupting_signal();

/// "SIGINT" or "SIGTERM".
const char* signal_name(int signal);

}  // namespace aurora
