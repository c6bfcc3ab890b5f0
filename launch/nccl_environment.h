// What CUDA and NCCL read from the environment, chosen by where the ranks run, before they start.
//
// CUDA_DEVICE_MAX_CONNECTIONS: streams share the GPU's work queues, and what stands behind another stream's
// exchange in a queue waits for the network. Unless told otherwise a process gets 8 queues, a client of MPS
// fewer, for the streams of compute and of NCCL. Under MPS, where more than 64 for all clients together
// were refused on an H200, we ask for 64 over the number of processes, at most 8, and without MPS for 32.
// Measured there on eight ranks with MPS: from the end of a dispatch to its experts 0.73 ms by default, 0.04
// ms with 8.
//
// Always: NCCL_NVLS_ENABLE=0, since nothing here uses NVLink multicast. When ranks share a GPU, which NCCL
// refuses within one host: NCCL_HOSTID of its own for every rank, so that NCCL takes each for a host and
// talks over sockets; and if all ranks are on one host, NCCL_SOCKET_IFNAME=lo and NCCL_IB_DISABLE=1. What the
// user has set stays.
//
// Without MPS (nvidia-cuda-mps-control), processes that share a GPU take turns on it, and an exchange of all
// takes 2 to 70 ms instead of 0.1 ms.
#pragma once

#include <chrono>
#include <string>

#include "runtime/transport/mpi_session.h"
#include "runtime/transport/transport.h"

namespace aurora {

/// Where this rank computes, and what is to be said about it.
struct GpuSeat {
  int device = 0;          // the rank's position on its host modulo the GPUs that it sees
  bool is_shared = false;  // some GPU of the job is used by several ranks
  std::string remark;      // for the log of one rank; empty when each rank has a GPU of its own
};

/// Sets the variable above for this process, one of `num_processes`. Call in main, before anything of CUDA.
void set_cuda_environment(int num_processes);

/// Collective over all ranks of the session. Chooses this rank's GPU and sets the variables above for this
/// process. Call before NCCL starts.
GpuSeat take_gpu_seat(const MpiSession& session, Transport& transport, std::chrono::milliseconds timeout);

}  // namespace aurora
