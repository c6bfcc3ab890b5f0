// Descriptions of clusters as TOML (launch/formats.md), written by people and by aurora-bench calibrate: GPUs
// in file order, which is the order of the ranks that drive them.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "scheduler/cluster.h"

namespace aurora {

/// `origin` names the source in messages. Throws Error(kFormat) naming line, key and value: malformed TOML,
/// unknown keys (with the nearest known one), wrong types, missing or zero ports. The result passes
/// `validate`.
ClusterSpec parse_cluster(std::string_view text, const std::string& origin);
/// Neighbours that are alike in one block. `parse_cluster` gives the same cluster, `memory_bytes` to the last
/// bits.
std::string cluster_text(const ClusterSpec& cluster);
ClusterSpec read_cluster_file(const std::filesystem::path& file);

}  // namespace aurora
