// A suite as the ranks of an MPI job.
#pragma once

#include <chrono>
#include <exception>
#include <functional>
#include <memory>

#include "runtime/transport/mpi_session.h"
#include "runtime/transport/transport.h"

namespace aurora::bench {

/// The job has failed, and rank 0 has said why: there is nothing left to say.
struct JobFailed : std::exception {
  const char* what() const noexcept override { return "the job has failed, as rank 0 has said"; }
};

/// Collective. Runs `work` on the job's transport. When it throws, the other ranks are told, rank 0 writes
/// one line to standard error, MPI ends, and JobFailed is thrown: in this order, because the launcher ends
/// all ranks as soon as one has left.
void run_over_mpi_job(const std::function<void(MpiSession& session, Transport& control)>& work);

/// A rank's GPU, and NCCL between those of all ranks.
struct GpuPlace {
  int device = 0;
  std::unique_ptr<Transport> transport;
};

/// What ranks wait for each other at the start: loading of libraries, NCCL's own start.
inline constexpr std::chrono::minutes kStartTimeout(5);

/// Collective. Throws kDevice on all ranks when one has no GPU or NCCL does not start.
GpuPlace take_gpu_place(const MpiSession& session, Transport& control);

}  // namespace aurora::bench
