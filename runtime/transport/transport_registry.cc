#include "runtime/transport/transport_registry.h"

#include <algorithm>

#include "kernels/error.h"

namespace aurora {

std::vector<std::string> available_transports() {
#ifdef AURORA_HAS_NCCL
  return {"mpi", "nccl", "threads"};
#else
  return {"mpi", "threads"};
#endif
}

void require_transport(std::string_view name) {
  const std::vector<std::string> names = available_transports();
  if (std::find(names.begin(), names.end(), name) != names.end()) return;
  std::string list;
  for (const std::string& each : names) list += (list.empty() ? "" : ", ") + each;
  throw Error(ErrorKind::kUnsupported,
              "this build has no transport \"" + std::string(name) + "\"; choose one of: " + list);
}

std::unique_ptr<Transport> create_device_transport([[maybe_unused]] Transport& control,
                                                   [[maybe_unused]] const NcclTransportOptions& options) {
  require_transport("nccl");
#ifdef AURORA_HAS_NCCL
  return create_nccl_transport(control, options);
#else
  return nullptr;  // not reached
#endif
}

std::vector<std::string> visible_gpu_uuids() {
#ifdef AURORA_HAS_NCCL
  return list_gpu_uuids();
#else
  return {};
#endif
}

}  // namespace aurora
