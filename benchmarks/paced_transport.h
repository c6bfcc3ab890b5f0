// Ranks that are threads, behind ports of a given bandwidth: what a network would take, taken by the clock.
//
// A message starts when both ends are posted and both sides of its ports are free, and ends for both when its
// bytes have passed the slower port; a side carries one message at a time, in the order in which pairs were
// complete. No processor is needed meanwhile, as with a network card. It is an emulation of a non-blocking
// switch, for machines where network namespaces cannot be shaped (tests/testbed), and says nothing of
// start-up costs or protocols.
#pragma once

#include <chrono>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <tuple>
#include <vector>

#include "runtime/transport/transport.h"

namespace aurora::bench {

/// The ports of all ranks; outlives their transports. Thread-safe.
class PacedPorts {
 public:
  using Clock = std::chrono::steady_clock;
  /// When a message ends; set when its other end has been posted.
  using End = std::shared_ptr<std::optional<Clock::time_point>>;

  /// 10^9 bit/s of each rank's port, each way; above zero.
  explicit PacedPorts(std::vector<double> ports_gbps);

  /// One end of a message, posted now by `rank`.
  End post(int rank, const Message& message);
  /// Whether it has ended.
  bool is_over(const End& end);

 private:
  /// Source, destination, tag.
  using Conversation = std::tuple<int, int, std::uint32_t>;
  struct Waiting {
    Direction direction;
    End end;
  };

  Clock::duration time_through(int rank, std::size_t size_bytes) const;

  const std::vector<double> ports_gbps_;
  std::mutex mutex_;
  std::map<Conversation, std::deque<Waiting>> waiting_;        // ends without the other one
  std::vector<Clock::time_point> sends_free_, receives_free_;  // [rank]
};

/// `inner`, with messages that are complete no earlier than `ports` lets them.
class PacedTransport final : public Transport {
 public:
  /// Both outlive it.
  PacedTransport(Transport& inner, PacedPorts& ports) : inner_(&inner), ports_(&ports) {}

  std::string_view name() const override { return inner_->name(); }
  int rank() const override { return inner_->rank(); }
  int num_ranks() const override { return inner_->num_ranks(); }
  Ticket post(std::span<const Message> messages) override;
  bool test(Ticket ticket) override;
  void progress() override { inner_->progress(); }
  void abort(std::string_view reason) noexcept override { inner_->abort(reason); }

 private:
  Transport* inner_;
  PacedPorts* ports_;
  std::map<std::uint64_t, std::vector<PacedPorts::End>> open_;  // by ticket
};

}  // namespace aurora::bench
