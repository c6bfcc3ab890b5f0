#include "runtime/transport/nccl_communicators.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <string>
#include <thread>

#include "kernels/cuda/check_cuda.h"
#include "runtime/transport/nccl_check.h"
#include "runtime/transport/wait.h"

namespace aurora {

namespace {

using cuda::check_cuda;
using Clock = std::chrono::steady_clock;

// Kernels of NCCL look at the abort flag every few microseconds; freeing a communicator's memory and threads
// takes longer, tens of milliseconds per rank when several share a GPU.
constexpr std::chrono::seconds kEndTime(2);
// Closing waits for the other ranks to close too, and they may have output to write first.
constexpr std::chrono::seconds kCloseTime(5);
// What every pair exchanges to get connected; one cache line each.
constexpr std::size_t kGreetingBytes = 64;

std::string version_text(int version) {
  return std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) + "." +
         std::to_string(version % 100);
}

struct CudaRelease {
  void operator()(void* memory) const { cudaFree(memory); }
};
using CudaMemory = std::unique_ptr<void, CudaRelease>;

CudaMemory allocate(std::size_t size_bytes) {
  void* memory = nullptr;
  check_cuda(cudaMalloc(&memory, size_bytes), "device memory for the first exchange of all pairs");
  return CudaMemory(memory);
}

}  // namespace

void require_nccl_version() {
  int version = 0;
  check_nccl(ncclGetVersion(&version), "ncclGetVersion");
  if (version >= kOldestNccl) return;
  throw Error(ErrorKind::kUnsupported, "the NCCL library found is " + version_text(version) +
                                           "; transport nccl needs " + version_text(kOldestNccl) +
                                           " or newer (LD_LIBRARY_PATH says where it is looked for)");
}

/// What the thread that starts NCCL and the one that waits for it share: the former may outlive the latter's
/// patience.
struct NcclCommunicators::Start {
  int rank;
  int num_ranks;
  int device;
  std::shared_ptr<Lanes> lanes;
  std::exception_ptr failure{};
  std::atomic<bool> is_given_up = false;
  std::atomic<bool> is_over = false;  // after `failure`
};

NcclCommunicators::NcclCommunicators(const Args& args, Deadline deadline, const Poll& poll)
    : device_(args.device), lanes_(std::make_shared<Lanes>()) {
  check_cuda(cudaSetDevice(device_), "cudaSetDevice");
  open_lanes(args.ids);
  const auto start = std::make_shared<Start>(args.rank, args.num_ranks, args.device, lanes_);
  std::thread([start] { connect_all(*start); }).detach();
  try {
    wait_for(*start, deadline, poll);
  } catch (...) {
    start->is_given_up = true;
    abort();
    throw;
  }
  watch_.emplace([this] { abort(); });
}

void NcclCommunicators::open_lanes(std::span<const ncclUniqueId> ids) {
  int least_priority = 0;
  int greatest_priority = 0;
  check_cuda(cudaDeviceGetStreamPriorityRange(&least_priority, &greatest_priority),
             "cudaDeviceGetStreamPriorityRange");
  for (const ncclUniqueId& id : ids) {
    Lane& lane = lanes_->emplace_back();
    lane.id = id;
    cudaStream_t stream = nullptr;
    check_cuda(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, greatest_priority),
               "cudaStreamCreateWithPriority");
    lane.stream.reset(stream);
    cudaEvent_t end = nullptr;
    check_cuda(cudaEventCreateWithFlags(&end, cudaEventDisableTiming), "cudaEventCreate");
    lane.end.reset(end);
  }
}

// On the thread of the start. NCCL writes a communicator's handle before it waits for other ranks, so that
// whoever gives up can abort it.
void NcclCommunicators::connect_all(Start& start) noexcept {
  try {
    check_cuda(cudaSetDevice(start.device), "cudaSetDevice");
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 1;
    for (Lane& lane : *start.lanes) {
      if (start.is_given_up) return;
      check_nccl(ncclCommInitRankConfig(&lane.communicator, start.num_ranks, lane.id, start.rank, &config),
                 "NCCL's start with all ranks");
    }
    if (start.num_ranks > 1 && !start.is_given_up) greet_all_pairs(start);
  } catch (...) {
    start.failure = std::current_exception();
  }
  start.is_over = true;
}

// The first message between two ranks opens their connection, which takes up to 700 ms.
void NcclCommunicators::greet_all_pairs(Start& start) {
  const CudaMemory memory = allocate(2 * static_cast<std::size_t>(start.num_ranks) * kGreetingBytes);
  auto* next = static_cast<std::byte*>(memory.get());
  std::vector<Message> messages;
  for (int peer = 0; peer < start.num_ranks; ++peer) {
    if (peer == start.rank) continue;
    for (const Direction direction : {Direction::kSend, Direction::kReceive}) {
      messages.push_back({direction, peer, 0, next, kGreetingBytes});
      next += kGreetingBytes;
    }
  }
  for (const Lane& lane : *start.lanes) {
    check_nccl(launch(lane, messages), "the first exchange of all pairs", lane.communicator);
  }
  // Until then the memory is in use; whoever gives up aborts, which ends the kernels.
  for (IdleBackoff backoff; !are_streams_idle(*start.lanes); backoff.pause()) {
  }
}

void NcclCommunicators::wait_for(Start& start, Deadline deadline, const Poll& poll) {
  for (IdleBackoff backoff; !start.is_over; backoff.pause()) {
    poll();
    if (Clock::now() > deadline) {
      throw Error(ErrorKind::kTimeout,
                  "NCCL's start with all ranks and the first exchange of all pairs missed "
                  "their deadline");
    }
  }
  if (start.failure) std::rethrow_exception(start.failure);
}

ncclResult_t NcclCommunicators::launch(const Lane& lane, std::span<const Message> messages) noexcept {
  ncclResult_t result = ncclGroupStart();
  if (result != ncclSuccess) return result;
  for (const Message& message : messages) {
    result = message.direction == Direction::kSend
                 ? ncclSend(message.data, message.size_bytes, ncclUint8, message.peer, lane.communicator,
                            lane.stream.get())
                 : ncclRecv(message.data, message.size_bytes, ncclUint8, message.peer, lane.communicator,
                            lane.stream.get());
    if (result != ncclSuccess) break;
  }
  const ncclResult_t end_result = ncclGroupEnd();  // also after an error: it leaves the group
  return result != ncclSuccess ? result : end_result;
}

void NcclCommunicators::enqueue(std::size_t index, std::span<const Message> messages, Deadline deadline) {
  const Lane& lane = (*lanes_)[index];
  watch_->enter(deadline);
  const ncclResult_t result = launch(lane, messages);
  if (!watch_->leave()) throw Error(ErrorKind::kTimeout, "the launch of a group missed its deadline");
  check_nccl(result, "a group of messages", lane.communicator);
}

void NcclCommunicators::join(std::size_t index) {
  for (std::size_t other = 0; other < size(); ++other) {
    if (other == index) continue;
    const cudaEvent_t end = (*lanes_)[other].end.get();
    check_cuda(cudaEventRecord(end, stream(other)), "cudaEventRecord");
    check_cuda(cudaStreamWaitEvent(stream(index), end), "cudaStreamWaitEvent");
  }
}

void NcclCommunicators::check_health() const {
  for (const Lane& lane : *lanes_) {
    ncclResult_t state = ncclSuccess;
    check_nccl(ncclCommGetAsyncError(lane.communicator, &state), "ncclCommGetAsyncError", lane.communicator);
    check_nccl(state, "transfers", lane.communicator);
  }
}

void NcclCommunicators::abort() noexcept {
  if (is_closed_) return;
  is_closed_ = true;
  const auto abort_all = [](const Lanes& lanes) {
    ncclGroupStart();
    for (const Lane& lane : lanes) {
      if (lane.communicator != nullptr) ncclCommAbort(lane.communicator);
    }
    ncclGroupEnd();
  };
  end_on_a_thread(abort_all, kEndTime);
}

void NcclCommunicators::close() noexcept {
  if (is_closed_) return;
  is_closed_ = true;
  const auto destroy_all = [](const Lanes& lanes) {
    for (const auto end : {&ncclCommFinalize, &ncclCommDestroy}) {
      ncclGroupStart();
      for (const Lane& lane : lanes) end(lane.communicator);
      ncclGroupEnd();
    }
  };
  end_on_a_thread(destroy_all, kCloseTime);
}

// Ending a communicator frees device memory, which waits for the device, or waits for other ranks; so all of
// them end as one group, and on a thread that this one waits for only so long. What is not over by then ends
// with the process.
void NcclCommunicators::end_on_a_thread(void (*end)(const Lanes&),
                                        std::chrono::milliseconds longest) noexcept {
  auto is_done = std::make_shared<std::atomic<bool>>(false);
  try {
    std::thread([lanes = lanes_, end, is_done, device = device_] {
      cudaSetDevice(device);
      end(*lanes);
      *is_done = true;
    }).detach();
  } catch (...) {
    return;  // no memory or thread: the communicators end with the process
  }
  const Deadline deadline = Clock::now() + longest;
  for (IdleBackoff backoff; !(*is_done && are_streams_idle(*lanes_)) && Clock::now() < deadline;)
    backoff.pause();
}

// A stream that reports an error has no work any more.
bool NcclCommunicators::are_streams_idle(const Lanes& lanes) noexcept {
  return std::ranges::none_of(
      lanes, [](const Lane& lane) { return cudaStreamQuery(lane.stream.get()) == cudaErrorNotReady; });
}

}  // namespace aurora
