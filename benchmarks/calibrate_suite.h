// What the planner has to know of a machine, measured on it: how long a MoE layer computes, and how fast
// ports are.
//
// The planner's model of an expert's rank (scheduler/layer_time.h) is a cost for every expert that has a row
// and a cost for every row. Both are fitted here, with a start-up that every rank pays whatever the
// placement, to the times of a grid of batches: a number of experts hit, all with the same number of rows.
// Gate and aggregation are fitted as a start-up and a cost for every token. The costs go into a traffic file;
// the start-ups are only told, as no placement changes them.
//
// Started by mpirun, all ranks measure at the same time, each its own device, and then their ports. Rank 0
// prints and writes; a rank's `compute` is how much faster its layer was than rank 0's, geometric mean over
// the grid.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "benchmarks/layer_suite.h"
#include "benchmarks/suite.h"

namespace aurora::bench {

struct CalibrateOptions {
  LayerOptions layer;             // shapes: exactly one; tokens, routing and stages are not used
  std::vector<std::int64_t> hit;  // experts; empty: an eighth, a quarter, half and all of the shape's
  std::vector<std::int64_t> rows{1, 2, 4, 16, 64, 256};  // of each of them
  std::filesystem::path traffic;                         // to put the costs into
  std::filesystem::path traffic_out;
  std::filesystem::path cluster_out;
  double port_timeout_seconds = 300;  // for all ports
  bool is_under_mpi = false;
};

/// Rows are handed over on rank 0 alone. When one rank fails all of them throw.
void run_calibrate_suite(const CalibrateOptions& options, const RowVisitor& visit);

}  // namespace aurora::bench
