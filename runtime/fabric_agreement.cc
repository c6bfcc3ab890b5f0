#include "runtime/fabric_agreement.h"

#include <chrono>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/agreement.h"
#include "runtime/dispatch/fabric_measurement.h"
#include "runtime/engine_protocol.h"
#include "runtime/plan_io/fabric_file.h"
#include "runtime/transport/wait.h"
#include "scheduler/cluster.h"

namespace aurora {
namespace {

std::vector<double> gbps_of(std::span<const double> ports) {
  std::vector<double> gbps;
  for (const double port : ports) gbps.push_back(port / kBytesPerUsOfGbps);
  return gbps;
}

}  // namespace

FabricModel agree_on_fabric(const FabricArgs& args) {
  const bool is_read = !args.options.fabric_file.empty();
  if (!is_read && args.transport.num_ranks() == 1) return {};
  const auto deadline = [&] { return std::chrono::steady_clock::now() + args.options.timeout; };
  const std::vector<double> ports_gbps = gbps_of(args.ports);
  std::string text;
  if (!is_read) {
    text = fabric_text({measure_fabric({.transport = args.transport,
                                        .backend = args.backend,
                                        .ports = args.ports,
                                        .exchange_tag = kFabricExchangeTag,
                                        .control_tag = kFabricTag,
                                        .deadline = deadline()}),
                        ports_gbps});
  } else {
    agree(args.transport, args.options.timeout, "reading what the fabric costs on rank 0", [&] {
      if (args.transport.rank() != 0) return;
      const MeasuredFabric fabric = read_fabric_file(args.options.fabric_file);
      check_same_ports(fabric, ports_gbps, args.options.fabric_file.string());
      text = fabric_text(fabric);
    });
  }
  const auto bytes = broadcast(args.transport, 0, std::as_bytes(std::span<const char>(text)), kFabricTag,
                               deadline(), "costs of the fabric from rank 0");
  return parse_fabric({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, "fabric from rank 0")
      .model;
}

}  // namespace aurora
