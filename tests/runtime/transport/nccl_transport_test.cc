// The NCCL transport over MPI processes: the conformance cases of every transport, and what stream-ordered
// transports owe for device memory. Every rank runs every test in the same order. Several ranks may share a
// GPU. Without a GPU the program says so and ends with 77.
#include <gtest/gtest.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "kernels/backend_registry.h"
#include "kernels/error.h"
#include "launch/nccl_environment.h"
#include "runtime/transport/mpi_session.h"
#include "runtime/transport/mpi_transport.h"
#include "runtime/transport/thread_transport.h"
#include "runtime/transport/transport_registry.h"
#include "runtime/transport/wait.h"
#include "tests/runtime/transport/address_coding.h"
#include "tests/runtime/transport/transport_conformance.h"
#include "tests/support/failures_only.h"

namespace aurora {
namespace {

MpiSession* session = nullptr;  // set by main before the tests run
int device = 0;
std::unique_ptr<Backend> backend;

constexpr std::size_t kMiB = std::size_t{1} << 20;

Deadline soon() { return std::chrono::steady_clock::now() + std::chrono::seconds(120); }

// A transport with its control, for one test; all ranks make it together.
struct Pair {
  explicit Pair(int num_communicators = 1)
      : control(create_mpi_transport(*session)),
        transport(
            create_device_transport(*control, {.device = device, .num_communicators = num_communicators})) {}
  std::unique_ptr<Transport> control;
  std::unique_ptr<Transport> transport;
};

// Runs one test's `body` and tells the other ranks when it throws.
template <typename Body>
void run_together(int num_communicators, Body body) {
  const Pair pair(num_communicators);
  try {
    body(*pair.transport);
  } catch (const std::exception& error) {
    ADD_FAILURE() << error.what();
    pair.transport->abort(error.what());
  }
}

void meet(Transport& transport) { all_gather(transport, {}, 1, soon(), "the other ranks of the test"); }

// --- Batches of device memory

// The messages of one batch, their memory, and the events that order them. Sends get their payload, and
// receives theirs to check, on a compute stream.
class DeviceBatch {
 public:
  DeviceBatch(Transport& transport, Stream& compute)
      : transport_(transport),
        compute_(compute),
        after_(backend->create_event()),
        done_(backend->create_event()) {}

  // Freeing device memory waits for the device, which may wait for messages that never come.
  ~DeviceBatch() {
    if (std::uncaught_exceptions() > 0) transport_.abort("a test has failed");
  }
  DeviceBatch(const DeviceBatch&) = delete;
  DeviceBatch& operator=(const DeviceBatch&) = delete;

  void send(int peer, std::size_t size_bytes, std::uint32_t sequence = 0) {
    const Address address{transport_.rank(), peer, 0, sequence};
    const Bytes payload = coded_payload(address, size_bytes);
    add(Direction::kSend, peer, size_bytes);
    backend->copy(compute_, messages_.back().data, payload.data(), size_bytes);
    compute_.synchronize(soon());  // the payload goes with this frame
  }

  void receive(int peer, std::size_t size_bytes, std::uint32_t sequence = 0) {
    add(Direction::kReceive, peer, size_bytes);
    expected_.push_back({messages_.size() - 1, {peer, transport_.rank(), 0, sequence}});
  }

  Ticket post() {
    compute_.record(*after_);
    ticket_ = transport_.post_on_device(messages_, {after_.get(), done_.get()});
    return ticket_;
  }
  Ticket ticket() const { return ticket_; }
  Event& done() { return *done_; }
  std::byte* last_memory() { return messages_.back().data; }

  // Reads the bytes as compute would: behind the event, without asking the host whether they are there.
  void expect_received() {
    compute_.wait(*done_);
    for (const Expected& expected : expected_) {
      const Message& message = messages_[expected.message_index];
      Bytes actual(message.size_bytes);
      backend->copy(compute_, actual.data(), message.data, message.size_bytes);
      compute_.synchronize(soon());
      expect_payload(actual, expected.address);
    }
    wait(transport_, ticket_, soon(), "a batch whose bytes are there");
  }

 private:
  struct Expected {
    std::size_t message_index = 0;
    Address address;
  };

  void add(Direction direction, int peer, std::size_t size_bytes) {
    memory_.push_back(backend->allocate(size_bytes, MemorySpace::kDevice));
    messages_.push_back({direction, peer, 0, memory_.back().data(), size_bytes});
  }

  Transport& transport_;
  Stream& compute_;
  std::unique_ptr<Event> after_;
  std::unique_ptr<Event> done_;
  std::vector<Buffer> memory_;
  std::vector<Message> messages_;
  std::vector<Expected> expected_;
  Ticket ticket_;
};

template <typename Visitor>
void for_each_peer(const Transport& transport, Visitor visit) {
  for (int peer = 0; peer < transport.num_ranks(); ++peer) {
    if (peer != transport.rank()) visit(peer);
  }
}

class OnDevice : public testing::TestWithParam<int> {};  // number of communicators
INSTANTIATE_TEST_SUITE_P(Nccl, OnDevice, testing::Values(1, 2), [](const auto& parameter) {
  return parameter.param == 1 ? "OneCommunicator" : "TwoCommunicators";
});

TEST_P(OnDevice, EverybodyExchangesWithEverybodyAtAwkwardSizes) {
  run_together(GetParam(), [](Transport& transport) {
    const std::unique_ptr<Stream> compute = backend->create_stream();
    for (const std::size_t size :
         {std::size_t{1}, std::size_t{7}, std::size_t{4096}, std::size_t{100003}, kMiB + 1}) {
      DeviceBatch batch(transport, *compute);
      for_each_peer(transport, [&](int peer) {
        // Sizes differ by direction, so that a swap cannot hide.
        batch.send(peer, size + static_cast<std::size_t>(transport.rank()));
        batch.receive(peer, size + static_cast<std::size_t>(peer));
      });
      batch.post();
      batch.expect_received();
    }
  });
}

TEST_P(OnDevice, SixtyFourMebibytesGoRoundTheRing) {
  run_together(GetParam(), [](Transport& transport) {
    if (transport.num_ranks() == 1) return;
    const std::unique_ptr<Stream> compute = backend->create_stream();
    DeviceBatch batch(transport, *compute);
    batch.send((transport.rank() + 1) % transport.num_ranks(), 64 * kMiB);
    batch.receive((transport.rank() + transport.num_ranks() - 1) % transport.num_ranks(), 64 * kMiB);
    batch.post();
    batch.expect_received();
  });
}

TEST_P(OnDevice, MessagesOfAPairKeepTheirOrderInsideABatchAndAcrossBatches) {
  run_together(GetParam(), [](Transport& transport) {
    const std::unique_ptr<Stream> compute = backend->create_stream();
    std::vector<std::unique_ptr<DeviceBatch>> batches;
    for (std::uint32_t index = 0; index < 6; ++index) {
      DeviceBatch& batch = *batches.emplace_back(std::make_unique<DeviceBatch>(transport, *compute));
      for_each_peer(transport, [&](int peer) {
        for (std::uint32_t part = 0; part < 3; ++part) {
          batch.send(peer, 1000, 3 * index + part);
          batch.receive(peer, 1000, 3 * index + part);
        }
      });
    }
    for (const auto& batch : batches) batch->post();
    for (const auto& batch : batches) batch->expect_received();
  });
}

// Sizes of all pairs from one seed on every rank; half of the pairs have no message in a batch, and some
// ranks none at all.
TEST_P(OnDevice, ManyIrregularBatchesAreUnderWayAtOnce) {
  constexpr std::uint32_t kSeed = 20261;
  constexpr std::uint32_t kNumBatches = 100;
  if (session->rank() == 0) std::printf("seed %u\n", kSeed);
  run_together(GetParam(), [](Transport& transport) {
    const std::unique_ptr<Stream> compute = backend->create_stream();
    std::mt19937 random(kSeed);
    std::vector<std::unique_ptr<DeviceBatch>> batches;
    for (std::uint32_t index = 0; index < kNumBatches; ++index) {
      DeviceBatch& batch = *batches.emplace_back(std::make_unique<DeviceBatch>(transport, *compute));
      for (int from = 0; from < transport.num_ranks(); ++from) {
        for (int to = 0; to < transport.num_ranks(); ++to) {
          const std::size_t size = 1 + random() % 20000;
          if (random() % 2 == 0 || from == to) continue;
          if (from == transport.rank()) batch.send(to, size, index);
          if (to == transport.rank()) batch.receive(from, size, index);
        }
      }
    }
    for (const auto& batch : batches) batch->post();
    for (const auto& batch : batches) batch->expect_received();
  });
}

// The payload is written long after the batch is posted, behind copies that keep the device busy.
TEST_P(OnDevice, TransfersStartAfterTheirEvent) {
  run_together(GetParam(), [](Transport& transport) {
    const std::unique_ptr<Stream> compute = backend->create_stream();
    const Buffer source = backend->allocate(256 * kMiB, MemorySpace::kDevice);
    const Buffer target = backend->allocate(256 * kMiB, MemorySpace::kDevice);
    DeviceBatch batch(transport, *compute);
    std::vector<Buffer> payloads;
    std::vector<std::byte*> places;
    for_each_peer(transport, [&](int peer) {
      batch.receive(peer, 5000);
      const Bytes payload = coded_payload({transport.rank(), peer, 0, 0}, 5000);
      payloads.push_back(backend->allocate(5000, MemorySpace::kDevice));
      backend->copy(*compute, payloads.back().data(), payload.data(), 5000);
      compute->synchronize(soon());
      batch.send(peer, 5000, 1);  // what must not arrive
      places.push_back(batch.last_memory());
    });
    for (int i = 0; i < 20; ++i) backend->copy(*compute, target.data(), source.data(), target.size_bytes());
    for (std::size_t i = 0; i < places.size(); ++i)
      backend->copy(*compute, places[i], payloads[i].data(), 5000);
    batch.post();
    batch.expect_received();
  });
}

TEST_P(OnDevice, AnEmptyBatchIsDoneAfterItsEvent) {
  run_together(GetParam(), [](Transport& transport) {
    const std::unique_ptr<Stream> compute = backend->create_stream();
    DeviceBatch batch(transport, *compute);
    EXPECT_TRUE(transport.test(batch.post()));
    batch.done().wait(soon());
    EXPECT_TRUE(transport.test(transport.post_on_device({}, {})));
  });
}

TEST_P(OnDevice, HostMessagesTravelBesideDeviceBatches) {
  run_together(GetParam(), [](Transport& transport) {
    const std::unique_ptr<Stream> compute = backend->create_stream();
    DeviceBatch batch(transport, *compute);
    for_each_peer(transport, [&](int peer) {
      batch.send(peer, 3 * kMiB);
      batch.receive(peer, 3 * kMiB);
    });
    batch.post();
    const auto rank_byte = static_cast<std::byte>(transport.rank());
    const auto gathered = all_gather(transport, {&rank_byte, 1}, 3, soon(), "ranks");
    for (int rank = 0; rank < transport.num_ranks(); ++rank) {
      EXPECT_EQ(gathered[static_cast<std::size_t>(rank)], Bytes{static_cast<std::byte>(rank)});
    }
    batch.expect_received();
    EXPECT_TRUE(transport.test(batch.ticket())) << "a spent ticket stays complete";
  });
}

TEST(NcclTransport, RefusesMessagesThatCannotBe) {
  run_together(1, [](Transport& transport) {
    const Buffer memory = backend->allocate(8, MemorySpace::kDevice);
    const int peer = (transport.rank() + 1) % transport.num_ranks();
    for (const Message& message : {Message{Direction::kSend, transport.rank(), 0, memory.data(), 8},
                                   Message{Direction::kSend, transport.num_ranks(), 0, memory.data(), 8},
                                   Message{Direction::kReceive, peer, 0, memory.data(), 0},
                                   Message{Direction::kReceive, peer, 0, nullptr, 8}}) {
      try {
        transport.post_on_device({&message, 1}, {});
        ADD_FAILURE() << "was posted";
      } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::kInvalidArgument) << error.what();
      }
    }
    meet(transport);
  });
}

// --- Failures

// Kind and text of what `body` throws.
template <typename Body>
std::pair<ErrorKind, std::string> thrown(Body body) {
  try {
    body();
  } catch (const Error& error) {
    return {error.kind(), error.what()};
  }
  ADD_FAILURE() << "nothing was thrown";
  return {ErrorKind::kInternal, ""};
}

// The device must be as good as new for the next transport.
void expect_device_works() {
  const std::unique_ptr<Stream> compute = backend->create_stream();
  const Buffer memory = backend->allocate(1000, MemorySpace::kDevice);
  const Bytes sent = coded_payload({1, 2, 3, 4}, 1000);
  Bytes received(1000);
  backend->copy(*compute, memory.data(), sent.data(), 1000);
  backend->copy(*compute, received.data(), memory.data(), 1000);
  compute->synchronize(soon());
  EXPECT_EQ(received, sent);
}

TEST(NcclTransport, APeerThatNeverPostsCostsNoMoreThanTheDeadline) {
  if (session->num_ranks() == 1) GTEST_SKIP() << "needs two ranks";
  {
    const Pair pair;
    Transport& transport = *pair.transport;
    const Buffer memory = backend->allocate(1000, MemorySpace::kDevice);
    if (transport.rank() == 0) {  // is deaf, then hears of it
      const Deadline deadline = soon();
      const auto [kind, text] = thrown([&] {
        for (IdleBackoff backoff; std::chrono::steady_clock::now() < deadline; backoff.pause()) {
          transport.progress();
        }
      });
      EXPECT_EQ(kind, ErrorKind::kAborted) << text;
      EXPECT_NE(text.find("a batch from rank 0"), std::string::npos) << text;
    } else {
      const Message receive{Direction::kReceive, 0, 0, memory.data(), 1000};
      const Ticket ticket = transport.post_on_device({&receive, 1}, {});
      const auto [kind, text] = thrown([&] {
        wait(transport, ticket, std::chrono::steady_clock::now() + std::chrono::milliseconds(500),
             "a batch from rank 0");
      });
      EXPECT_TRUE(kind == ErrorKind::kTimeout || kind == ErrorKind::kAborted) << text;
      transport.abort(text);
    }
  }
  expect_device_works();
}

TEST(NcclTransport, AnAbortEndsTransfersUnderWay) {
  if (session->num_ranks() == 1) GTEST_SKIP() << "needs two ranks";
  for (const int num_communicators : {1, 2}) {
    const Pair pair(num_communicators);
    Transport& transport = *pair.transport;
    Buffer memory = backend->allocate(1000, MemorySpace::kDevice);
    const Message receive{Direction::kReceive, 0, 0, memory.data(), 1000};
    Ticket ticket;
    if (transport.rank() != 0) {
      for (int i = 0; i < num_communicators; ++i) ticket = transport.post_on_device({&receive, 1}, {});
    }
    meet(transport);
    if (transport.rank() == 0) transport.abort("a drill");
    const auto [kind, text] = thrown([&] {
      if (transport.rank() == 0) transport.progress();
      wait(transport, ticket, soon(), "an abort");
    });
    EXPECT_EQ(kind, ErrorKind::kAborted) << text;
    EXPECT_NE(text.find("rank 0 failed: a drill"), std::string::npos) << text;
    memory = Buffer();  // frees device memory, which hangs while a kernel of NCCL runs
    expect_device_works();
  }
}

TEST(NcclTransport, ARankThatCannotStartIsNamedOnAllRanks) {
  const auto control = create_mpi_transport(*session);
  const int last = session->num_ranks() - 1;
  const auto [kind, text] =
      thrown([&] { create_device_transport(*control, {.device = session->rank() == last ? 1000 : device}); });
  EXPECT_EQ(kind, session->rank() == last ? ErrorKind::kInvalidArgument : ErrorKind::kAborted) << text;
  EXPECT_NE(text.find("rank " + std::to_string(last) + ": device 1000 is none of"), std::string::npos)
      << text;
}

TEST(NcclTransport, RefusesANumberOfCommunicatorsOutOfRange) {
  const auto control = create_mpi_transport(*session);
  for (const int number : {0, 3}) {
    EXPECT_THROW(create_device_transport(*control, {.device = device, .num_communicators = number}), Error);
  }
}

// --- What every transport owes

class NcclTransportConformance : public testing::TestWithParam<ConformanceCase> {};
INSTANTIATE_TEST_SUITE_P(Nccl, NcclTransportConformance,
                         testing::ValuesIn(conformance_cases().begin(), conformance_cases().end()),
                         [](const testing::TestParamInfo<ConformanceCase>& parameter) {
                           return std::string(parameter.param.name);
                         });

TEST_P(NcclTransportConformance, HoldsOverMpi) {
  run_together(1, [](Transport& transport) {
    EXPECT_EQ(transport.name(), "nccl");
    EXPECT_TRUE(transport.is_stream_ordered());
    GetParam().run(transport);
  });
}

// Threads share a process, and NCCL wants a GPU for each of them.
TEST_P(NcclTransportConformance, HoldsOverThreads) {
  if (session->num_ranks() != 1) GTEST_SKIP() << "one process is enough";
  const auto num_ranks = static_cast<int>(visible_gpu_uuids().size());
  ThreadFabric fabric(num_ranks);
  std::vector<std::thread> ranks;
  for (int rank = 0; rank < num_ranks; ++rank) {
    ranks.emplace_back([&fabric, rank, run = GetParam().run] {
      const std::unique_ptr<Transport> control = fabric.connect(rank);
      try {
        run(*create_device_transport(*control, {.device = rank}));
      } catch (const std::exception& error) {
        ADD_FAILURE() << "rank " << rank << ": " << error.what();
        control->abort(error.what());
      }
    });
  }
  for (std::thread& rank : ranks) rank.join();
}

// Where this rank computes, as aurora-serve chooses it; and one launch order for two communicators.
void take_seat() {
  setenv("NCCL_LAUNCH_ORDER_IMPLICIT", "1", 0);
  const auto control = create_mpi_transport(*session);
  const GpuSeat seat = take_gpu_seat(*session, *control, std::chrono::minutes(2));
  device = seat.device;
  if (session->rank() == 0 && !seat.remark.empty()) std::printf("%s\n", seat.remark.c_str());
  backend = create_backend("cuda", {.device = device});
}

}  // namespace
}  // namespace aurora

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  if (aurora::visible_gpu_uuids().empty()) {
    std::puts("SKIP: no GPU is visible");
    return 77;
  }
  aurora::MpiSession session;
  aurora::session = &session;
  aurora::take_seat();
  aurora::test::print_failures_only_above_rank_0(session.rank());
  const int result = RUN_ALL_TESTS();
  aurora::backend.reset();
  return result;
}
