// Every family has the property that its name promises, and is scaled to the bytes asked for.
#include "benchmarks/traffic/named_traffic.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "kernels/error.h"

namespace aurora::bench {
namespace {

constexpr int kNumGpus = 8;

TrafficMatrix make(const std::string& name, std::uint64_t seed = 1, int num_gpus = kNumGpus) {
  return named_traffic(
      name, {.num_gpus = num_gpus, .seed = seed, .routing_folder = AURORA_SOURCE_DIR "/benchmarks/routing"});
}

TEST(NamedTraffic, EveryNameGivesTrafficThatScalesToTheMostLoadedPort) {
  constexpr Bytes kBytes = 1 << 20;
  for (const std::string& name : traffic_names()) {
    const TrafficMatrix traffic = scaled_traffic(make(name), kBytes);
    Bytes most = 0;
    for (int gpu = 0; gpu < kNumGpus; ++gpu) {
      most = std::max({most, traffic.row_sum(gpu), traffic.column_sum(gpu)});
      for (const Bytes bytes : traffic.row(gpu)) EXPECT_EQ(bytes % 8, 0) << name;
    }
    EXPECT_LE(most, kBytes) << name;
    EXPECT_GE(most, kBytes - 8 * kNumGpus) << name;
  }
}

TEST(NamedTraffic, EveryNameGivesTrafficBetweenFewGpusToo) {
  constexpr Bytes kBytes = 1 << 20;
  for (const std::string& name : traffic_names()) {
    const std::uint64_t num_seeds = name.find("routing") == std::string::npos ? 20 : 1;  // it has no seed
    for (const int num_gpus : {2, 3, 4, 8}) {
      for (std::uint64_t seed = 1; seed <= num_seeds; ++seed) {
        SCOPED_TRACE(name + ", " + std::to_string(num_gpus) + " GPUs, seed " + std::to_string(seed));
        const TrafficMatrix traffic = scaled_traffic(make(name, seed, num_gpus), kBytes);
        ASSERT_EQ(traffic.num_gpus(), num_gpus);
        Bytes between = traffic.total();
        for (int gpu = 0; gpu < num_gpus; ++gpu) between -= traffic.at(gpu, gpu);
        EXPECT_EQ(between, traffic.total()) << "the diagonal stays empty";
        EXPECT_GE(between, kBytes - 8 * num_gpus);
      }
    }
  }
}

TEST(NamedTraffic, AHotGpuHasHalfOfEverything) {
  for (std::uint64_t seed = 1; seed <= 5; ++seed) {
    const TrafficMatrix received = make("hot-receiver", seed);
    const TrafficMatrix sent = make("hot-sender", seed);
    Bytes most_received = 0, most_sent = 0;
    for (int gpu = 0; gpu < kNumGpus; ++gpu) {
      most_received = std::max(most_received, received.column_sum(gpu));
      most_sent = std::max(most_sent, sent.row_sum(gpu));
    }
    EXPECT_NEAR(static_cast<double>(most_received) / static_cast<double>(received.total()), 0.5, 1e-6);
    EXPECT_NEAR(static_cast<double>(most_sent) / static_cast<double>(sent.total()), 0.5, 1e-6);
  }
}

TEST(NamedTraffic, BalancedFamiliesFillAllPortsAlike) {
  for (const char* name : {"balanced-mild", "balanced-uneven"}) {
    const TrafficMatrix traffic = make(name);
    const auto mean = static_cast<double>(traffic.total()) / kNumGpus;
    for (int gpu = 0; gpu < kNumGpus; ++gpu) {
      EXPECT_NEAR(static_cast<double>(traffic.row_sum(gpu)) / mean, 1, 1e-3) << name;
      EXPECT_NEAR(static_cast<double>(traffic.column_sum(gpu)) / mean, 1, 1e-3) << name;
    }
  }
}

// The recorded tokens are dealt out in equal blocks, so rows of one workload come from the record alone.
TEST(NamedTraffic, MixedRoutingTakesItsRowsFromTwoWorkloads) {
  const TrafficMatrix law = make("routing-4");
  const TrafficMatrix mixed = make("mixed-routing-4");
  for (int source = 0; source < kNumGpus; ++source) {
    EXPECT_EQ(std::ranges::equal(law.row(source), mixed.row(source)), source % 2 == 0) << source;
  }
}

TEST(NamedTraffic, UnknownNamesAndEmptyMatricesAreRefused) {
  for (const char* name : {"", "unifrom", "routing-26", "routing--1", "routing-1x"}) {
    EXPECT_THROW(make(name), Error) << name;
  }
  EXPECT_THROW(scaled_traffic(TrafficMatrix(3), 100), Error);
}

}  // namespace
}  // namespace aurora::bench
