// Published routing data turned into the traffic that plans are made from.
//
// Which GPU a token came from is not in such data. A routing record's tokens are dealt to the sources in
// equal consecutive blocks: token i of T comes from source i * num_sources / T. Popularity counts have no
// tokens; every source gets the same part of them, and there are no samples.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "runtime/plan_io/routing_record.h"
#include "scheduler/plan.h"

namespace aurora {

struct ImportOptions {
  int num_sources = 8;
  /// Expert sets kept per layer and source, evenly spaced over its tokens.
  std::size_t max_samples = 512;
};

/// Counts and samples of a record. The times and bytes of the result are 0.
ModelTraffic traffic_of(const RoutingRecord& record, const ImportOptions& options);
/// The same of a file; the model is named after the file when the record does not say. Throws Error naming
/// file, key, value and limit.
ModelTraffic import_routing_record(const std::filesystem::path& file, const ImportOptions& options);

/// Expert counts by layer: {"total_input_tokens": N, "expert_popularity": [layer][expert]}, as published for
/// Mixtral-8x7B with top_k = 2. The counts of a layer are taken as they are, also where they do not sum to N.
ModelTraffic parse_expert_popularity(std::string_view text, int top_k, const ImportOptions& options,
                                     const std::string& origin);
ModelTraffic import_expert_popularity(const std::filesystem::path& file, int top_k,
                                      const ImportOptions& options);

}  // namespace aurora
