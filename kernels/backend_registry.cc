#include "kernels/backend_registry.h"

#include "kernels/cpu/cpu_backend.h"

namespace aurora {

std::vector<std::string> available_backends() { return {"cpu"}; }

std::unique_ptr<Backend> create_backend(std::string_view name, const BackendOptions& options) {
  if (name == "cpu") return create_cpu_backend(options);
  std::string text = "backend '" + std::string(name) + "' is not in this build; available:";
  for (const std::string& available : available_backends()) text += " " + available;
  throw Error(ErrorKind::kUnsupported, text);
}

}  // namespace aurora
