// Streams and events of the CPU backend. Work is held back by gates that the tests open, so nothing depends
// on time.
#include <atomic>
#include <future>
#include <thread>

#include "kernels/cpu/cpu_stream.h"
#include "tests/kernels/kernel_fixture.h"

namespace aurora::kernel_test {
namespace {

using cpu::CpuEvent;
using cpu::CpuStream;

Deadline past() { return std::chrono::steady_clock::now() - std::chrono::seconds(1); }

// Work that waits until it is let through.
class Gate {
 public:
  void open() { opened_.set_value(); }
  auto work() {
    return [future = future_] {
      if (future.wait_until(soon()) != std::future_status::ready)
        throw std::runtime_error("the gate stayed shut");
    };
  }

 private:
  std::promise<void> opened_;
  std::shared_future<void> future_ = opened_.get_future().share();
};

TEST(Stream, AnEventThatWasNeverRecordedIsComplete) {
  CpuEvent event;
  EXPECT_TRUE(event.is_complete());
  event.wait(past());
}

TEST(Stream, InlineWorkIsDoneWhenTheSubmissionReturns) {
  CpuStream stream(CpuStream::Kind::kInline);
  int value = 0;
  stream.submit([&] { value = 1; });
  EXPECT_EQ(value, 1);
  CpuEvent event;
  stream.record(event);
  EXPECT_TRUE(event.is_complete());
  stream.synchronize(past());
}

TEST(Stream, WorkerWorkRunsInTheOrderOfSubmission) {
  CpuStream stream(CpuStream::Kind::kWorker);
  std::vector<int> order;
  for (int i = 0; i < 1000; ++i) stream.submit([&order, i] { order.push_back(i); });
  stream.synchronize(soon());
  ASSERT_EQ(order.size(), 1000U);
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(order[static_cast<std::size_t>(i)], i);
}

TEST(Stream, AnEventCompletesWithTheWorkBeforeItAndNotBefore) {
  Gate gate;
  CpuStream stream(CpuStream::Kind::kWorker);
  CpuEvent before, after;
  stream.record(before);
  std::atomic<bool> is_done = false;
  stream.submit(gate.work());
  stream.submit([&] { is_done = true; });
  stream.record(after);
  EXPECT_TRUE(before.is_complete());
  EXPECT_FALSE(after.is_complete());
  expect_error(ErrorKind::kTimeout, "0 of 2 operations", [&] { after.wait(past()); });
  expect_error(ErrorKind::kTimeout, "deadline", [&] { stream.synchronize(past()); });
  gate.open();
  after.wait(soon());
  EXPECT_TRUE(is_done);
  EXPECT_TRUE(after.is_complete());
  stream.synchronize(past());
}

TEST(Stream, OneStreamStartsAfterTheEventOfAnother) {
  Gate gate;
  CpuStream first(CpuStream::Kind::kWorker);
  CpuStream second(CpuStream::Kind::kWorker);
  CpuEvent produced, consumed;
  std::atomic<int> value = 0;
  std::atomic<int> seen = -1;
  first.submit(gate.work());
  first.submit([&] { value = 42; });
  first.record(produced);
  second.wait(produced);
  second.submit([&] { seen = value.load(); });
  second.record(consumed);
  EXPECT_FALSE(consumed.is_complete());
  gate.open();
  consumed.wait(soon());
  EXPECT_EQ(seen, 42);
}

TEST(Stream, AWaitMeansTheRecordOfItsMomentNotALaterOne) {
  Gate later;
  CpuStream first(CpuStream::Kind::kWorker);
  CpuStream second(CpuStream::Kind::kWorker);
  CpuEvent event;
  first.record(event);
  second.wait(event);
  first.submit(later.work());
  first.record(event);
  second.synchronize(soon());
  EXPECT_FALSE(event.is_complete());
  later.open();
  event.wait(soon());
}

TEST(Stream, AnInlineStreamWaitsForAWorkersEventBeforeItsNextWorkOnly) {
  Gate gate;
  CpuStream worker(CpuStream::Kind::kWorker);
  CpuStream own(CpuStream::Kind::kInline);
  CpuEvent produced, joined;
  std::atomic<int> value = 0;
  worker.submit(gate.work());
  worker.submit([&] { value = 7; });
  worker.record(produced);
  own.wait(produced);  // does not block
  own.record(joined);  // nor does this, and it is as late as what it follows
  EXPECT_FALSE(joined.is_complete());
  expect_error(ErrorKind::kTimeout, "deadline", [&] { own.synchronize(past()); });
  gate.open();
  int seen = -1;
  own.submit([&] { seen = value; });
  EXPECT_EQ(seen, 7);
  EXPECT_TRUE(joined.is_complete());
}

TEST(Stream, AnErrorSurfacesInEventsAfterItAndInSynchronizeAndStopsTheStream) {
  CpuStream stream(CpuStream::Kind::kWorker);
  CpuEvent before, after;
  bool ran = false;
  stream.submit([] {});
  stream.record(before);
  stream.submit([] { throw Error(ErrorKind::kInvalidArgument, "a broken operation"); });
  stream.submit([&] { ran = true; });
  stream.record(after);
  before.wait(soon());
  EXPECT_TRUE(before.is_complete());
  for (int repeat = 0; repeat < 2; ++repeat) {
    expect_error(ErrorKind::kInvalidArgument, "a broken operation", [&] { after.wait(soon()); });
    expect_error(ErrorKind::kInvalidArgument, "a broken operation", [&] { after.is_complete(); });
    expect_error(ErrorKind::kInvalidArgument, "a broken operation", [&] { stream.synchronize(soon()); });
  }
  EXPECT_FALSE(ran);
}

TEST(Stream, AnErrorTravelsToTheStreamsThatWaitForIt) {
  CpuStream failing(CpuStream::Kind::kWorker);
  CpuStream waiting(CpuStream::Kind::kWorker);
  CpuStream own(CpuStream::Kind::kInline);
  CpuEvent event;
  failing.submit([] { throw Error(ErrorKind::kInternal, "broken there"); });
  failing.record(event);
  waiting.wait(event);
  own.wait(event);
  bool ran = false;
  waiting.submit([&] { ran = true; });
  expect_error(ErrorKind::kInternal, "broken there", [&] { waiting.synchronize(soon()); });
  expect_error(ErrorKind::kInternal, "broken there", [&] { own.submit([&] { ran = true; }); });
  EXPECT_FALSE(ran);
}

TEST(Stream, AnInlineStreamThrowsAtOnceAndGoesOn) {
  Device device;
  std::vector<float> table(8), output(4);
  std::vector<std::int32_t> ids{5};
  expect_error(ErrorKind::kInternal, "token_ids[0] is 5", [&] {
    device.ops().embed(device.stream(), {view(table, {2, 4}), view(ids, {1}), view(output, {1, 4})});
  });
  ids[0] = 1;
  device.run(&Ops::embed, EmbedArgs{view(table, {2, 4}), view(ids, {1}), view(output, {1, 4})});
}

TEST(Stream, AWorkerStreamReportsAnOperationsErrorLater) {
  Device device({.worker_streams = true});
  const auto event = device.backend().create_event();
  std::vector<float> table(8), output(4);
  std::vector<std::int32_t> ids{5};
  device.ops().embed(device.stream(), {view(table, {2, 4}), view(ids, {1}), view(output, {1, 4})});
  device.stream().record(*event);
  expect_error(ErrorKind::kInternal, "token_ids[0] is 5", [&] { event->wait(soon()); });
}

TEST(Stream, ClosingAStreamFinishesItsWorkAndEventsOutliveIt) {
  CpuEvent event;
  int count = 0;
  {
    CpuStream stream(CpuStream::Kind::kWorker);
    for (int i = 0; i < 100; ++i) stream.submit([&] { ++count; });
    stream.record(event);
  }
  EXPECT_EQ(count, 100);
  EXPECT_TRUE(event.is_complete());
}

TEST(Stream, EventsMayBeQueriedFromOtherThreads) {
  Gate gate;
  CpuStream stream(CpuStream::Kind::kWorker);
  CpuEvent event;
  int value = 0;
  stream.submit(gate.work());
  stream.submit([&] { value = 3; });
  stream.record(event);
  std::vector<std::thread> watchers;
  std::atomic<int> num_seen = 0;
  for (int i = 0; i < 3; ++i) {
    watchers.emplace_back([&, i] {
      if (i == 0) event.wait(soon());
      while (!event.is_complete()) std::this_thread::yield();
      if (value == 3) ++num_seen;
    });
  }
  gate.open();
  for (std::thread& watcher : watchers) watcher.join();
  EXPECT_EQ(num_seen, 3);
}

TEST(Stream, WorkerStreamsGiveTheResultsOfInlineOnes) {
  Random random(111);
  Device here;
  Device there({.worker_streams = true});
  std::vector<float> input = random.normals(9 * 20), weight = random.normals(20);
  std::vector<float> norms(input.size()), asynchronous_norms(input.size());
  here.run(&Ops::rms_norm,
           RmsNormArgs{view(input, {9, 20}), view(weight, {20}), 1e-5F, view(norms, {9, 20})});
  there.run(&Ops::rms_norm,
            RmsNormArgs{view(input, {9, 20}), view(weight, {20}), 1e-5F, view(asynchronous_norms, {9, 20})});
  EXPECT_EQ(norms, asynchronous_norms);
}

}  // namespace
}  // namespace aurora::kernel_test
