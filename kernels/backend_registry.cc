#include "kernels/backend_registry.h"

#include "kernels/cpu/cpu_backend.h"
#ifdef AURORA_HAS_CUDA
#include "kernels/cuda/cuda_backend.h"
#endif

namespace aurora {

namespace {

[[noreturn]] void refuse_unknown(std::string_view name) {
  std::string text = "backend '" + std::string(name) + "' is not in this build; available:";
  for (const std::string& available : available_backends()) text += " " + available;
  throw Error(ErrorKind::kUnsupported, text);
}

}  // namespace

std::vector<std::string> available_backends() {
#ifdef AURORA_HAS_CUDA
  return {"cpu", "cuda"};
#else
  return {"cpu"};
#endif
}

DeviceCount visible_devices(std::string_view name) {
  if (name == "cpu") return {.num_devices = 1, .why_none = {}};
#ifdef AURORA_HAS_CUDA
  if (name == "cuda") return visible_gpus();
#endif
  refuse_unknown(name);
}

std::unique_ptr<Backend> create_backend(std::string_view name, const BackendOptions& options) {
  if (name == "cpu") return create_cpu_backend(options);
#ifdef AURORA_HAS_CUDA
  if (name == "cuda") return create_cuda_backend(options);
#endif
  refuse_unknown(name);
}

}  // namespace aurora
