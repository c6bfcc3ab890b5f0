// One planned all-to-all under way: posts its rounds one after the other and never blocks.
//
// The message from source s to destination d is one contiguous range of s's send buffer and one of d's
// receive buffer; rounds carry consecutive pieces of it. The part that stays on this rank is not the
// exchange's business. Collective rule: all ranks start the same exchanges of one tag in the same order, with
// the same plan.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "runtime/dispatch/exchange_plan.h"
#include "runtime/transport/transport.h"

namespace aurora {

/// Where the messages of one rank lie. Offsets are in bytes, [num_ranks]; sizes come from the plan.
struct ExchangeBuffers {
  std::byte* send = nullptr;
  std::span<const std::size_t> send_offsets;  // by destination
  std::byte* receive = nullptr;
  std::span<const std::size_t> receive_offsets;  // by source
};

class Exchange {
 public:
  Exchange(Transport& transport, std::uint32_t tag) : transport_(&transport), tag_(tag) {}

  /// Posts the first round. The buffers must stay in place until `advance` has returned true.
  void start(const TransmissionOrder& order, const ExchangeBuffers& buffers);

  /// Posts further rounds as the earlier ones complete on this rank; true when all is done.
  bool advance();

 private:
  void post_next_round();

  Transport* transport_;
  std::uint32_t tag_;
  std::vector<std::vector<Message>> rounds_;  // this rank's messages, rounds without any left out
  std::size_t next_round_ = 0;
  Ticket ticket_;
};

}  // namespace aurora
