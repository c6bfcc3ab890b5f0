// What launch/ adds to a rank's transport: it stops when the process is interrupted, and of several ranks
// that fail at the same time one speaks.
#pragma once

#include <optional>
#include <string>

#include "runtime/transport/transport.h"

namespace aurora {

/// Behaves as `inner`, which must outlive it, except:
/// posting, `test` and `progress` throw kAborted once the process is interrupted (interrupt.h);
/// `abort` first listens for a moment, longer on higher ranks, whether another rank has aborted already. If
/// so, that rank has told everybody, and `earlier_abort` says what. (When a rank gets stuck, the deadlines of
/// all others pass at the same moment; and its own has passed when it is woken up again.) Of ranks that abort
/// at the same moment all the same, those learn it over which another one prevails.
class RankTransport final : public Transport {
 public:
  explicit RankTransport(Transport& inner) : inner_(inner) {}

  std::string_view name() const override { return inner_.name(); }
  int rank() const override { return inner_.rank(); }
  int num_ranks() const override { return inner_.num_ranks(); }
  Ticket post(std::span<const Message> messages) override;
  bool is_stream_ordered() const override { return inner_.is_stream_ordered(); }
  Ticket post_on_device(std::span<const Message> messages, const StreamOrder& order) override;
  bool test(Ticket ticket) override;
  void progress() override;
  void abort(std::string_view reason) noexcept override;

  /// What another rank had said when this one was about to abort.
  const std::optional<std::string>& earlier_abort() const { return earlier_abort_; }

 private:
  void listen();
  bool hears_abort();
  void settle();

  Transport& inner_;
  bool is_aborted_ = false;
  std::optional<std::string> earlier_abort_;
};

}  // namespace aurora
