// The transport between processes: MPI's non-blocking point-to-point messages over communicators of its own.
//
// Messages above a segment's size travel in several parts (MPI counts are 32-bit ints). A second communicator
// carries abort notices: a receive for one is always posted, and `progress` and every few calls of `test`
// look at it. After start-up no collective operation of MPI is called.
//
// A size mismatch is seen by the receiver, whose `test` throws kInvalidArgument; a sender of a small message
// may not notice. Other failures of MPI throw kDevice with MPI's text.
//
// When the job aborts, receives under way are cancelled and what MPI has matched already gets a tenth of a
// second to end, so that the memory of messages may go; only a peer that stops in the middle of a large
// message could still be served from it, and such a job ends with its processes soon.
#pragma once

#include <cstddef>
#include <memory>

#include "runtime/transport/mpi_session.h"
#include "runtime/transport/transport.h"

namespace aurora {

struct MpiTransportOptions {
  std::size_t segment_bytes = std::size_t{1}
                              << 30;  // the same on all ranks; at most 2^31 - 1; tests choose less
};

/// Collective over all ranks of the session, which must outlive the transport. Throws kInvalidArgument for a
/// segment of zero bytes or above the limit, kUnsupported when MPI allows fewer tags than messages need.
std::unique_ptr<Transport> create_mpi_transport(MpiSession& session, const MpiTransportOptions& options = {});

}  // namespace aurora
