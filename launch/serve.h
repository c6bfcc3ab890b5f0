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

/// Collective: all ranks of `transport` call it with the same command. Standard input and output are used on
/// rank 0. Returns the exit code, 128 + signal after an interruption. Throws nothing.
int serve_rank(const CommandLine& command, const Resolved& transport_choice, Transport& transport) noexcept;

}  // namespace aurora
