// Cluster descriptions of any bytes: the reader gives a valid cluster or throws Error naming the file,
// nothing else.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "kernels/error.h"
#include "runtime/plan_io/cluster_file.h"

namespace {

void demand(bool holds) {
  if (!holds) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const aurora::ClusterSpec cluster = aurora::parse_cluster(text, "fuzz");
    aurora::validate(cluster);
    for (const double port : aurora::port_bandwidths(cluster)) demand(std::isfinite(port) && port > 0);
    demand(aurora::bandwidth_towards(cluster, 0, cluster.num_gpus() - 1) > 0);
  } catch (const aurora::Error& error) {
    demand(error.kind() == aurora::ErrorKind::kFormat);
    demand(std::string_view(error.what()).starts_with("fuzz: "));
  }
  return 0;
}
