// Which backends this build has, by name. The only place in kernels/ that knows them all.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/backend.h"

namespace aurora {

/// The devices of one backend that this process can use.
struct DeviceCount {
  int num_devices = 0;
  std::string why_none;  // for people; empty when there are devices
};

struct BackendOptions {
  /// Every result is independent of batch size and neighbours in the batch: GEMMs sum in a fixed order, one
  /// row at a time, instead of through the BLAS library.
  bool deterministic = false;
  /// Streams run their work on a thread of their own instead of inside the submitting call (CPU only; a GPU's
  /// streams are always asynchronous).
  bool worker_streams = false;
  /// Threads of each rank's BLAS library, at least 1 (CPU only). The BLAS library has one setting per
  /// process, so ranks that share a process share it.
  int num_threads = 1;
  /// Work can be recorded and submitted again as a whole (Backend::capture). On a CPU this saves nothing; it
  /// is there to test with.
  bool graphs = false;
  /// Which GPU this process drives, among those that it sees (CUDA only).
  int device = 0;
};

/// The names that `create_backend` accepts in this build, e.g. {"cpu"}.
std::vector<std::string> available_backends();

/// What this process sees of a backend of this build; the CPU is always one device. Asks the driver, and
/// initialises nothing. Throws as create_backend for an unknown name.
DeviceCount visible_devices(std::string_view name);

/// Throws kUnsupported for a name that this build lacks (the text lists what is there), kInvalidArgument for
/// options out of range.
std::unique_ptr<Backend> create_backend(std::string_view name, const BackendOptions& options);

}  // namespace aurora
