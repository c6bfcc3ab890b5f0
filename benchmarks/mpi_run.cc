#include "benchmarks/mpi_run.h"

#include <cstdio>

#include "launch/nccl_environment.h"
#include "runtime/transport/mpi_transport.h"
#include "runtime/transport/transport_registry.h"

namespace aurora::bench {

void run_over_mpi_job(const std::function<void(MpiSession& session, Transport& control)>& work) {
  MpiSession session;
  {
    const auto control = create_mpi_transport(session);
    try {
      return work(session, *control);
    } catch (const std::exception& error) {
      control->abort(error.what());
      // All ranks leave the session together, so that this line is out before any is gone.
      if (session.rank() == 0) std::fprintf(stderr, "aurora-bench: %s\n", error.what());
    }
  }
  session.terminate_after_abort(1);
  throw JobFailed();
}

GpuPlace take_gpu_place(const MpiSession& session, Transport& control) {
  GpuPlace place;
  place.device = take_gpu_seat(session, control, kStartTimeout).device;
  place.transport =
      create_device_transport(control, {.device = place.device, .start_timeout = kStartTimeout});
  return place;
}

}  // namespace aurora::bench
