#include "tests/runtime/transport/transport_conformance.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <ostream>
#include <random>
#include <string>
#include <vector>

#include "kernels/error.h"
#include "runtime/transport/clock_offset.h"
#include "runtime/transport/message_check.h"
#include "runtime/transport/wait.h"
#include "tests/runtime/transport/address_coding.h"

namespace aurora {

namespace {

constexpr std::uint32_t kTag = 7;
constexpr std::size_t kMiB = std::size_t{1} << 20;
constexpr auto kPatience = std::chrono::seconds(120);  // far above any case's time, even under a sanitizer

Deadline soon() { return std::chrono::steady_clock::now() + kPatience; }

// --- Batches that own their memory.

struct Parcel {
  Address address;
  Bytes bytes;
};

// Parcels of one rank: sends are filled on creation, receives are checked by `check`.
class ParcelBatch {
 public:
  explicit ParcelBatch(Transport& transport) : transport_(transport) {}

  void send(int peer, std::uint32_t tag, std::size_t size_bytes, std::uint32_t sequence = 0) {
    const Address address{transport_.rank(), peer, tag, sequence};
    sends_.push_back({address, coded_payload(address, size_bytes)});
  }
  void receive(int peer, std::uint32_t tag, std::size_t size_bytes, std::uint32_t sequence = 0) {
    receives_.push_back({{peer, transport_.rank(), tag, sequence}, Bytes(size_bytes)});
  }

  Ticket post() {
    std::vector<Message> messages;
    for (Parcel& parcel : sends_) {
      messages.push_back({Direction::kSend, parcel.address.destination, parcel.address.tag,
                          parcel.bytes.data(), parcel.bytes.size()});
    }
    for (Parcel& parcel : receives_) {
      messages.push_back({Direction::kReceive, parcel.address.source, parcel.address.tag, parcel.bytes.data(),
                          parcel.bytes.size()});
    }
    ticket_ = transport_.post(messages);
    return ticket_;
  }
  Ticket ticket() const { return ticket_; }

  void expect_received() const {
    for (const Parcel& parcel : receives_) expect_payload(parcel.bytes, parcel.address);
  }
  void post_and_check() {
    wait(transport_, post(), soon(), "a conformance case");
    expect_received();
  }

 private:
  Transport& transport_;
  std::vector<Parcel> sends_;
  std::vector<Parcel> receives_;
  Ticket ticket_;
};

template <typename Action>
void expect_error(ErrorKind kind, const std::vector<std::string>& parts, Action action) {
  try {
    action();
    ADD_FAILURE() << "no error, expected one of kind \"" << error_kind_name(kind) << '"';
  } catch (const Error& error) {
    const std::string text = error.what();
    EXPECT_EQ(error.kind(), kind) << text;
    for (const std::string& part : parts) {
      EXPECT_NE(text.find(part), std::string::npos) << "the text lacks \"" << part << "\": " << text;
    }
  }
}

// Ranks meet here; a case uses it where it needs to know that the others have come so far.
void meet(Transport& transport) {
  all_gather(transport, {}, kTag + 1, soon(), "the other ranks of the test");
}

void progress_until(Transport& transport, Deadline deadline) {
  for (IdleBackoff backoff; std::chrono::steady_clock::now() < deadline; backoff.pause()) {
    transport.progress();
  }
}

// --- Messages

void everybody_exchanges_with_everybody(Transport& transport) {
  for (const std::size_t size : {std::size_t{1}, std::size_t{7}, std::size_t{4096}, std::size_t{100000}}) {
    ParcelBatch batch(transport);
    for (int peer = 0; peer < transport.num_ranks(); ++peer) {
      if (peer == transport.rank()) continue;
      // Sizes differ by direction, so that a swap cannot hide.
      batch.send(peer, kTag, size + static_cast<std::size_t>(transport.rank()));
      batch.receive(peer, kTag, size + static_cast<std::size_t>(peer));
    }
    batch.post_and_check();
  }
}

void messages_of_one_tag_keep_their_order(Transport& transport) {
  constexpr std::uint32_t kNumMessages = 50;
  const int num_ranks = transport.num_ranks();
  if (num_ranks == 1) return;
  const int next = (transport.rank() + 1) % num_ranks;
  const int previous = (transport.rank() + num_ranks - 1) % num_ranks;
  // Receives are posted in one batch, sends one by one: matching goes by order, not by batch.
  ParcelBatch receives(transport);
  for (std::uint32_t i = 0; i < kNumMessages; ++i) receives.receive(previous, kTag, 100, i);
  std::vector<ParcelBatch> sends(kNumMessages, ParcelBatch(transport));
  for (std::uint32_t i = 0; i < kNumMessages; ++i) sends[i].send(next, kTag, 100, i);
  if (transport.rank() % 2 == 0) receives.post();
  for (ParcelBatch& send : sends) send.post();
  if (transport.rank() % 2 != 0) receives.post();
  wait(transport, receives.ticket(), soon(), "receives in order");
  for (ParcelBatch& send : sends) wait(transport, send.ticket(), soon(), "sends in order");
  receives.expect_received();
}

void many_tags_are_in_flight_at_once(Transport& transport) {
  constexpr std::uint32_t kNumTags = 300;
  ParcelBatch sends(transport);
  ParcelBatch receives(transport);
  for (int peer = 0; peer < transport.num_ranks(); ++peer) {
    if (peer == transport.rank()) continue;
    for (std::uint32_t i = 0; i < kNumTags; ++i) {
      sends.send(peer, i, 1 + i % 90);
      const std::uint32_t tag = kNumTags - 1 - i;  // the other way round
      receives.receive(peer, tag, 1 + tag % 90);
    }
  }
  sends.post();
  receives.post();
  wait(transport, receives.ticket(), soon(), "receives of many tags");
  wait(transport, sends.ticket(), soon(), "sends of many tags");
  receives.expect_received();
}

void the_largest_tag_works(Transport& transport) {
  ParcelBatch batch(transport);
  for (int peer = 0; peer < transport.num_ranks(); ++peer) {
    if (peer == transport.rank()) continue;
    batch.send(peer, kTagLimit - 1, 9);
    batch.receive(peer, kTagLimit - 1, 9);
  }
  batch.post_and_check();
}

void one_byte_and_five_mebibytes_arrive(Transport& transport) {
  const int num_ranks = transport.num_ranks();
  if (num_ranks == 1) return;
  const int next = (transport.rank() + 1) % num_ranks;
  const int previous = (transport.rank() + num_ranks - 1) % num_ranks;
  for (const std::size_t size : {std::size_t{1}, 5 * kMiB, 5 * kMiB - 1}) {
    ParcelBatch batch(transport);
    batch.send(next, kTag, size);
    batch.receive(previous, kTag, size);
    batch.post_and_check();
  }
}

void an_empty_batch_is_complete(Transport& transport) {
  EXPECT_TRUE(transport.test(Ticket{}));
  const Ticket ticket = transport.post({});
  EXPECT_TRUE(transport.test(ticket));
}

void a_spent_ticket_stays_complete(Transport& transport) {
  if (transport.num_ranks() == 1) return;
  const int num_ranks = transport.num_ranks();
  std::vector<Ticket> spent;
  for (std::uint32_t i = 0; i < 20; ++i) {
    ParcelBatch batch(transport);
    batch.send((transport.rank() + 1) % num_ranks, kTag, 64, i);
    batch.receive((transport.rank() + num_ranks - 1) % num_ranks, kTag, 64, i);
    batch.post_and_check();
    spent.push_back(batch.ticket());
    for (const Ticket ticket : spent) EXPECT_TRUE(transport.test(ticket));
  }
}

void a_receive_without_its_send_is_not_complete(Transport& transport) {
  if (transport.num_ranks() == 1) return;
  ParcelBatch batch(transport);
  if (transport.rank() == 0) {
    batch.receive(1, kTag, 32);
    batch.post();
    for (int i = 0; i < 1000; ++i) EXPECT_FALSE(transport.test(batch.ticket()));
  }
  meet(transport);  // before this, rank 1 has sent nothing under kTag
  if (transport.rank() == 1) {
    batch.send(0, kTag, 32);
    batch.post();
  }
  if (transport.rank() < 2) wait(transport, batch.ticket(), soon(), "a late message");
  batch.expect_received();
}

// All ranks derive the same schedule from the seed: who sends how much to whom under which tag, in which
// batch.
void random_schedules_arrive(Transport& transport) {
  if (transport.num_ranks() == 1) return;
  constexpr int kNumBatches = 12;
  for (const std::uint32_t seed : {11U, 12U, 13U}) {
    SCOPED_TRACE("seed " + std::to_string(seed) + ", rank " + std::to_string(transport.rank()));
    std::mt19937 random(seed);
    std::vector<ParcelBatch> batches(kNumBatches, ParcelBatch(transport));
    std::vector<std::uint32_t> sequences(
        static_cast<std::size_t>(transport.num_ranks() * transport.num_ranks()) * 4, 0);
    for (int i = 0; i < kNumBatches * 10 * transport.num_ranks(); ++i) {
      const int source = static_cast<int>(random() % static_cast<unsigned>(transport.num_ranks()));
      const int destination = static_cast<int>(random() % static_cast<unsigned>(transport.num_ranks()));
      const std::uint32_t tag = random() % 4;
      const std::size_t scale = std::size_t{1} << (random() % 15);
      const std::size_t size = 1 + random() % scale;
      const std::size_t batch_index = static_cast<std::size_t>(i / (10 * transport.num_ranks()));
      if (source == destination) continue;
      const auto pair = static_cast<std::size_t>(source * transport.num_ranks() + destination);
      const std::uint32_t sequence = sequences[pair * 4 + tag]++;
      if (transport.rank() == source) batches[batch_index].send(destination, tag, size, sequence);
      if (transport.rank() == destination) batches[batch_index].receive(source, tag, size, sequence);
    }
    for (ParcelBatch& batch : batches) batch.post();
    // Completion is asked for in an order of its own.
    std::mt19937 own_random(seed + 100 * static_cast<std::uint32_t>(transport.rank()));
    std::vector<std::size_t> order(kNumBatches);
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::shuffle(order.begin(), order.end(), own_random);
    for (const std::size_t i : order) wait(transport, batches[i].ticket(), soon(), "a random schedule");
    for (const ParcelBatch& batch : batches) batch.expect_received();
  }
}

// --- Refusals and mismatches

void impossible_messages_are_refused_before_anything_is_posted(Transport& transport) {
  std::array<std::byte, 8> memory{};
  const int self = transport.rank();
  const int peer = (self + 1) % transport.num_ranks();
  const int num_ranks = transport.num_ranks();
  const auto refuses = [&](const Message& bad, const std::string& part) {
    // The good message in front must not be posted: it would have no partner.
    std::vector<Message> messages{bad};
    if (peer != self) messages.insert(messages.begin(), {Direction::kSend, peer, kTag, memory.data(), 8});
    expect_error(ErrorKind::kInvalidArgument, {part, "message " + std::to_string(messages.size() - 1)},
                 [&] { transport.post(messages); });
  };
  refuses({Direction::kSend, self, kTag, memory.data(), 8}, "the rank itself");
  refuses({Direction::kSend, -1, kTag, memory.data(), 8}, "peer -1");
  refuses({Direction::kReceive, num_ranks, kTag, memory.data(), 8}, "peer " + std::to_string(num_ranks));
  if (peer == self) return;
  refuses({Direction::kSend, peer, kTagLimit, memory.data(), 8}, "tag 1048576");
  refuses({Direction::kSend, peer, kTag, memory.data(), 0}, "zero bytes");
  refuses({Direction::kReceive, peer, kTag, nullptr, 8}, "null");
  meet(transport);
  if (self > 1) return;
  ParcelBatch batch(transport);  // finds no leftovers of the refused batches
  batch.send(1 - self, kTag, 24);
  batch.receive(1 - self, kTag, 24);
  batch.post_and_check();
}

void expect_mismatch(Transport& transport, std::size_t sent_bytes, std::size_t expected_bytes) {
  if (transport.num_ranks() == 1) return;
  ParcelBatch batch(transport);
  if (transport.rank() == 0) batch.send(1, kTag, sent_bytes);
  if (transport.rank() == 1) {
    batch.receive(0, kTag, expected_bytes);
    batch.post();
    expect_error(ErrorKind::kInvalidArgument,
                 {"rank 0 -> rank 1", "tag 7", std::to_string(sent_bytes), std::to_string(expected_bytes)},
                 [&] { wait(transport, batch.ticket(), soon(), "a message of another size"); });
    transport.abort("sizes disagree");
    return;
  }
  // The sender of a mismatch may learn of it by itself; everybody learns of the abort.
  try {
    wait(transport, batch.post(), soon(), "the abort");
    progress_until(transport, soon());
    ADD_FAILURE() << "the abort was never seen";
  } catch (const Error& error) {
    EXPECT_TRUE(error.kind() == ErrorKind::kAborted || error.kind() == ErrorKind::kInvalidArgument)
        << error.what();
  }
}

void a_message_shorter_than_expected_is_an_error(Transport& transport) {
  expect_mismatch(transport, 100, 128);
}
void a_message_longer_than_expected_is_an_error(Transport& transport) {
  expect_mismatch(transport, 128, 100);
}

// --- Aborts and deadlines

// Every rank but the last waits for the last one, which aborts instead; everybody learns who and why.
void an_abort_reaches_ranks_that_wait(Transport& transport) {
  const int failing = transport.num_ranks() - 1;
  if (transport.num_ranks() == 1) return;
  {
    ParcelBatch batch(transport);
    if (transport.rank() != failing) {
      batch.receive(failing, kTag, 1000);
      batch.send(failing, kTag + 2, 3 * kMiB);  // cannot complete: there is no receive
      expect_error(ErrorKind::kAborted, {"rank " + std::to_string(failing), "a drill"},
                   [&] { wait(transport, batch.post(), soon(), "a rank that fails"); });
    } else {
      batch.receive(0, kTag + 3, 10);
      batch.post();
      transport.abort("a drill");
      transport.abort("a second reason, which nobody hears");
      expect_error(ErrorKind::kAborted, {"a drill"}, [&] { transport.progress(); });
    }
  }
  // The memory of the batch is gone; the transport must not touch it any more.
  std::array<std::byte, 8> memory{};
  expect_error(ErrorKind::kAborted, {"a drill"}, [&] { transport.progress(); });
  expect_error(ErrorKind::kAborted, {"a drill"}, [&] { transport.test(Ticket{}); });
  const int peer = (transport.rank() + 1) % transport.num_ranks();
  const Message message{Direction::kSend, peer, kTag, memory.data(), 8};
  expect_error(ErrorKind::kAborted, {"a drill"}, [&] { transport.post({&message, 1}); });
}

void an_abort_reaches_ranks_that_only_progress(Transport& transport) {
  if (transport.num_ranks() == 1) return;
  if (transport.rank() == 0) return transport.abort("rank 0 gives up");
  expect_error(ErrorKind::kAborted, {"rank 0 failed: rank 0 gives up"},
               [&] { progress_until(transport, soon()); });
}

void all_ranks_may_abort_at_once(Transport& transport) {
  transport.abort("everybody fails");
  expect_error(ErrorKind::kAborted, {"everybody fails"}, [&] { transport.progress(); });
}

// Aborts fall into the middle of large transfers, whose memory then goes at once.
void memory_may_go_after_an_abort_in_the_middle_of_transfers(Transport& transport) {
  if (transport.num_ranks() == 1) return;
  const int failing = transport.num_ranks() / 2;
  try {
    for (std::uint32_t i = 0; i < 1000; ++i) {
      ParcelBatch batch(transport);
      for (int peer = 0; peer < transport.num_ranks(); ++peer) {
        if (peer == transport.rank()) continue;
        batch.send(peer, kTag, 200000, i);
        batch.receive(peer, kTag, 200000, i);
      }
      batch.post();
      if (transport.rank() == failing && i == 3) {
        transport.abort("in the middle");
        return;
      }
      wait(transport, batch.ticket(), soon(), "a transfer that will be interrupted");
      batch.expect_received();
    }
    ADD_FAILURE() << "the abort was never seen";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kAborted) << error.what();
  }
}

void a_missed_deadline_names_what_was_waited_for(Transport& transport) {
  if (transport.num_ranks() == 1) return;
  ParcelBatch batch(transport);
  if (transport.rank() == 0) {
    batch.receive(1, kTag, 16);
    batch.post();
    const Deadline past = std::chrono::steady_clock::now();
    expect_error(ErrorKind::kTimeout, {"rank 0 of", "a message that comes later"},
                 [&] { wait(transport, batch.ticket(), past, "a message that comes later"); });
  }
  meet(transport);
  if (transport.rank() == 1) {
    batch.send(0, kTag, 16);
    batch.post();
  }
  if (transport.rank() < 2)
    wait(transport, batch.ticket(), soon(), "the same message");  // the ticket is still good
  batch.expect_received();
}

void a_collective_that_misses_its_deadline_names_the_missing_ranks_and_aborts(Transport& transport) {
  const int absent = transport.num_ranks() - 1;
  if (transport.num_ranks() < 3) return;
  if (transport.rank() == 0) {
    const Deadline brief = std::chrono::steady_clock::now() + std::chrono::milliseconds(20);
    expect_error(ErrorKind::kTimeout, {"loads", "rank " + std::to_string(absent)},
                 [&] { all_gather(transport, {}, kTag, brief, "loads"); });
  } else if (transport.rank() != absent) {
    expect_error(ErrorKind::kAborted, {"rank 0 failed", "loads"},
                 [&] { all_gather(transport, {}, kTag, soon(), "loads"); });
  } else {
    expect_error(ErrorKind::kAborted, {"rank 0 failed", "loads"}, [&] { progress_until(transport, soon()); });
  }
}

// Stands between a collective and its transport and fails by itself, as a layer that watches for signals
// does.
class InterruptedTransport final : public Transport {
 public:
  InterruptedTransport(Transport& inner, int num_calls) : inner_(inner), num_calls_left_(num_calls) {}
  std::string_view name() const override { return inner_.name(); }
  int rank() const override { return inner_.rank(); }
  int num_ranks() const override { return inner_.num_ranks(); }
  Ticket post(std::span<const Message> messages) override {
    count_down();
    return inner_.post(messages);
  }
  bool test(Ticket ticket) override {
    count_down();
    return inner_.test(ticket);
  }
  void progress() override { inner_.progress(); }
  void abort(std::string_view reason) noexcept override { inner_.abort(reason); }

 private:
  void count_down() {
    if (num_calls_left_-- == 0) throw Error(ErrorKind::kAborted, "interrupted");
  }
  Transport& inner_;
  int num_calls_left_;
};

// Its memory goes with its frame while messages are under way, so it must tell the transport, whatever the
// error.
void a_collective_that_is_interrupted_lets_go_of_its_memory(Transport& transport) {
  if (transport.num_ranks() == 1) return;
  const Bytes mine(50000);
  expect_error(ErrorKind::kAborted, {"interrupted"}, [&] {
    InterruptedTransport interrupted(transport, transport.rank() == 0 ? transport.num_ranks() + 3 : 1 << 30);
    for (;;) all_gather(interrupted, mine, kTag, soon(), "payloads");
  });
  expect_error(ErrorKind::kAborted, {"interrupted"}, [&] { progress_until(transport, soon()); });
}

// --- Collectives. Sizes around the 248 bytes that travel with the size, and zero, differ by rank.

constexpr std::array<std::size_t, 8> kSizes = {0, 1, 247, 248, 249, 1000, 70000, 300001};

std::size_t size_of(int rank, std::size_t turn) {
  return kSizes[(static_cast<std::size_t>(rank) + turn) % kSizes.size()];
}

void all_gather_brings_every_ranks_bytes_to_every_rank(Transport& transport) {
  for (std::size_t turn = 0; turn < kSizes.size(); ++turn) {
    const auto sequence = static_cast<std::uint32_t>(turn);
    const Bytes mine = coded_payload({transport.rank(), 0, kTag, sequence}, size_of(transport.rank(), turn));
    const auto all = all_gather(transport, mine, kTag, soon(), "payloads");
    EXPECT_EQ(all.size(), static_cast<std::size_t>(transport.num_ranks()));
    for (int rank = 0; rank < transport.num_ranks(); ++rank) {
      EXPECT_EQ(all[static_cast<std::size_t>(rank)].size(), size_of(rank, turn));
      expect_payload(all[static_cast<std::size_t>(rank)], {rank, 0, kTag, sequence});
    }
  }
}

void gather_brings_every_ranks_bytes_to_the_root(Transport& transport) {
  for (int root = 0; root < transport.num_ranks(); ++root) {
    const auto turn = static_cast<std::size_t>(root);
    const Bytes mine = coded_payload({transport.rank(), root, kTag, 0}, size_of(transport.rank(), turn));
    const auto all = gather(transport, root, mine, kTag, soon(), "payloads");
    EXPECT_EQ(all.size(), transport.rank() == root ? static_cast<std::size_t>(transport.num_ranks()) : 0);
    for (std::size_t rank = 0; rank < all.size(); ++rank) {
      EXPECT_EQ(all[rank].size(), size_of(static_cast<int>(rank), turn));
      expect_payload(all[rank], {static_cast<int>(rank), root, kTag, 0});
    }
  }
}

void broadcast_brings_the_roots_bytes_to_every_rank(Transport& transport) {
  for (int root = 0; root < transport.num_ranks(); ++root) {
    for (std::size_t turn = 0; turn < kSizes.size(); ++turn) {
      const auto sequence = static_cast<std::uint32_t>(turn);
      Bytes mine(13);  // what the others pass does not matter
      if (transport.rank() == root) mine = coded_payload({root, 0, kTag, sequence}, kSizes[turn]);
      const Bytes received = broadcast(transport, root, mine, kTag, soon(), "payload");
      EXPECT_EQ(received.size(), kSizes[turn]);
      expect_payload(received, {root, 0, kTag, sequence});
    }
  }
}

void a_root_out_of_range_is_refused(Transport& transport) {
  const int num_ranks = transport.num_ranks();
  for (const int root : {-1, num_ranks}) {
    const std::string part = "root " + std::to_string(root);
    expect_error(ErrorKind::kInvalidArgument, {part},
                 [&] { gather(transport, root, {}, kTag, soon(), "x"); });
    expect_error(ErrorKind::kInvalidArgument, {part},
                 [&] { broadcast(transport, root, {}, kTag, soon(), "x"); });
    expect_error(ErrorKind::kInvalidArgument, {part},
                 [&] { estimate_clock_offset(transport, root, kTag, soon()); });
  }
}

// All ranks of these tests run on one host and read one clock, so the true offset is zero.
void clock_offsets_are_within_their_uncertainty(Transport& transport) {
  for (int root = 0; root < transport.num_ranks(); ++root) {
    const ClockOffset clock = estimate_clock_offset(transport, root, kTag, soon());
    EXPECT_LE(std::abs(clock.offset.count()), clock.uncertainty.count());
    if (transport.rank() == root) {
      EXPECT_EQ(clock.uncertainty.count(), 0);
    }
  }
}

constexpr ConformanceCase kCases[] = {
    {"EverybodyExchangesWithEverybody", everybody_exchanges_with_everybody},
    {"MessagesOfOneTagKeepTheirOrder", messages_of_one_tag_keep_their_order},
    {"ManyTagsAreInFlightAtOnce", many_tags_are_in_flight_at_once},
    {"TheLargestTagWorks", the_largest_tag_works},
    {"OneByteAndFiveMebibytesArrive", one_byte_and_five_mebibytes_arrive},
    {"AnEmptyBatchIsComplete", an_empty_batch_is_complete},
    {"ASpentTicketStaysComplete", a_spent_ticket_stays_complete},
    {"AReceiveWithoutItsSendIsNotComplete", a_receive_without_its_send_is_not_complete},
    {"RandomSchedulesArrive", random_schedules_arrive},
    {"ImpossibleMessagesAreRefusedBeforeAnythingIsPosted",
     impossible_messages_are_refused_before_anything_is_posted},
    {"AMessageShorterThanExpectedIsAnError", a_message_shorter_than_expected_is_an_error},
    {"AMessageLongerThanExpectedIsAnError", a_message_longer_than_expected_is_an_error},
    {"AnAbortReachesRanksThatWait", an_abort_reaches_ranks_that_wait},
    {"AnAbortReachesRanksThatOnlyProgress", an_abort_reaches_ranks_that_only_progress},
    {"AllRanksMayAbortAtOnce", all_ranks_may_abort_at_once},
    {"MemoryMayGoAfterAnAbortInTheMiddleOfTransfers",
     memory_may_go_after_an_abort_in_the_middle_of_transfers},
    {"AMissedDeadlineNamesWhatWasWaitedFor", a_missed_deadline_names_what_was_waited_for},
    {"ACollectiveThatMissesItsDeadlineNamesTheMissingRanksAndAborts",
     a_collective_that_misses_its_deadline_names_the_missing_ranks_and_aborts},
    {"ACollectiveThatIsInterruptedLetsGoOfItsMemory", a_collective_that_is_interrupted_lets_go_of_its_memory},
    {"AllGatherBringsEveryRanksBytesToEveryRank", all_gather_brings_every_ranks_bytes_to_every_rank},
    {"GatherBringsEveryRanksBytesToTheRoot", gather_brings_every_ranks_bytes_to_the_root},
    {"BroadcastBringsTheRootsBytesToEveryRank", broadcast_brings_the_roots_bytes_to_every_rank},
    {"ARootOutOfRangeIsRefused", a_root_out_of_range_is_refused},
    {"ClockOffsetsAreWithinTheirUncertainty", clock_offsets_are_within_their_uncertainty},
};

}  // namespace

std::span<const ConformanceCase> conformance_cases() { return kCases; }

void PrintTo(const ConformanceCase& conformance_case, std::ostream* out) { *out << conformance_case.name; }

}  // namespace aurora
