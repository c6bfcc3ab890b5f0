#include "runtime/transport/nccl_communicators.h"

#include <atomic>
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
// Finalizing waits for the other ranks to finalize too, and they may have output to write first.
constexpr std::chrono::seconds kFinalizeTime(5);
// NCCL launches a group within tens of microseconds, on a thread of its own.
constexpr std::chrono::microseconds kLongestSleep(20);
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

NcclCommunicators::NcclCommunicators(const Args& args, Deadline deadline, const Poll& poll)
    : device_(args.device) {
  try {
    check_cuda(cudaSetDevice(device_), "cudaSetDevice");
    for (const ncclUniqueId& id : args.ids) open_lane(args, id, deadline, poll);
    connect_all_pairs(args, deadline, poll);
  } catch (...) {
    abort();
    throw;
  }
}

void NcclCommunicators::open_lane(const Args& args, const ncclUniqueId& id, Deadline deadline,
                                  const Poll& poll) {
  Lane& lane = lanes_.emplace_back();
  int least_priority = 0;
  int greatest_priority = 0;
  check_cuda(cudaDeviceGetStreamPriorityRange(&least_priority, &greatest_priority),
             "cudaDeviceGetStreamPriorityRange");
  cudaStream_t stream = nullptr;
  check_cuda(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, greatest_priority),
             "cudaStreamCreateWithPriority");
  lane.stream.reset(stream);
  cudaEvent_t end = nullptr;
  check_cuda(cudaEventCreateWithFlags(&end, cudaEventDisableTiming), "cudaEventCreate");
  lane.end.reset(end);
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  check_nccl(ncclCommInitRankConfig(&lane.communicator, args.num_ranks, id, args.rank, &config),
             "ncclCommInitRankConfig");
  wait_until_ready(lane, "NCCL's start with all ranks", deadline, poll);
}

// The first message between two ranks opens their connection, which takes up to 700 ms.
void NcclCommunicators::connect_all_pairs(const Args& args, Deadline deadline, const Poll& poll) {
  if (args.num_ranks == 1) return;
  const auto num_ranks = static_cast<std::size_t>(args.num_ranks);
  const CudaMemory memory = allocate(2 * num_ranks * kGreetingBytes);
  auto* next = static_cast<std::byte*>(memory.get());
  std::vector<Message> messages;
  for (int peer = 0; peer < args.num_ranks; ++peer) {
    if (peer == args.rank) continue;
    for (const Direction direction : {Direction::kSend, Direction::kReceive}) {
      messages.push_back({direction, peer, 0, next, kGreetingBytes});
      next += kGreetingBytes;
    }
  }
  try {
    for (std::size_t index = 0; index < size(); ++index) enqueue(index, messages, deadline, poll);
    for (IdleBackoff backoff; !are_streams_idle(); backoff.pause()) {
      poll();
      check_health();
      if (Clock::now() > deadline) {
        throw Error(ErrorKind::kTimeout, "the first exchange of all pairs over NCCL missed its deadline");
      }
    }
  } catch (...) {
    abort();  // before the memory goes
    throw;
  }
}

void NcclCommunicators::enqueue(std::size_t index, std::span<const Message> messages, Deadline deadline,
                                const Poll& poll) {
  const Lane& lane = lanes_[index];
  check_nccl(ncclGroupStart(), "ncclGroupStart");
  ncclResult_t result = ncclSuccess;
  for (const Message& message : messages) {
    result = message.direction == Direction::kSend ? ncclSend(message.data, message.size_bytes, ncclUint8,
                                                              message.peer, lane.communicator, stream(index))
                                                   : ncclRecv(message.data, message.size_bytes, ncclUint8,
                                                              message.peer, lane.communicator, stream(index));
    if (result != ncclSuccess && result != ncclInProgress) break;
  }
  const ncclResult_t end_result = ncclGroupEnd();  // also after an error: it leaves the group
  check_nccl(result, "a message", lane.communicator);
  check_nccl(end_result, "ncclGroupEnd", lane.communicator);
  wait_until_ready(lane, "the launch of a group", deadline, poll);
}

void NcclCommunicators::join(std::size_t index) {
  for (std::size_t other = 0; other < size(); ++other) {
    if (other == index) continue;
    check_cuda(cudaEventRecord(lanes_[other].end.get(), stream(other)), "cudaEventRecord");
    check_cuda(cudaStreamWaitEvent(stream(index), lanes_[other].end.get()), "cudaStreamWaitEvent");
  }
}

void NcclCommunicators::wait_until_ready(const Lane& lane, std::string_view what, Deadline deadline,
                                         const Poll& poll) const {
  for (IdleBackoff backoff(kLongestSleep);; backoff.pause()) {
    ncclResult_t state = ncclSuccess;
    check_nccl(ncclCommGetAsyncError(lane.communicator, &state), "ncclCommGetAsyncError", lane.communicator);
    if (state == ncclSuccess) return;
    check_nccl(state, what, lane.communicator);
    poll();
    if (Clock::now() > deadline) {
      throw Error(ErrorKind::kTimeout, std::string(what) + " missed its deadline");
    }
  }
}

void NcclCommunicators::check_health() const {
  for (const Lane& lane : lanes_) {
    ncclResult_t state = ncclSuccess;
    check_nccl(ncclCommGetAsyncError(lane.communicator, &state), "ncclCommGetAsyncError", lane.communicator);
    check_nccl(state, "transfers", lane.communicator);
  }
}

void NcclCommunicators::abort() noexcept {
  if (is_closed_) return;
  is_closed_ = true;
  end_on_a_thread(&ncclCommAbort);
}

void NcclCommunicators::close() noexcept {
  if (is_closed_) return;
  is_closed_ = true;
  end_on_a_thread(finalize_by(Clock::now() + kFinalizeTime) ? &ncclCommDestroy : &ncclCommAbort);
}

// Whether all communicators are flushed and may be destroyed.
bool NcclCommunicators::finalize_by(Deadline deadline) const noexcept {
  for (const Lane& lane : lanes_) {
    const ncclResult_t result = ncclCommFinalize(lane.communicator);
    if (result != ncclSuccess && result != ncclInProgress) return false;
  }
  for (const Lane& lane : lanes_) {
    for (IdleBackoff backoff;; backoff.pause()) {
      ncclResult_t state = ncclSuccess;
      if (ncclCommGetAsyncError(lane.communicator, &state) != ncclSuccess) return false;
      if (state == ncclSuccess) break;
      if (state != ncclInProgress || Clock::now() > deadline) return false;
    }
  }
  return true;
}

// Ending a communicator frees device memory, which waits for the device; so all of them end as one group, and
// on a thread that this one waits for only so long.
void NcclCommunicators::end_on_a_thread(ncclResult_t (*end)(ncclComm_t)) noexcept {
  std::vector<ncclComm_t> communicators;
  auto is_done = std::make_shared<std::atomic<bool>>(false);
  try {
    for (const Lane& lane : lanes_) {
      if (lane.communicator != nullptr) communicators.push_back(lane.communicator);
    }
    if (communicators.empty()) return;
    std::thread([communicators, end, is_done, device = device_] {
      cudaSetDevice(device);
      ncclGroupStart();
      for (ncclComm_t communicator : communicators) end(communicator);
      ncclGroupEnd();
      *is_done = true;
    }).detach();
  } catch (...) {
    return;  // no memory or thread: the communicators end with the process
  }
  const Deadline deadline = Clock::now() + kEndTime;
  for (IdleBackoff backoff; !(*is_done && are_streams_idle()) && Clock::now() < deadline;) backoff.pause();
}

// A stream that reports an error has no work any more.
bool NcclCommunicators::are_streams_idle() const noexcept {
  for (const Lane& lane : lanes_) {
    if (lane.stream != nullptr && cudaStreamQuery(lane.stream.get()) == cudaErrorNotReady) return false;
  }
  return true;
}

}  // namespace aurora
