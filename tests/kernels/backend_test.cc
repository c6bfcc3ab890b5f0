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

TEST(Backend, TheDevicesOfABackendAreCountedOrTheReasonGiven) {
  EXPECT_EQ(visible_devices("cpu").num_devices, 1);
  for (const std::string& name : available_backends()) {
    const DeviceCount visible = visible_devices(name);
    EXPECT_EQ(visible.num_devices == 0, !visible.why_none.empty()) << name;
    // A number beyond the last is refused, also where there is no device at all.
    if (name == "cpu") continue;
    expect_error(ErrorKind::kDevice, visible.num_devices == 0 ? "no GPU can be used" : "device 1000",
                 [&] { create_backend(name, {.device = 1000}); });
  }
  expect_error(ErrorKind::kUnsupported, "'tpu'", [] { visible_devices("tpu"); });
}

class BackendMemory : public OnEveryBackend {};
INSTANTIATE_TEST_SUITE_P(Backends, BackendMemory, testing::ValuesIn(every_backend()), variant_name);

TEST_P(BackendMemory, BuffersAreAlignedAndHoldWhatIsCopiedToThem) {
  for (const std::size_t size : {1, 3, 255, 256, 257, 100000}) {
    const std::vector<std::byte> source(size, std::byte{0x5a});
    for (const MemorySpace space : {MemorySpace::kDevice, MemorySpace::kHost}) {
      const Buffer buffer = device().backend().allocate(size, space);
      EXPECT_EQ(buffer.size_bytes(), size);
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(buffer.data()) % 256, 0U);
      std::vector<std::byte> back(size);
      device().backend().copy(device().stream(), buffer.data(), source.data(), size);
      device().backend().copy(device().stream(), back.data(), buffer.data(), size);
      device().finish();
      EXPECT_EQ(back, source);
      if (space == MemorySpace::kHost) std::memset(buffer.data(), 0, size);
    }
  }
}

TEST_P(BackendMemory, CopiesBetweenDeviceAndHostMemoryAreExactAtAnyAddress) {
  constexpr std::size_t kRoom = std::size_t{200} << 10;
  Backend& backend = device().backend();
  Random random(3);
  const Buffer from = backend.allocate(kRoom, MemorySpace::kHost);
  const Buffer through = backend.allocate(kRoom, MemorySpace::kDevice);
  const Buffer to = backend.allocate(kRoom, MemorySpace::kHost);
  for (std::size_t i = 0; i < kRoom; ++i) from.data()[i] = static_cast<std::byte>(random.below(256));
  for (const std::size_t size : {1, 4, 255, 256, 4096, 65535, 65536, 65537, 100000}) {
    for (const std::size_t offset : {0, 1, 4}) {
      std::memset(to.data(), 0, kRoom);
      backend.copy(device().stream(), through.data() + offset, from.data() + 4, size);
      backend.copy(device().stream(), to.data() + offset, through.data() + offset, size);
      device().finish();
      EXPECT_EQ(std::memcmp(to.data() + offset, from.data() + 4, size), 0) << size << " at " << offset;
      EXPECT_EQ(to.data()[offset + size], std::byte{}) << size << " at " << offset << ": one byte too many";
    }
  }
}

TEST_P(BackendMemory, AnEmptyBufferHasNoMemory) {
  const Buffer buffer = device().backend().allocate(0, MemorySpace::kDevice);
  EXPECT_EQ(buffer.data(), nullptr);
  EXPECT_EQ(buffer.size_bytes(), 0U);
}

TEST_P(BackendMemory, MoreMemoryThanThereIsNamesTheBytesAndLeavesTheBackendUsable) {
  const std::size_t size = std::size_t{1} << 60;
  expect_error(ErrorKind::kOutOfMemory, std::to_string(size),
               [&] { device().backend().allocate(size, MemorySpace::kDevice); });
  std::vector<float> values{1, 2};
  device().run(&Ops::add, AddArgs{view(values, {2}), view(values, {2})});
  EXPECT_EQ(values, (std::vector<float>{2, 4}));
}

TEST_P(BackendMemory, ABadIndexIsReportedOnceAndTheNextOperationRuns) {
  std::vector<float> table{1, 2, 3, 4}, output(2);
  for (int repeat = 0; repeat < 3; ++repeat) {
    std::vector<std::int32_t> ids{2};
    expect_error(ErrorKind::kInternal, "token_ids[0] is 2", [&] {
      device().run(&Ops::embed, EmbedArgs{view(table, {2, 2}), view(ids, {1}), view(output, {1, 2})});
    });
    ids[0] = 1;
    device().run(&Ops::embed, EmbedArgs{view(table, {2, 2}), view(ids, {1}), view(output, {1, 2})});
    EXPECT_EQ(output, (std::vector<float>{3, 4}));
  }
}

TEST_P(BackendMemory, OneStreamStartsAfterTheEventOfAnother) {
  constexpr std::size_t kCount = 1 << 20;
  Backend& backend = device().backend();
  const std::unique_ptr<Stream> second = backend.create_stream();
  const std::unique_ptr<Event> copied = backend.create_event(), done = backend.create_event();
  EXPECT_TRUE(copied->is_complete());  // never recorded
  const Buffer place = backend.allocate(kCount * sizeof(float), MemorySpace::kDevice);
  const Tensor values(place.data(), DType::kFloat32, {kCount});
  const std::vector<float> ones(kCount, 1.0F);
  std::vector<float> result(kCount);
  backend.copy(device().stream(), place.data(), ones.data(), kCount * sizeof(float));
  device().stream().record(*copied);
  second->wait(*copied);
  for (int doubling = 0; doubling < 3; ++doubling) backend.ops().add(*second, {values, values});
  backend.copy(*second, result.data(), place.data(), kCount * sizeof(float));
  second->record(*done);
  done->wait(soon());
  EXPECT_EQ(result, std::vector<float>(kCount, 8.0F));
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

TEST_P(BackendMemory, AStreamOfAnotherBackendIsABugOfOurs) {
  class ForeignStream final : public Stream {
    void record(Event&) override {}
    void wait(Event&) override {}
    void synchronize(Deadline) override {}
  };
  ForeignStream foreign;
  std::vector<float> values(4);
  expect_error(ErrorKind::kInternal, "stream of another backend", [&] {
    device().ops().add(foreign, {view(values, {4}), view(values, {4})});
  });
}

}  // namespace
}  // namespace aurora::kernel_test
