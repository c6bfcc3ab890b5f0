#include "launch/interrupt.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <string>
#include <thread>

#include "kernels/error.h"

namespace aurora {
namespace {

// A signal handler can reach globals only.
volatile std::sig_atomic_t g_signal = 0;
int g_wake_fds[2] = {-1, -1};

extern "C" void on_signal(int signal) {
  if (g_signal != 0) return;  // launchers and shells may signal twice; the watchdog has the last word
  g_signal = signal;
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

class InterruptibleTransport final : public Transport {
 public:
  explicit InterruptibleTransport(Transport& inner) : inner_(inner) {}

  std::string_view name() const override { return inner_.name(); }
  int rank() const override { return inner_.rank(); }
  int num_ranks() const override { return inner_.num_ranks(); }

  Ticket post(std::span<const Message> messages) override {
    stop_if_interrupted();
    return inner_.post(messages);
  }
  bool test(Ticket ticket) override {
    stop_if_interrupted();
    return inner_.test(ticket);
  }
  void progress() override {
    stop_if_interrupted();
    inner_.progress();
  }
  void abort(std::string_view reason) noexcept override { inner_.abort(reason); }

 private:
  static void stop_if_interrupted() {
    const int signal = interrupting_signal();
    if (signal == 0) return;
    throw Error(ErrorKind::kAborted, std::string("interrupted by ") + signal_name(signal));
  }

  Transport& inner_;
};

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

std::unique_ptr<Transport> make_interruptible(Transport& inner) {
  return std::make_unique<InterruptibleTransport>(inner);
}

}  // namespace aurora
