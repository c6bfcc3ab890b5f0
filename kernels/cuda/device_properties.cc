#include "kernels/cuda/device_properties.h"

#include <cuda_runtime.h>

#include <map>
#include <mutex>

#include "kernels/cuda/check_cuda.h"

namespace aurora::cuda {
namespace {

DeviceProperties ask(int device) {
  DeviceProperties properties;
  check_cuda(cudaDeviceGetAttribute(&properties.num_multiprocessors, cudaDevAttrMultiProcessorCount, device),
             "number of multiprocessors");
  check_cuda(cudaDeviceGetAttribute(&properties.capability_major, cudaDevAttrComputeCapabilityMajor, device),
             "compute capability");
  return properties;
}

}  // namespace

const DeviceProperties& current_device() {
  static std::mutex mutex;
  static std::map<int, DeviceProperties> known;
  int device = 0;
  check_cuda(cudaGetDevice(&device), "cudaGetDevice");
  const std::lock_guard lock(mutex);
  const auto found = known.find(device);
  return found != known.end() ? found->second : known.emplace(device, ask(device)).first->second;
}

}  // namespace aurora::cuda
