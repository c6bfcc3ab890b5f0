#include "runtime/transport/mpi_transport.h"

#include <algorithm>
#include <array>
#include <climits>
#include <cstring>
#include <string>
#include <vector>

#include "runtime/transport/message_check.h"
#include "runtime/transport/mpi_check.h"
#include "runtime/transport/ticket_table.h"
#include "runtime/transport/wait.h"

namespace aurora {

namespace {

constexpr int kNoticeTag = 0;
// An abort must be seen soon, yet looking for one costs a call into MPI: with a test every 10 us this is 0.2
// ms.
constexpr int kTestsPerNoticeCheck = 16;
// How long an aborting rank lets transfers end that MPI has begun and cannot cancel.
constexpr std::chrono::milliseconds kDrainTime(100);

// What an aborting rank tells the others; small enough for any MPI to send it without waiting for the
// receiver.
struct AbortNotice {
  std::int32_t rank = 0;
  std::uint32_t text_bytes = 0;
  std::array<char, 1016> text{};
};

// One request to MPI: a message or a segment of one.
struct Segment {
  Message message;
  std::size_t offset_bytes = 0;
  std::size_t size_bytes = 0;
};

// `requests` and `segments` run in parallel and hold what is not complete.
struct Batch {
  std::vector<MPI_Request> requests;
  std::vector<Segment> segments;

  void reset() {
    requests.clear();
    segments.clear();
  }
};

class MpiTransport final : public Transport {
 public:
  MpiTransport(MpiSession& session, const MpiTransportOptions& options);
  ~MpiTransport() override;

  std::string_view name() const override { return "mpi"; }
  int rank() const override { return session_.rank(); }
  int num_ranks() const override { return session_.num_ranks(); }

  Ticket post(std::span<const Message> messages) override;
  bool test(Ticket ticket) override;
  void progress() override;
  void abort(std::string_view reason) noexcept override;

 private:
  void post_segments(const Message& message, Batch& batch);
  void post_notice_receive();
  void look_for_notices();
  void throw_if_aborted() const;
  void retire_completed(Batch& batch, int num_completed, bool has_errors);
  void check_received(const Segment& segment, const MPI_Status& status, bool has_error) const;
  void send_notices(std::string_view reason);
  void bring_to_rest() noexcept;
  bool drop_completed(Batch& batch) noexcept;

  MpiSession& session_;
  const std::size_t segment_bytes_;
  MPI_Comm messages_ = MPI_COMM_NULL;
  MPI_Comm notices_ = MPI_COMM_NULL;
  TicketTable<Batch> batches_;
  std::vector<int> completed_;        // scratch of `test`
  std::vector<MPI_Status> statuses_;  // scratch of `test`
  std::vector<Segment> finished_;     // scratch of `test`
  int num_tests_ = 0;
  std::shared_ptr<AbortNotice> incoming_notice_ = std::make_shared<AbortNotice>();
  MPI_Request incoming_request_ = MPI_REQUEST_NULL;
  bool has_aborted_ = false;
  int aborting_rank_ = 0;  // when has_aborted_: the lowest that is known
  std::string abort_text_;
};

MpiTransport::MpiTransport(MpiSession& session, const MpiTransportOptions& options)
    : session_(session), segment_bytes_(options.segment_bytes) {
  if (segment_bytes_ == 0 || segment_bytes_ > static_cast<std::size_t>(INT_MAX)) {
    throw Error(ErrorKind::kInvalidArgument, "segment_bytes " + std::to_string(segment_bytes_) +
                                                 " is out of range: choose 1 to " + std::to_string(INT_MAX));
  }
  void* tag_bound = nullptr;
  int is_set = 0;
  check_mpi(MPI_Comm_get_attr(MPI_COMM_WORLD, MPI_TAG_UB, &tag_bound, &is_set), "MPI_Comm_get_attr");
  if (is_set != 0 && static_cast<std::uint32_t>(*static_cast<int*>(tag_bound)) < kTagLimit - 1) {
    throw Error(ErrorKind::kUnsupported, "this MPI library allows tags up to " +
                                             std::to_string(*static_cast<int*>(tag_bound)) +
                                             " only; messages need " + std::to_string(kTagLimit - 1));
  }
  // The communicators stay until MPI ends: freeing one is a collective operation, and a rank that goes must
  // not wait for the others.
  check_mpi(MPI_Comm_dup(MPI_COMM_WORLD, &messages_), "MPI_Comm_dup");
  check_mpi(MPI_Comm_dup(MPI_COMM_WORLD, &notices_), "MPI_Comm_dup");
  post_notice_receive();
}

void MpiTransport::post_notice_receive() {
  check_mpi(MPI_Irecv(incoming_notice_.get(), sizeof(AbortNotice), MPI_BYTE, MPI_ANY_SOURCE, kNoticeTag,
                      notices_, &incoming_request_),
            "MPI_Irecv of abort notices");
}

MpiTransport::~MpiTransport() {
  if (session_.has_ended()) return;
  bring_to_rest();
  if (incoming_request_ == MPI_REQUEST_NULL) return;
  int is_done = 0;
  MPI_Cancel(&incoming_request_);
  MPI_Test(&incoming_request_, &is_done, MPI_STATUS_IGNORE);
  if (is_done == 0) {
    session_.keep_until_end(incoming_notice_);
    MPI_Request_free(&incoming_request_);
  }
}

Ticket MpiTransport::post(std::span<const Message> messages) {
  throw_if_aborted();
  check_messages(messages, rank(), num_ranks());
  if (messages.empty()) return {};
  auto [ticket, batch] = batches_.open();
  // Receives first: a message that finds its receive posted is not buffered by MPI.
  for (const Direction direction : {Direction::kReceive, Direction::kSend}) {
    for (const Message& message : messages) {
      if (message.direction == direction) post_segments(message, batch);
    }
  }
  return ticket;
}

void MpiTransport::post_segments(const Message& message, Batch& batch) {
  for (std::size_t offset = 0; offset < message.size_bytes; offset += segment_bytes_) {
    const std::size_t size = std::min(segment_bytes_, message.size_bytes - offset);
    const int count = static_cast<int>(size);
    const int tag = static_cast<int>(message.tag);
    MPI_Request request = MPI_REQUEST_NULL;
    const int code =
        message.direction == Direction::kSend
            ? MPI_Isend(message.data + offset, count, MPI_BYTE, message.peer, tag, messages_, &request)
            : MPI_Irecv(message.data + offset, count, MPI_BYTE, message.peer, tag, messages_, &request);
    check_mpi(code, describe_ends(message, rank()));
    batch.requests.push_back(request);
    batch.segments.push_back({message, offset, size});
  }
}

bool MpiTransport::test(Ticket ticket) {
  throw_if_aborted();
  if (++num_tests_ % kTestsPerNoticeCheck == 0) {
    look_for_notices();
    throw_if_aborted();
  }
  Batch* batch = batches_.find(ticket);
  if (batch == nullptr) return true;
  completed_.resize(std::max(completed_.size(), batch->requests.size()));
  statuses_.resize(std::max(statuses_.size(), batch->requests.size()));
  int num_completed = 0;
  const int code = MPI_Testsome(static_cast<int>(batch->requests.size()), batch->requests.data(),
                                &num_completed, completed_.data(), statuses_.data());
  if (code != MPI_SUCCESS && code != MPI_ERR_IN_STATUS) check_mpi(code, "MPI_Testsome");
  if (num_completed > 0) retire_completed(*batch, num_completed, code == MPI_ERR_IN_STATUS);
  if (!batch->requests.empty()) return false;
  batches_.close(ticket);
  return true;
}

// Drops the completed requests from the batch, then throws for the first that went wrong.
void MpiTransport::retire_completed(Batch& batch, int num_completed, bool has_errors) {
  const auto count = static_cast<std::size_t>(num_completed);
  finished_.clear();
  for (std::size_t i = 0; i < count; ++i) {
    finished_.push_back(batch.segments[static_cast<std::size_t>(completed_[i])]);
  }
  std::size_t num_kept = 0;
  for (std::size_t i = 0; i < batch.requests.size(); ++i) {
    if (batch.requests[i] == MPI_REQUEST_NULL) continue;
    batch.requests[num_kept] = batch.requests[i];
    batch.segments[num_kept] = batch.segments[i];
    ++num_kept;
  }
  batch.requests.resize(num_kept);
  batch.segments.resize(num_kept);
  for (std::size_t i = 0; i < count; ++i) {
    check_received(finished_[i], statuses_[i], has_errors && statuses_[i].MPI_ERROR != MPI_SUCCESS);
  }
}

void MpiTransport::check_received(const Segment& segment, const MPI_Status& status, bool has_error) const {
  int error_class = MPI_SUCCESS;
  if (has_error) MPI_Error_class(status.MPI_ERROR, &error_class);
  if (has_error && error_class != MPI_ERR_TRUNCATE) {
    check_mpi(status.MPI_ERROR, describe_ends(segment.message, rank()));
  }
  if (segment.message.direction == Direction::kSend) return;
  MPI_Count received = 0;
  check_mpi(MPI_Get_elements_x(&status, MPI_BYTE, &received), "MPI_Get_elements_x");
  const std::size_t sent = static_cast<std::size_t>(received);
  if (!has_error && sent == segment.size_bytes) return;
  // After a truncation some MPI libraries report the sender's size and others the receiver's.
  const std::string sent_text = has_error && sent <= segment.size_bytes
                                    ? "more than that"
                                    : std::to_string(segment.offset_bytes + sent) + " bytes";
  throw Error(ErrorKind::kInvalidArgument,
              "sizes of a message disagree: " + describe_ends(segment.message, rank()) + ": sent " +
                  sent_text + ", expected " + std::to_string(segment.message.size_bytes) + " bytes");
}

void MpiTransport::progress() {
  look_for_notices();
  throw_if_aborted();
}

void MpiTransport::throw_if_aborted() const {
  if (has_aborted_) throw Error(ErrorKind::kAborted, abort_text_);
}

// Also advances every transfer under way: one call into MPI progresses all of them. Of several ranks that
// abort the lowest counts, so that all come to agree whose reason is the job's.
void MpiTransport::look_for_notices() {
  for (;;) {
    int has_arrived = 0;
    check_mpi(MPI_Test(&incoming_request_, &has_arrived, MPI_STATUS_IGNORE), "MPI_Test for abort notices");
    if (has_arrived == 0) return;
    const AbortNotice notice = *incoming_notice_;
    post_notice_receive();
    if (has_aborted_ && notice.rank >= aborting_rank_) continue;
    const std::size_t length = std::min<std::size_t>(notice.text_bytes, notice.text.size());
    abort_text_ =
        "rank " + std::to_string(notice.rank) + " failed: " + std::string(notice.text.data(), length);
    aborting_rank_ = notice.rank;
    if (has_aborted_) continue;
    has_aborted_ = true;
    bring_to_rest();
  }
}

void MpiTransport::abort(std::string_view reason) noexcept {
  if (has_aborted_) return;
  has_aborted_ = true;
  aborting_rank_ = rank();
  try {
    abort_text_ = "rank " + std::to_string(rank()) + " failed: " + std::string(reason);
    send_notices(reason);
  } catch (...) {
    // Out of memory or MPI broken while failing already: the others end when this process does.
  }
  bring_to_rest();
}

void MpiTransport::send_notices(std::string_view reason) {
  const auto notice = std::make_shared<AbortNotice>();
  session_.keep_until_end(notice);
  notice->rank = rank();
  const std::size_t length = std::min(reason.size(), notice->text.size());
  notice->text_bytes = static_cast<std::uint32_t>(length);
  std::memcpy(notice->text.data(), reason.data(), length);
  for (int peer = 0; peer < num_ranks(); ++peer) {
    if (peer == rank()) continue;
    MPI_Request request = MPI_REQUEST_NULL;
    if (MPI_Isend(notice.get(), sizeof(AbortNotice), MPI_BYTE, peer, kNoticeTag, notices_, &request) ==
        MPI_SUCCESS) {
      MPI_Request_free(&request);  // completes by itself; the notice stays in memory until MPI ends
    }
  }
}

// Cancels what can be cancelled, lets the rest end within kDrainTime, and gives up what is left then.
void MpiTransport::bring_to_rest() noexcept {
  batches_.for_each_open([](Batch& batch) {
    for (std::size_t i = 0; i < batch.requests.size(); ++i) {
      if (batch.segments[i].message.direction == Direction::kReceive) MPI_Cancel(&batch.requests[i]);
    }
  });
  const Deadline deadline = std::chrono::steady_clock::now() + kDrainTime;
  IdleBackoff backoff;
  for (;;) {
    bool all_done = true;
    batches_.for_each_open([&](Batch& batch) { all_done = drop_completed(batch) && all_done; });
    if (all_done || std::chrono::steady_clock::now() >= deadline) break;
    backoff.pause();
  }
  batches_.for_each_open([](Batch& batch) {
    for (MPI_Request& request : batch.requests) MPI_Request_free(&request);
    batch.reset();
  });
}

// Returns whether nothing of the batch is under way any more. Outcomes do not matter here.
bool MpiTransport::drop_completed(Batch& batch) noexcept {
  std::size_t num_kept = 0;
  for (MPI_Request& request : batch.requests) {
    int is_done = 0;
    const bool works = MPI_Test(&request, &is_done, MPI_STATUS_IGNORE) == MPI_SUCCESS;
    if (works && is_done == 0) batch.requests[num_kept++] = request;
  }
  batch.requests.resize(num_kept);
  return num_kept == 0;
}

}  // namespace

std::unique_ptr<Transport> create_mpi_transport(MpiSession& session, const MpiTransportOptions& options) {
  return std::make_unique<MpiTransport>(session, options);
}

}  // namespace aurora
