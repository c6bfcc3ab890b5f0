// A small job of exchanges over NCCL that goes wrong on purpose, for nccl_ends_with_one_cause.sh.
// Usage: nccl_abort_probe MODE MARKER
//
//   clean   every rank ends well
//   kill    the last rank is killed (SIGKILL) in the middle of an exchange
//   stop    the last rank is stopped (SIGSTOP) in the middle of an exchange
//   deaf    the last rank never posts again
//   abort   the last rank aborts in the middle of an exchange
//
// Every rank that ends prints "probe rank R: ends", and before it either "cause: ..." or "heard: ...". MARKER
// makes the processes recognisable in the process table. Without a GPU the program ends with 77.
#include <chrono>
#include <csignal>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "kernels/backend_registry.h"
#include "kernels/error.h"
#include "launch/nccl_environment.h"
#include "launch/rank_transport.h"
#include "runtime/transport/mpi_session.h"
#include "runtime/transport/mpi_transport.h"
#include "runtime/transport/transport_registry.h"
#include "runtime/transport/wait.h"

namespace {

using aurora::Deadline;
using aurora::Direction;
using aurora::Message;
using aurora::Transport;

constexpr int kExitCode = 3;
constexpr int kNumExchanges = 10;
constexpr int kDrillExchange = 5;
constexpr std::size_t kPairBytes = std::size_t{8} << 20;
constexpr std::chrono::seconds kPatience(3);
constexpr std::chrono::seconds kGrace(4);  // for ranks that are still ending their transfers

Deadline after(std::chrono::seconds time) { return std::chrono::steady_clock::now() + time; }

// What the last rank does once its half of an exchange is posted.
void go_wrong(const std::string& mode, Transport& transport) {
  if (mode == "kill") std::raise(SIGKILL);
  if (mode == "stop") std::raise(SIGSTOP);
  if (mode == "abort") throw aurora::Error(aurora::ErrorKind::kInternal, "a drill");
  if (mode != "deaf") return;
  for (aurora::IdleBackoff backoff(std::chrono::milliseconds(1));; backoff.pause()) transport.progress();
}

class Exchange {
 public:
  Exchange(aurora::Backend& backend, const Transport& transport) {
    for (int peer = 0; peer < transport.num_ranks(); ++peer) {
      if (peer == transport.rank()) continue;
      for (const Direction direction : {Direction::kSend, Direction::kReceive}) {
        memory_.push_back(backend.allocate(kPairBytes, aurora::MemorySpace::kDevice));
        messages_.push_back({direction, peer, 0, memory_.back().data(), kPairBytes});
      }
    }
  }

  void run(const std::string& mode, Transport& transport) {
    for (int index = 0; index < kNumExchanges; ++index) {
      const bool is_drill = index == kDrillExchange && transport.rank() == transport.num_ranks() - 1;
      if (is_drill && mode == "deaf") go_wrong(mode, transport);
      const aurora::Ticket ticket = transport.post_on_device(messages_, {});
      if (is_drill) go_wrong(mode, transport);
      aurora::wait(transport, ticket, after(kPatience), "exchange " + std::to_string(index));
    }
  }

 private:
  std::vector<aurora::Buffer> memory_;
  std::vector<Message> messages_;
};

// Returns the exit code.
int run(const std::string& mode, aurora::MpiSession& session) {
  const auto control = aurora::create_mpi_transport(session);
  const aurora::GpuSeat seat = aurora::take_gpu_seat(session, *control, std::chrono::minutes(1));
  const auto backend = aurora::create_backend("cuda", {.device = seat.device});
  const auto inner = aurora::create_device_transport(*control, {.device = seat.device});
  aurora::RankTransport transport(*inner);
  Exchange exchange(*backend, transport);
  try {
    exchange.run(mode, transport);
    aurora::all_gather(transport, {}, 1, after(std::chrono::seconds(60)), "the end");
    return 0;
  } catch (const aurora::Error& error) {
    if (error.kind() != aurora::ErrorKind::kAborted) transport.abort(error.what());
    const bool has_heard = error.kind() == aurora::ErrorKind::kAborted || transport.earlier_abort();
    std::fprintf(stderr, "probe rank %d: %s: %s\n", session.rank(), has_heard ? "heard" : "cause",
                 transport.earlier_abort().value_or(error.what()).c_str());
    return kExitCode;
  }
}

}  // namespace

int main(int argc, char** argv) {
  const std::string mode = argc > 1 ? argv[1] : "clean";
  if (aurora::visible_gpu_uuids().empty()) {
    std::puts("SKIP: no GPU is visible");
    return 77;
  }
  try {
    aurora::MpiSession session;
    const int exit_code = run(mode, session);
    std::fprintf(stderr, "probe rank %d: ends\n", session.rank());
    if (exit_code != 0) session.terminate_after_abort(exit_code, kGrace);
    return exit_code;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "probe: %s\n", error.what());
    return kExitCode;
  }
}
