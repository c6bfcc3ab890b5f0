// aurora-serve: answers prompts from several mixture-of-experts models on a number of ranks, which are MPI
// processes or threads of this one.
#include <spdlog/spdlog.h>

#include <cstdio>
#include <memory>
#include <thread>
#include <vector>

#include "kernels/backend_registry.h"
#include "kernels/error.h"
#include "launch/interrupt.h"
#include "launch/logging.h"
#include "launch/nccl_environment.h"
#include "launch/serve.h"
#include "launch/serve_options.h"
#include "runtime/transport/mpi_session.h"
#include "runtime/transport/mpi_transport.h"
#include "runtime/transport/thread_transport.h"
#include "runtime/transport/transport_registry.h"

extern char** environ;

namespace aurora {
namespace {

/// mpirun kills about a second after it has passed a signal on.
constexpr std::chrono::milliseconds kInterruptGrace(700);
/// How long the ranks of a failed job wait for each other before MPI ends them all.
constexpr std::chrono::milliseconds kFarewellGrace(500);
/// The same over NCCL, where a rank may need two seconds to end its transfers before it says why it failed.
constexpr std::chrono::milliseconds kNcclFarewellGrace(3000);

Environment environment_lines() {
  Environment lines;
  for (char** line = environ; *line != nullptr; ++line) lines.emplace_back(*line);
  return lines;
}

/// How long the ranks wait for each other before there is an engine: processes of a large job start minutes
/// apart.
constexpr std::chrono::minutes kStartTimeout(5);

std::chrono::milliseconds wait_limit(const CommandLine& command) {
  return engine_options(command.options, {}).timeout;
}

int serve_over_nccl(const CommandLine& command, const Resolved& choice, const MpiSession& session,
                    Transport& control) {
  GpuSeat seat;
  std::unique_ptr<Transport> transport;
  try {
    seat = take_gpu_seat(session, control, kStartTimeout);
    if (session.rank() == 0 && !seat.remark.empty()) spdlog::info("{}", seat.remark);
    transport = create_device_transport(
        control,
        {.device = seat.device, .start_timeout = kStartTimeout, .launch_timeout = wait_limit(command)});
  } catch (const std::exception& failure) {
    return fail_rank(failure, control);
  }
  return serve_rank(command, {choice, seat.device, session.num_local_ranks()}, *transport);
}

int run_on_mpi(const CommandLine& command, const Resolved& choice) {
  MpiSession session;
  int exit_code = kExitFailed;
  {
    const std::unique_ptr<Transport> transport = create_mpi_transport(session);
    exit_code = choice.name == "nccl"
                    ? serve_over_nccl(command, choice, session, *transport)
                    : serve_rank(command, {choice, 0, session.num_local_ranks()}, *transport);
  }
  if (exit_code != kExitAnswered && exit_code != kExitSomeFailed) {
    session.terminate_after_abort(exit_code, choice.name == "nccl" ? kNcclFarewellGrace : kFarewellGrace);
  }
  return exit_code;
}

int run_on_threads(const CommandLine& command, const Resolved& choice) {
  const auto num_ranks = static_cast<int>(std::max<std::int64_t>(1, command.options.ranks));
  ThreadFabric fabric(num_ranks);
  std::vector<int> exit_codes(static_cast<std::size_t>(num_ranks), kExitFailed);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < num_ranks; ++rank) {
    threads.emplace_back([&, rank] {
      const std::unique_ptr<Transport> transport = fabric.connect(rank);
      exit_codes[static_cast<std::size_t>(rank)] = serve_rank(command, {choice, 0, num_ranks}, *transport);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const int exit_code : exit_codes) {
    if (exit_code != kExitAnswered && exit_code != kExitSomeFailed) return exit_code;
  }
  return exit_codes.front();
}

int run(const std::vector<std::string>& arguments, const Environment& environment) {
  const CommandLine command = parse_command_line(arguments, environment);
  const LaunchedProcess launched = launched_process(environment);
  if (command.action == CommandAction::kPrint) {
    if (launched.rank == 0) std::fputs(command.text.c_str(), stdout);
    return kExitAnswered;
  }
  start_logging({command.options.log_level, command.options.quiet});
  set_cuda_environment(launched.num_processes);
  const Resolved choice = resolve_transport(command.options, offered_backends(), launched);
  install_interrupt_handlers(kInterruptGrace);
  return choice.name == "threads" ? run_on_threads(command, choice) : run_on_mpi(command, choice);
}

}  // namespace
}  // namespace aurora

int main(int argc, char** argv) {
  const aurora::Environment environment = aurora::environment_lines();
  try {
    return aurora::run({argv + 1, argv + argc}, environment);
  } catch (const std::exception& error) {
    // Only what every rank finds alike comes here: the command line, or MPI that does not start.
    if (aurora::launched_process(environment).rank == 0)
      std::fprintf(stderr, "aurora-serve: %s\n", error.what());
    return aurora::kExitFailed;
  }
}
