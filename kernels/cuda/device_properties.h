// What kernels are shaped by, asked once per device.
#pragma once

namespace aurora::cuda {

struct DeviceProperties {
  int num_multiprocessors = 0;
  int capability_major = 0;  // of the compute capability: 9 is Hopper
};

/// Of the current device; any thread.
const DeviceProperties& current_device();

}  // namespace aurora::cuda
