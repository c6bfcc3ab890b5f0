// A suite as the ranks of an MPI job.
#pragma once

#include <exception>
#include <functional>

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

}  // namespace aurora::bench
