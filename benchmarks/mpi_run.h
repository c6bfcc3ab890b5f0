// A suite as the ranks of an MPI job.
#pragma once

#include <exception>
#include <functional>

#include "runtime/transport/mpi_session.h"
#include "runtime/transport/mpi_transport.h"
#include "runtime/transport/transport.h"

namespace aurora::bench {

/// Collective. Runs `work` on the job's transport. When it throws, the other ranks are told why, this process
/// can do no more with MPI, and the error is thrown on.
inline void run_over_mpi_job(const std::function<void(MpiSession& session, Transport& control)>& work) {
  MpiSession session;
  std::exception_ptr failure;
  {
    const auto control = create_mpi_transport(session);
    try {
      work(session, *control);
    } catch (const std::exception& error) {
      failure = std::current_exception();
      control->abort(error.what());
    }
  }
  if (!failure) return;
  session.terminate_after_abort(1);
  std::rethrow_exception(failure);
}

}  // namespace aurora::bench
