// Which transports this build has, by name. Their creation differs (a fabric of threads, an MPI session), so
// the registry answers what exists and refuses what does not; whoever starts the ranks creates them. Only
// NCCL, which not every build has, is created through here.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/transport/nccl_transport.h"

namespace aurora {

/// For example {"mpi", "nccl", "threads"}.
std::vector<std::string> available_transports();

/// Throws kUnsupported for a name that this build lacks; the text lists what is there.
void require_transport(std::string_view name);

/// The transport "nccl" over `control` (nccl_transport.h). Throws kUnsupported in a build without NCCL.
std::unique_ptr<Transport> create_device_transport(Transport& control, const NcclTransportOptions& options);

/// The identities of the GPUs that this process sees, by device number; none in a build without NCCL. Ranks
/// that list the same one share it.
std::vector<std::string> visible_gpu_uuids();

}  // namespace aurora
