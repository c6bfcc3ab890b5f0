#include "runtime/transport/transport_registry.h"

#include <algorithm>

#include "kernels/error.h"

namespace aurora {

std::vector<std::string> available_transports() { return {"mpi", "threads"}; }

void require_transport(std::string_view name) {
  const std::vector<std::string> names = available_transports();
  if (std::find(names.begin(), names.end(), name) != names.end()) return;
  std::string list;
  for (const std::string& each : names) list += (list.empty() ? "" : ", ") + each;
  throw Error(ErrorKind::kUnsupported,
              "this build has no transport \"" + std::string(name) + "\"; choose one of: " + list);
}

}  // namespace aurora
