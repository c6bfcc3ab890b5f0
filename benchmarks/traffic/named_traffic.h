// Traffic matrices by name, for measuring exchanges: what MoE layers send, and the shapes on which orders
// differ. A name, a seed and a number of GPUs give the same matrix on every machine with the same standard
// library; whoever needs it on several machines sends it to them.
//
//   uniform          random entries, all alike
//   uneven-sources   senders with 1, 1/2, 1/3, ... of the tokens
//   zipf-receivers   receivers with 1, 1/2, 1/3, ... of the tokens
//   zipf             both
//   hot-receiver     one GPU receives half of everything
//   hot-sender       one GPU sends half of everything
//   hot-pair         one message as large as ten whole rows
//   sparse           a fifth of the pairs
//   permutation      one message for each GPU
//   balanced-mild    all ports equally full, messages of a row within 1.3 of each other
//   balanced-uneven  all ports equally full, messages very different
//   routing-L        layer L of recorded DeepSeek-V2-Lite routing (benchmarks/routing), experts in blocks
//   mixed-routing-L  the same with another workload on every other GPU
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "scheduler/traffic_matrix.h"

namespace aurora::bench {

/// All families above, routing with its first, middle and last layer.
std::vector<std::string> traffic_names();

struct NamedTrafficArgs {
  int num_gpus = 0;
  std::uint64_t seed = 1;
  std::filesystem::path routing_folder = "benchmarks/routing";
};
/// In a unit of its own; `scaled_traffic` makes bytes of it. Between two GPUs or more it is never empty.
/// Throws Error for a name that is not there, and what reading the recorded routing throws.
TrafficMatrix named_traffic(const std::string& name, const NamedTrafficArgs& args);

/// In proportion to `traffic`, in whole 8 bytes, the largest row or column sum within 8 bytes a message of
/// `most_loaded_bytes`. Throws Error for a matrix without traffic.
TrafficMatrix scaled_traffic(const TrafficMatrix& traffic, Bytes most_loaded_bytes);

}  // namespace aurora::bench
