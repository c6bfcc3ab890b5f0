#include "runtime/transport/nccl_transport.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>
#include <type_traits>

#include "kernels/cuda/check_cuda.h"
#include "kernels/cuda/cuda_stream.h"
#include "kernels/error.h"
#include "runtime/transport/message_check.h"
#include "runtime/transport/nccl_check.h"
#include "runtime/transport/nccl_communicators.h"
#include "runtime/transport/ticket_table.h"
#include "runtime/transport/wait.h"

namespace aurora {

namespace {

using cuda::check_cuda;
using Clock = std::chrono::steady_clock;

constexpr int kMaxCommunicators = 2;
// The last of all tags, used before anybody else has the transport.
constexpr std::uint32_t kStartTag = kTagLimit - 1;
// As in the MPI transport: a look at the control transport costs a call into MPI.
constexpr int kTestsPerLook = 16;

struct EventRelease {
  void operator()(cudaEvent_t event) const { cudaEventDestroy(event); }
};
using OwnedEvent = std::unique_ptr<std::remove_pointer_t<cudaEvent_t>, EventRelease>;

struct DeviceBatch {
  OwnedEvent end;  // stays with the slot of the ticket table, so that few events serve many batches
  std::vector<int> peers;
  std::size_t num_messages = 0;
  std::size_t size_bytes = 0;

  void reset() { peers.clear(); }
};

void note_contents(DeviceBatch& batch, std::span<const Message> messages) {
  batch.num_messages = messages.size();
  batch.size_bytes = 0;
  for (const Message& message : messages) {
    batch.size_bytes += message.size_bytes;
    batch.peers.push_back(message.peer);
  }
  std::sort(batch.peers.begin(), batch.peers.end());
  batch.peers.erase(std::unique(batch.peers.begin(), batch.peers.end()), batch.peers.end());
}

// "a batch of 6 messages, 4096 bytes, with ranks 0 1 3"
std::string describe(const DeviceBatch& batch) {
  std::string text = "a batch of " + std::to_string(batch.num_messages) + " messages, " +
                     std::to_string(batch.size_bytes) + " bytes, with ranks";
  for (const int peer : batch.peers) text += " " + std::to_string(peer);
  return text;
}

// What a rank tells the others before NCCL starts: rank 0 the ids, and everybody why it cannot take part.
struct StartNote {
  ncclUniqueId ids[kMaxCommunicators] = {};
  char failure[512] = {};
};

cuda::CudaEvent& cuda_event(Event& event) {
  auto* own = dynamic_cast<cuda::CudaEvent*>(&event);
  check(own != nullptr, "an event of another backend was given to transport nccl");
  return *own;
}

class NcclTransport final : public Transport {
 public:
  NcclTransport(Transport& control, const NcclTransportOptions& options);
  ~NcclTransport() override;

  std::string_view name() const override { return "nccl"; }
  int rank() const override { return control_.rank(); }
  int num_ranks() const override { return control_.num_ranks(); }
  bool is_stream_ordered() const override { return true; }

  Ticket post(std::span<const Message> messages) override;
  Ticket post_on_device(std::span<const Message> messages, const StreamOrder& order) override;
  bool test(Ticket ticket) override;
  void progress() override;
  void abort(std::string_view reason) noexcept override;

 private:
  std::vector<ncclUniqueId> agree_on_ids(Deadline deadline);
  void prepare(StartNote& note) const;
  template <typename Body>
  auto run_guarded(Body body);
  void look_around();
  bool is_at_rest() noexcept;
  bool is_complete(DeviceBatch& batch);
  void finish_post(DeviceBatch& batch, std::size_t lane, const StreamOrder& order);
  void record_done(std::size_t lane, const StreamOrder& order);
  [[noreturn]] void rethrow(const Error& error, const std::string& under_way) const;
  std::string describe_open_batches();

  Transport& control_;
  const NcclTransportOptions options_;
  std::shared_ptr<cuda::DeviceFault> no_fault_;  // what `done` events report: copies find no bad index
  TicketTable<DeviceBatch> batches_;
  std::optional<NcclCommunicators> communicators_;  // after batches_: it ends before their events
  std::size_t next_lane_ = 0;
  int num_tests_ = 0;
};

NcclTransport::NcclTransport(Transport& control, const NcclTransportOptions& options)
    : control_(control), options_(options) {
  const Deadline deadline = Clock::now() + options_.start_timeout;
  const std::vector<ncclUniqueId> ids = agree_on_ids(deadline);
  try {
    communicators_.emplace(NcclCommunicators::Args{rank(), num_ranks(), options_.device, ids}, deadline,
                           [this] { control_.progress(); });
    no_fault_ = std::make_shared<cuda::DeviceFault>();
  } catch (const Error& error) {
    rethrow(error, "the start of NCCL on " + std::to_string(num_ranks()) + " ranks");
  }
}

NcclTransport::~NcclTransport() {
  if (is_at_rest()) {
    communicators_->close();
  } else {
    communicators_->abort();
  }
}

// Whether nothing is under way and, as far as one can see, all is well.
bool NcclTransport::is_at_rest() noexcept {
  try {
    look_around();
    bool is_idle = true;
    batches_.for_each_open([&](DeviceBatch& batch) { is_idle = is_idle && is_complete(batch); });
    return is_idle;
  } catch (const std::exception&) {
    return false;
  }
}

// What a rank can find out alone.
void NcclTransport::prepare(StartNote& note) const {
  if (options_.num_communicators < 1 || options_.num_communicators > kMaxCommunicators) {
    throw Error(ErrorKind::kInvalidArgument,
                "num_communicators " + std::to_string(options_.num_communicators) + " is neither 1 nor 2");
  }
  require_nccl_version();
  int num_devices = 0;
  check_cuda(cudaGetDeviceCount(&num_devices), "transport nccl finds no GPU");
  if (options_.device < 0 || options_.device >= num_devices) {
    throw Error(ErrorKind::kInvalidArgument, "device " + std::to_string(options_.device) +
                                                 " is none of the " + std::to_string(num_devices) +
                                                 " GPUs that this process sees");
  }
  check_cuda(cudaSetDevice(options_.device), "cudaSetDevice");
  if (rank() != 0) return;
  for (int i = 0; i < options_.num_communicators; ++i)
    check_nccl(ncclGetUniqueId(&note.ids[i]), "ncclGetUniqueId");
}

// No rank enters NCCL before all can: the lowest that cannot says why, the others name it.
std::vector<ncclUniqueId> NcclTransport::agree_on_ids(Deadline deadline) {
  StartNote mine;
  std::optional<Error> failure;
  try {
    prepare(mine);
  } catch (const Error& error) {
    failure = Error(error.kind(), "rank " + std::to_string(rank()) + ": " + error.what(), error.where());
    std::strncpy(mine.failure, failure->what(), sizeof(mine.failure) - 1);
  }
  const auto notes = all_gather(control_, std::as_bytes(std::span(&mine, 1)), kStartTag, deadline,
                                "the start of NCCL on all ranks");
  std::vector<ncclUniqueId> ids;
  for (int each = 0; each < num_ranks(); ++each) {
    StartNote note;
    std::memcpy(&note, notes[static_cast<std::size_t>(each)].data(), sizeof(note));
    if (note.failure[0] != '\0') throw each == rank() ? *failure : Error(ErrorKind::kAborted, note.failure);
    if (each == 0) ids.assign(note.ids, note.ids + options_.num_communicators);
  }
  return ids;
}

// Memory of messages is the caller's again once kAborted is out.
template <typename Body>
auto NcclTransport::run_guarded(Body body) {
  try {
    return body();
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::kAborted) communicators_->abort();
    throw;
  }
}

Ticket NcclTransport::post(std::span<const Message> messages) {
  return run_guarded([&] { return control_.post(messages); });
}

Ticket NcclTransport::post_on_device(std::span<const Message> messages, const StreamOrder& order) {
  return run_guarded([&]() -> Ticket {
    if (communicators_->is_closed()) look_around();
    check_messages(messages, rank(), num_ranks());
    const std::size_t lane = next_lane_;
    next_lane_ = (next_lane_ + 1) % communicators_->size();
    const cudaStream_t stream = communicators_->stream(lane);
    if (order.after != nullptr) {
      check_cuda(cudaStreamWaitEvent(stream, cuda_event(*order.after).handle()), "cudaStreamWaitEvent");
    }
    if (order.begun != nullptr) cuda_event(*order.begun).record_on(stream, no_fault_);
    if (messages.empty()) {
      record_done(lane, order);
      return {};
    }
    auto [ticket, batch] = batches_.open();
    note_contents(batch, messages);
    try {
      communicators_->enqueue(lane, messages, Clock::now() + options_.launch_timeout);
      finish_post(batch, lane, order);
    } catch (const Error& error) {
      rethrow(error, describe(batch));
    }
    return {ticket.id | kDeviceTicketBit};
  });
}

void NcclTransport::finish_post(DeviceBatch& batch, std::size_t lane, const StreamOrder& order) {
  const cudaStream_t stream = communicators_->stream(lane);
  if (batch.end == nullptr) {
    cudaEvent_t event = nullptr;
    check_cuda(cudaSetDevice(options_.device), "cudaSetDevice");  // this thread may be new here
    check_cuda(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cudaEventCreate");
    batch.end.reset(event);
  }
  check_cuda(cudaEventRecord(batch.end.get(), stream), "cudaEventRecord");
  record_done(lane, order);
}

void NcclTransport::record_done(std::size_t lane, const StreamOrder& order) {
  if (order.done == nullptr) return;
  communicators_->join(lane);
  cuda_event(*order.done).record_on(communicators_->stream(lane), no_fault_);
}

bool NcclTransport::test(Ticket ticket) {
  return run_guarded([&] {
    if ((ticket.id & kDeviceTicketBit) == 0) return control_.test(ticket);
    if (communicators_->is_closed() || ++num_tests_ % kTestsPerLook == 0) look_around();
    const Ticket own{ticket.id & ~kDeviceTicketBit};
    DeviceBatch* batch = batches_.find(own);
    if (batch == nullptr) return true;
    if (!is_complete(*batch)) return false;
    batches_.close(own);
    return true;
  });
}

// A batch counts only if NCCL is well: after a failure its kernels may end with half of the bytes.
bool NcclTransport::is_complete(DeviceBatch& batch) {
  try {
    const cudaError_t status = cudaEventQuery(batch.end.get());
    if (status == cudaErrorNotReady) return false;
    check_cuda(status, "transfers between GPUs");
    communicators_->check_health();
  } catch (const Error& error) {
    rethrow(error, describe(batch));
  }
  return true;
}

void NcclTransport::progress() {
  run_guarded([this] { look_around(); });
}

void NcclTransport::look_around() {
  control_.progress();
  check(!communicators_->is_closed(),
        "transfers between GPUs end only when the control transport has aborted");
  try {
    communicators_->check_health();
  } catch (const Error& error) {
    rethrow(error, describe_open_batches());
  }
}

void NcclTransport::abort(std::string_view reason) noexcept {
  control_.abort(reason);
  communicators_->abort();
}

// kAborted stays what it is: the rank that failed has said everything.
void NcclTransport::rethrow(const Error& error, const std::string& under_way) const {
  if (error.kind() == ErrorKind::kAborted) throw error;
  throw Error(error.kind(),
              "rank " + std::to_string(rank()) + ": " + error.what() + "; under way: " + under_way,
              error.where());
}

std::string NcclTransport::describe_open_batches() {
  std::size_t num_open = 0;
  std::string first;
  batches_.for_each_open([&](DeviceBatch& batch) {
    if (num_open++ == 0) first = describe(batch);
  });
  if (num_open == 0) return "nothing";
  return num_open == 1 ? first : first + " and " + std::to_string(num_open - 1) + " more";
}

}  // namespace

std::unique_ptr<Transport> create_nccl_transport(Transport& control, const NcclTransportOptions& options) {
  return std::make_unique<NcclTransport>(control, options);
}

std::vector<std::string> list_gpu_uuids() {
  int num_devices = 0;
  if (cudaGetDeviceCount(&num_devices) != cudaSuccess) return {};
  std::vector<std::string> uuids;
  for (int device = 0; device < num_devices; ++device) {
    cudaDeviceProp properties{};
    check_cuda(cudaGetDeviceProperties(&properties, device), "cudaGetDeviceProperties");
    uuids.emplace_back(properties.uuid.bytes, sizeof(properties.uuid.bytes));
  }
  return uuids;
}

}  // namespace aurora
