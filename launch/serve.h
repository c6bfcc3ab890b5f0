// One rank of aurora-serve, from its configuration to its exit code. Everything that can fail is agreed upon
// by all ranks: whatever goes wrong wherever, every rank returns, and one of them has logged the cause.
#pragma once

#include "launch/serve_options.h"
#include "runtime/transport/transport.h"

namespace aurora {

/// What the shell sees.
enum ExitCode : int {
  kExitAnswered = 0,   // every line was answered
  kExitFailed = 1,     // the run failed
  kExitSomeFailed = 2  // some lines failed, all others were answered
};

/// How a rank talks to the others, and the GPU that it computes on if the backend is cuda.
struct RankPlace {
  Resolved transport_choice;
  int device = 0;
  int num_local_ranks = 1;  // processes of the job on this machine
};

/// Collective: all ranks of `transport` call it with the same command. Standard input and output are used on
/// rank 0. Returns the exit code, 128 + signal after an interruption. Throws nothing.
int serve_rank(const CommandLine& command, const RankPlace& place, Transport& transport) noexcept;

/// For a rank that fails before it can serve: tells the other ranks, logs the cause on the rank that has it,
/// and returns the exit code.
int fail_rank(const std::exception& failure, Transport& transport) noexcept;

}  // namespace aurora
