// Times one MoE layer on one rank beside what the device allows: from hidden states, expert ids and weights
// to the combined output, by the operations that the runtime uses for it.
//
// A cell of the table is a shape and a number of tokens. Its layer runs on as many copies of weights and
// activations in turn as it takes that none of them is still in a cache (`rotate_bytes`). Every cell's output
// is compared with float64 for some tokens, and with a second run bit by bit for all.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "benchmarks/suite.h"

namespace aurora::bench {

struct LayerOptions {
  std::vector<std::string> shapes{"all"};  // as parse_layer_shapes takes them
  std::vector<std::int64_t> tokens{1, 2, 4, 8, 16, 64, 256, 512, 1024, 2048, 4096, 8192, 16384};
  std::string routing = "uniform";  // or a routing record
  std::string backend = "cpu";
  std::string dtype;  // empty: bfloat16, on a CPU float32
  int device = 0;
  int num_threads = 1;  // of the CPU's BLAS library
  bool stages = false;  // each stage alone too
  bool graphs = true;   // record the work where the backend can
  double seconds = 0.25;
  double timeout_seconds = 60;
  std::int64_t rotate_bytes = std::int64_t{400} << 20;  // eight times the 50 MiB of an H200's L2
  std::int64_t check_tokens = 4;
  double peak_tflops = 0;           // 0: known, or measured
  double peak_terabytes_per_s = 0;  // 0: known, or measured
  std::uint64_t seed = 1;
};

void run_layer_suite(const LayerOptions& options, const RowVisitor& visit);

}  // namespace aurora::bench
