// The four schedules and their rivals on the same requests, side by side in one run.
//
// Every variant serves the same prompts with the same models, planned from the same past traffic: that of a
// first run, which is also what the answers are compared with. The variants take turns, in another sequence
// in every repetition, so that what disturbs the machine disturbs all of them. Time runs from the first
// request to the last answer, as the engine's report has it; loading does not count.
//
// On threads the ports are emulated (paced_transport.h), with a bandwidth that makes exchanges take a given
// multiple of compute. Over MPI and NCCL the network is what it is: the machine's, or that of tests/testbed.
// NCCL's ranks compute on GPUs, the others on CPUs.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "benchmarks/suite.h"
#include "scheduler/order_policy.h"

namespace aurora::bench {

struct ColocationOptions {
  std::vector<std::string> models{"launch/configs/tiny-mixtral.cfg", "launch/configs/tiny-qwen3-moe.cfg"};
  std::vector<std::string> variants{"all"};
  std::string transport = "threads";  // or "mpi", "nccl"
  int num_ranks = 2;                  // threads only
  std::vector<double> ratios{1};      // exchange over compute, threads only; 0: ports that take no time
  std::vector<double> ports{1};       // relative bandwidths, rank after rank and again from the front
  std::filesystem::path cluster;      // MPI and NCCL: ports of the network, for the planner
  OrderPolicy order = OrderPolicy::kAurora;  // of all variants
  std::filesystem::path fabric;              // of order auto; empty: measured at the start of each run
  int num_requests = 32;                     // of each model
  int prompt_tokens = 32;
  int max_tokens = 32;
  std::int64_t decode_steps = 4;
  bool worker_streams = false;
  bool deterministic = false;    // so that answers do not depend on what is computed together
  std::filesystem::path traces;  // folder for a trace of one more run of each variant; empty: none
  int repeats = 5;
  int num_assignments = 0;  // of ranks to models at random, for exclusive and lina
  double timeout_seconds = 120;
  std::uint64_t seed = 1;
};

/// A schedule and a placement by the name under which they are compared.
struct ColocationVariant {
  const char* name;
  const char* schedule;
  const char* placement;
};

/// Collective over MPI and NCCL: all ranks call it with the same options; rows are handed over on rank 0.
void run_colocation_suite(const ColocationOptions& options, const RowVisitor& visit);

}  // namespace aurora::bench
