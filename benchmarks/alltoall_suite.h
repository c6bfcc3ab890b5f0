// Times one exchange under every policy, over a real transport, beside what the ports allow.
//
// Collective: every rank of an MPI job calls `run_alltoall_suite` with the same options. Rank 0 makes the
// matrices and sends them to the others; all ranks plan for themselves, as a serving job does. The policies
// of a row's matrix take turns, in another sequence in every repetition, so that what disturbs the machine
// disturbs all of them. A repetition: the receive buffer is wiped, all ranks meet, each takes the time from
// there to the end of its part, and what came is compared word by word.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "benchmarks/suite.h"
#include "scheduler/units.h"

namespace aurora::bench {

struct AlltoallOptions {
  std::filesystem::path matrix;        // this matrix instead of families
  std::vector<std::string> families;   // names of traffic/named_traffic.h, or {"all"}
  std::vector<Bytes> bytes_per_rank;   // of the most loaded port; empty: a matrix as it is, families 2 MiB
  std::filesystem::path matrices_out;  // folder for the matrices as scaled, for peers; empty: nowhere
  std::vector<std::string> policies{"all"};
  std::string transport = "mpi";
  std::filesystem::path cluster;     // ports from a cluster file
  std::vector<double> ports_gbps;    // or these; neither: no bounds, and plans are for equal ports
  Bytes burst_bytes = 0;             // that a shaped port lets pass at once: taken out of the bounds
  std::filesystem::path fabric;      // what exchanges cost, for auto and predictions; empty: measured
  std::filesystem::path fabric_out;  // where to write it; empty: nowhere
  double round_cost_us = 10;         // start-up of a round, for policy aurora
  int repeats = 20;
  double timeout_seconds = 60;  // for one exchange
  std::uint64_t seed = 1;
  std::filesystem::path routing_folder = "benchmarks/routing";
};

/// Rows are handed over on rank 0 alone. When one rank fails all of them throw.
void run_alltoall_suite(const AlltoallOptions& options, const RowVisitor& visit);

}  // namespace aurora::bench
