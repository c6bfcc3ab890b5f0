#include "runtime/transport/mpi_session.h"

#include <exception>
#include <vector>

#include "runtime/transport/mpi_check.h"
#include "runtime/transport/wait.h"

namespace aurora {

struct MpiSession::State {
  int rank = 0;
  int num_ranks = 1;
  int local_rank = 0;
  int num_local_ranks = 1;
  std::string processor_name;
  MPI_Comm farewell = MPI_COMM_NULL;  // for the barrier of terminate_after_abort alone
  bool owns_mpi = false;
  bool has_ended = false;
  int num_exceptions_at_start = std::uncaught_exceptions();
  std::vector<std::shared_ptr<const void>> kept;
};

namespace {

// Returns whether this call started MPI.
bool start_mpi() {
  int is_finalized = 0;
  check_mpi(MPI_Finalized(&is_finalized), "MPI_Finalized");
  if (is_finalized != 0) {
    throw Error(ErrorKind::kInvalidArgument, "MPI was finalised in this process and cannot start again");
  }
  int is_initialized = 0;
  check_mpi(MPI_Initialized(&is_initialized), "MPI_Initialized");
  if (is_initialized == 0) {
    int provided = MPI_THREAD_SINGLE;
    check_mpi(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &provided), "MPI_Init_thread");
  }
  int level = MPI_THREAD_SINGLE;
  check_mpi(MPI_Query_thread(&level), "MPI_Query_thread");
  if (level < MPI_THREAD_FUNNELED) {
    throw Error(
        ErrorKind::kUnsupported,
        "this MPI library allows a single thread per process; install one with MPI_THREAD_FUNNELED or more");
  }
  return is_initialized == 0;
}

}  // namespace

MpiSession::MpiSession() : state_(std::make_unique<State>()) {
  State& state = *state_;
  state.owns_mpi = start_mpi();
  check_mpi(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  check_mpi(MPI_Comm_rank(MPI_COMM_WORLD, &state.rank), "MPI_Comm_rank");
  check_mpi(MPI_Comm_size(MPI_COMM_WORLD, &state.num_ranks), "MPI_Comm_size");
  char name[MPI_MAX_PROCESSOR_NAME] = {};
  int length = 0;
  check_mpi(MPI_Get_processor_name(name, &length), "MPI_Get_processor_name");
  state.processor_name.assign(name, static_cast<std::size_t>(length));
  check_mpi(MPI_Comm_dup(MPI_COMM_WORLD, &state.farewell), "MPI_Comm_dup");
  MPI_Comm node = MPI_COMM_NULL;
  check_mpi(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, state.rank, MPI_INFO_NULL, &node),
            "MPI_Comm_split_type");
  check_mpi(MPI_Comm_rank(node, &state.local_rank), "MPI_Comm_rank");
  check_mpi(MPI_Comm_size(node, &state.num_local_ranks), "MPI_Comm_size");
  check_mpi(MPI_Comm_free(&node), "MPI_Comm_free");
}

MpiSession::~MpiSession() {
  if (state_->has_ended || !state_->owns_mpi) return;
  if (std::uncaught_exceptions() > state_->num_exceptions_at_start) {
    terminate_after_abort(1);
  } else {
    MPI_Finalize();
  }
}

int MpiSession::rank() const { return state_->rank; }
int MpiSession::num_ranks() const { return state_->num_ranks; }
int MpiSession::local_rank() const { return state_->local_rank; }
int MpiSession::num_local_ranks() const { return state_->num_local_ranks; }
const std::string& MpiSession::processor_name() const { return state_->processor_name; }

void MpiSession::terminate_after_abort(int exit_code, std::chrono::milliseconds grace) {
  State& state = *state_;
  if (state.has_ended) return;
  state.has_ended = true;
  MPI_Request barrier = MPI_REQUEST_NULL;
  int all_arrived = 0;
  bool works = MPI_Ibarrier(state.farewell, &barrier) == MPI_SUCCESS;
  const Deadline deadline = std::chrono::steady_clock::now() + grace;
  IdleBackoff backoff(std::chrono::milliseconds(1));
  while (works && all_arrived == 0 && std::chrono::steady_clock::now() < deadline) {
    works = MPI_Test(&barrier, &all_arrived, MPI_STATUS_IGNORE) == MPI_SUCCESS;
    if (all_arrived == 0) backoff.pause();
  }
  if (!works || all_arrived == 0) {
    MPI_Abort(MPI_COMM_WORLD, exit_code == 0 ? 1 : exit_code);
  } else if (state.owns_mpi) {
    MPI_Finalize();
  }
}

bool MpiSession::has_ended() const { return state_->has_ended; }

void MpiSession::keep_until_end(std::shared_ptr<const void> memory) {
  state_->kept.push_back(std::move(memory));
}

}  // namespace aurora
