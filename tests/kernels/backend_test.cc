#include <cstring>

#include "tests/kernels/kernel_fixture.h"

// The sanitizers' allocators abort on huge sizes unless told to fail as malloc does.
extern "C" const char* __asan_default_options() { return "allocator_may_return_null=1"; }
extern "C" const char* __tsan_default_options() { return "allocator_may_return_null=1"; }

namespace aurora::kernel_test {
namespace {

TEST(Backend, TheRegistryOffersWhatItCanMake) {
  const std::vector<std::string> names = available_backends();
  ASSERT_FALSE(names.empty());
  EXPECT_EQ(names.front(), "cpu");
  EXPECT_EQ(create_backend("cpu", {})->name(), "cpu");
}

TEST(Backend, AnUnknownNameIsRefusedListingWhatIsThere) {
  expect_error(ErrorKind::kUnsupported, "available: cpu", [] { create_backend("tpu", {}); });
  expect_error(ErrorKind::kUnsupported, "'tpu'", [] { create_backend("tpu", {}); });
}

TEST(Backend, FewerThanOneThreadIsRefused) {
  expect_error(ErrorKind::kInvalidArgument, "num_threads is 0",
               [] { create_backend("cpu", {.num_threads = 0}); });
}

TEST(Backend, BuffersAreAlignedAndWritable) {
  Device device;
  for (const std::size_t size : {1, 3, 255, 256, 257, 100000}) {
    for (const MemorySpace space : {MemorySpace::kDevice, MemorySpace::kHost}) {
      const Buffer buffer = device.backend().allocate(size, space);
      EXPECT_EQ(buffer.size_bytes(), size);
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(buffer.data()) % 256, 0U);
      std::memset(buffer.data(), 0x5a, size);
    }
  }
}

TEST(Backend, AnEmptyBufferHasNoMemory) {
  Device device;
  const Buffer buffer = device.backend().allocate(0, MemorySpace::kDevice);
  EXPECT_EQ(buffer.data(), nullptr);
  EXPECT_EQ(buffer.size_bytes(), 0U);
}

TEST(Backend, MoreMemoryThanThereIsNamesTheBytes) {
  Device device;
  const std::size_t size = std::size_t{1} << 60;
  expect_error(ErrorKind::kOutOfMemory, std::to_string(size),
               [&] { device.backend().allocate(size, MemorySpace::kDevice); });
}

TEST(Backend, AMovedBufferReleasesItsMemoryOnce) {
  static int num_released = 0;
  num_released = 0;
  std::byte byte{};
  {
    Buffer first(
        &byte, 1, [](void*, std::byte*, std::size_t) noexcept { ++num_released; }, nullptr);
    Buffer second(std::move(first));
    Buffer third;
    third = std::move(second);
    EXPECT_EQ(num_released, 0);
  }
  EXPECT_EQ(num_released, 1);
}

TEST(Backend, CopiesMoveBytesOnBothKindsOfStream) {
  Random random(11);
  for (const bool worker : {false, true}) {
    Device device({.worker_streams = worker});
    const std::vector<float> source = random.normals(1000);
    std::vector<float> destination(1000);
    device.backend().copy(device.stream(), destination.data(), source.data(), 4000);
    device.backend().copy(device.stream(), nullptr, nullptr, 0);
    device.finish();
    EXPECT_EQ(destination, source);
  }
}

TEST(Backend, AStreamOfAnotherBackendIsABugOfOurs) {
  class ForeignStream final : public Stream {
    void record(Event&) override {}
    void wait(Event&) override {}
    void synchronize(Deadline) override {}
  };
  Device device;
  ForeignStream foreign;
  std::vector<float> values(4);
  expect_error(ErrorKind::kInternal, "stream of another backend", [&] {
    device.ops().add(foreign, {view(values, {4}), view(values, {4})});
  });
}

}  // namespace
}  // namespace aurora::kernel_test
