// The transport between GPUs: batches of device memory go to NCCL, host memory goes to another transport.
//
// It stands on a *control* transport (MPI between processes, threads inside one), which carries `post`, abort
// notices and the NCCL ids. `post_on_device` makes each batch one NCCL group on a stream of the transport's
// own, of the highest priority. NCCL chooses the order inside a group; groups of one communicator run one
// after the other. With two communicators, batches take them in turn, so that neighbours overlap; then all
// ranks must post the same number of batches, empty ones included, and on one device the kernels of both must
// start in one order on all ranks (NCCL_LAUNCH_ORDER_IMPLICIT=1).
//
// `post_on_device` returns when NCCL has put the group on the stream, some ten microseconds later.
//
// Failures: whatever goes wrong here throws kDevice or kTimeout naming this rank, the peers and what was
// under way; `test`, `progress` and `post_on_device` look for an abort of other ranks, upon which all
// transfers are ended, within two seconds, before kAborted is thrown.
//
// The environment is NCCL's: launch/nccl_environment.h sets what aurora-serve needs.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "runtime/transport/transport.h"

namespace aurora {

struct NcclTransportOptions {
  int device = 0;                                   // among the GPUs that this process sees
  int num_communicators = 1;                        // 1 or 2; the same on all ranks
  std::chrono::milliseconds start_timeout{300000};  // for all ranks to come and all pairs to connect
  std::chrono::milliseconds launch_timeout{30000};  // for NCCL to put one batch on its stream
};

/// Collective over the ranks of `control`, which must outlive the transport and be used through it from now
/// on. Throws kInvalidArgument for options out of range, kUnsupported for an NCCL that is too old, kDevice
/// and kTimeout when the start fails. When the start fails on some rank, every rank throws: those that have
/// the cause name it, others throw kAborted or what they saw of it. Then the caller aborts `control`.
std::unique_ptr<Transport> create_nccl_transport(Transport& control, const NcclTransportOptions& options);

/// The identities of the GPUs that this process sees, by device number: ranks with the same one share it.
std::vector<std::string> list_gpu_uuids();

}  // namespace aurora
