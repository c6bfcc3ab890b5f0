// Timed events: device time between two points of a stream.
#include "tests/kernels/kernel_fixture.h"

namespace aurora::kernel_test {
namespace {

class TimedEvent : public OnEveryBackend {};
INSTANTIATE_TEST_SUITE_P(Backends, TimedEvent, testing::ValuesIn(every_way()), variant_name);

TEST_P(TimedEvent, TimesAddUpAlongAStream) {
  Backend& backend = device().backend();
  const Buffer from = backend.allocate(1 << 20, MemorySpace::kHost);
  const Buffer to = backend.allocate(1 << 20, MemorySpace::kDevice);
  std::vector<std::unique_ptr<Event>> events;
  for (int i = 0; i < 3; ++i) events.push_back(backend.create_timed_event());
  for (const auto& event : events) {
    device().stream().record(*event);
    backend.copy(device().stream(), to.data(), from.data(), from.size_bytes());
  }
  device().finish();
  const double first = backend.seconds_between(*events[0], *events[1]);
  const double second = backend.seconds_between(*events[1], *events[2]);
  EXPECT_GE(first, 0);
  EXPECT_GE(second, 0);
  // Each of the three is rounded once, on a GPU to float32 milliseconds of half a microsecond's resolution.
  const double resolution = device().is_cpu() ? 1e-12 : 2e-6;
  EXPECT_NEAR(backend.seconds_between(*events[0], *events[2]), first + second, resolution);
}

TEST_P(TimedEvent, RecordedAgainForgetsTheEarlierTime) {
  Backend& backend = device().backend();
  const auto start = backend.create_timed_event();
  const auto end = backend.create_timed_event();
  device().stream().record(*end);
  device().stream().record(*start);
  device().stream().record(*end);
  device().finish();
  EXPECT_GE(backend.seconds_between(*start, *end), 0);
}

TEST_P(TimedEvent, AnEventWithoutATimeIsRefused) {
  Backend& backend = device().backend();
  const auto timed = backend.create_timed_event();
  const auto plain = backend.create_event();
  device().stream().record(*timed);
  device().stream().record(*plain);
  device().finish();
  EXPECT_THROW(backend.seconds_between(*timed, *plain), Error);
  const auto unrecorded = backend.create_timed_event();
  EXPECT_THROW(backend.seconds_between(*timed, *unrecorded), Error);
}

}  // namespace
}  // namespace aurora::kernel_test
