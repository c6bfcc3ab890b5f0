// The life of MPI in this process: from MPI_Init_thread to MPI_Finalize, and the orderly end of a job that
// failed.
//
// Collective rule: every process of the job constructs one session, and ends it in one of two ways. A job
// that went well destroys the session on all ranks (MPI_Finalize waits for all of them). A rank that failed,
// or learnt that another one has, reports its error and calls `terminate_after_abort`. A session that is
// destroyed by an exception on its way out does the same with exit code 1, because a plain MPI_Finalize would
// wait for ranks that may wait for this one.
//
// Signals: no handler is installed. On Ctrl-C mpirun ends all ranks (SIGTERM, then SIGKILL about a second
// later), so a program without handlers of its own leaves no process behind; one with a handler has that
// second.
//
// Threads: one thread at a time makes calls that end up in MPI (MPI_THREAD_SERIALIZED).
#pragma once

#include <chrono>
#include <memory>
#include <string>

namespace aurora {

class MpiSession {
 public:
  /// Collective. Throws kDevice when MPI cannot start, kInvalidArgument when it was finalised before in this
  /// process. MPI that somebody else has initialised is used and left running.
  MpiSession();
  ~MpiSession();
  MpiSession(const MpiSession&) = delete;
  MpiSession& operator=(const MpiSession&) = delete;

  int rank() const;
  int num_ranks() const;
  /// Position among the ranks that share this one's memory, and their number.
  int local_rank() const;
  int num_local_ranks() const;
  const std::string& processor_name() const;

  /// Ends MPI in a job that failed. Waits up to `grace` for all ranks to call this too; if they do, finalizes
  /// and returns, and the caller leaves with `exit_code`. Otherwise calls MPI_Abort, which ends every process
  /// of the job and does not return. `exit_code` 0 counts as 1: a failed job never looks like success.
  void terminate_after_abort(int exit_code,
                             std::chrono::milliseconds grace = std::chrono::milliseconds(2000));

  /// Whether `terminate_after_abort` has run: no call into MPI is allowed any more.
  bool has_ended() const;

  /// Keeps memory alive until MPI has ended: for messages that could not be cancelled.
  void keep_until_end(std::shared_ptr<const void> memory);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace aurora
