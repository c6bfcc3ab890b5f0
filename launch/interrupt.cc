#include "launch/interrupt.h"

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <string>
#include <thread>

#include "kernels/error.h"

namespace aurora {
namespace {

// A signal handler can reach globals only.
std::atomic<int> g_signal = 0;
static_assert(std::atomic<int>::is_always_lock_free, "a signal handler must not wait for a lock");
int g_wake_fds[2] = {-1, -1};

extern "C" void on_signal(int signal) {
  int none = 0;
  if (!g_signal.compare_exchange_strong(none, signal)) return;  // launchers and shells may signal twice
  const int saved_errno = errno;
  const char byte = 0;
  [[maybe_unused]] const ssize_t written = write(g_wake_fds[1], &byte, 1);
  errno = saved_errno;
}

void watch(std::chrono::milliseconds grace) {
  char byte = 0;
  while (read(g_wake_fds[0], &byte, 1) < 0 && errno == EINTR) {
  }
  std::this_thread::sleep_for(grace);
  _exit(128 + interrupting_signal());
}

}  // namespace

void install_interrupt_handlers(std::chrono::milliseconds grace) {
  if (pipe2(g_wake_fds, O_CLOEXEC) != 0) {
    throw Error(ErrorKind::kIo, "cannot create a pipe for the interrupt watchdog");
  }
  std::thread(watch, grace).detach();
  struct sigaction action {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
}

int interrupting_signal() { return g_signal; }

const char* signal_name(int signal) { return signal == SIGINT ? "SIGINT" : "SIGTERM"; }

}  // namespace aurora
