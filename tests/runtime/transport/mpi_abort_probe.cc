// A small job that goes wrong on purpose, for abort_leaves_no_process.sh. Usage: mpi_abort_probe MODE MARKER
//
//   clean    every rank ends well
//   abort    the last rank aborts while the others wait for it; all leave in order with exit code 3
//   silent   the last rank leaves at once without a word, as a crash would
//   deaf     the last rank never makes a call again; the others abort and lose patience with it
//   throw    an exception destroys the session on the last rank
//   wait     all ranks wait for a message that never comes, until a signal ends them
//
// MARKER is not used here: it makes the processes recognisable in the process table.
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>

#include "kernels/error.h"
#include "runtime/transport/mpi_session.h"
#include "runtime/transport/mpi_transport.h"
#include "runtime/transport/wait.h"

namespace {

using aurora::Deadline;
using aurora::Direction;
using aurora::Message;
using aurora::Transport;

constexpr int kExitCode = 3;

Deadline after(std::chrono::seconds time) { return std::chrono::steady_clock::now() + time; }

void wait_for_a_message_that_never_comes(Transport& transport) {
  std::byte memory[8] = {};
  const int peer = (transport.rank() + 1) % transport.num_ranks();
  const Message receive{Direction::kReceive, peer, 1, memory, sizeof(memory)};
  try {
    aurora::wait(transport, transport.post({&receive, 1}), after(std::chrono::seconds(100)), "a message");
  } catch (const aurora::Error& error) {
    transport.abort(error.what());  // the memory goes with this frame
    throw;
  }
}

[[noreturn]] void hang() {
  aurora::IdleBackoff backoff(std::chrono::milliseconds(10));
  for (;;) backoff.pause();
}

// What the last rank does; the others wait for it.
void go_wrong(const std::string& mode, Transport& transport) {
  if (mode == "abort") {
    transport.abort("a drill");
    throw aurora::Error(aurora::ErrorKind::kInternal, "a drill");
  }
  if (mode == "silent") std::_Exit(kExitCode);
  if (mode == "deaf") hang();
  if (mode == "wait") wait_for_a_message_that_never_comes(transport);
}

void run(const std::string& mode, aurora::MpiSession& session) {
  const auto transport = aurora::create_mpi_transport(session);
  const bool is_last = session.rank() == session.num_ranks() - 1;
  aurora::all_gather(*transport, {}, 1, after(std::chrono::seconds(60)), "the start");
  if (session.rank() == 0) {
    std::puts("ready");
    std::fflush(stdout);
  }
  if (mode == "clean") return;
  if (mode == "deaf" && session.rank() == 0) {
    transport->abort("rank 0 has lost patience");
    throw aurora::Error(aurora::ErrorKind::kTimeout, "rank 0 has lost patience");
  }
  if (is_last) {
    go_wrong(mode, *transport);
  } else {
    wait_for_a_message_that_never_comes(*transport);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const std::string mode = argc > 1 ? argv[1] : "clean";
  try {
    aurora::MpiSession session;
    if (mode == "throw" && session.rank() == session.num_ranks() - 1) throw std::runtime_error("a drill");
    try {
      run(mode, session);
    } catch (const aurora::Error& error) {
      std::fprintf(stderr, "probe rank %d: %s\n", session.rank(), error.what());
      session.terminate_after_abort(kExitCode);
      return kExitCode;
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "probe: %s\n", error.what());
    return kExitCode;
  }
  return 0;
}
