// What exchanges cost on a fabric, as JSON (launch/formats.md): measured once, used by later runs.
//
// The costs are what was measured beyond what the ports explain, so they belong to those ports, and to the
// way in which the transport executes orders.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/dispatch/fabric_model.h"

namespace aurora {

struct MeasuredFabric {
  FabricModel model;
  std::vector<double> ports_gbps;  // of the ranks that measured it
};

std::string fabric_text(const MeasuredFabric& fabric);
/// `origin` names the source in messages. Throws Error(kFormat) naming place and cause: malformed JSON,
/// unknown keys (with the nearest known one), wrong types, no costs, sizes or numbers of peers that do not
/// grow, a stretch below 1.
MeasuredFabric parse_fabric(std::string_view text, const std::string& origin);
MeasuredFabric read_fabric_file(const std::filesystem::path& file);

/// Throws Error(kInvalidArgument) unless the fabric was measured by as many ranks, with ports that differ
/// from `ports_gbps` by a tenth at most.
void check_same_ports(const MeasuredFabric& fabric, const std::vector<double>& ports_gbps,
                      const std::string& origin);

}  // namespace aurora
