// The event simulation against hand cases, closed forms and bounds.
#include "scheduler/timeline.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "scheduler/layer_time.h"
#include "scheduler/placement.h"
#include "tests/scheduler/random_models.h"

namespace aurora {
namespace {

using test::random_model;
using test::test_cluster;

LayerWork work_of(const ModelTraffic& model, const ClusterSpec& cluster, const LayerPlacement& placement) {
  return layer_work(LayerDemand(model.layers[0], model, cluster.num_gpus()), placement, model, cluster);
}
LayerLoad load_of(const ModelTraffic& model, const ClusterSpec& cluster, const LayerPlacement& placement) {
  return layer_load(LayerDemand(model.layers[0], model, cluster.num_gpus()), placement, model, cluster);
}

/// Two GPUs that both compute `gate`, `experts`, `aggregate` and send each other as much.
LayerWork even_work(double gate, double experts, double aggregate, double dispatch, double combine) {
  return {{gate, gate},
          {experts, experts},
          {aggregate, aggregate},
          {0, dispatch, dispatch, 0},
          {0, combine, combine, 0}};
}

TEST(Timeline, OfOneModelIsTheSumOfItsPhases) {
  const std::vector<std::vector<LayerWork>> work{{even_work(1, 10, 2, 200, 100), even_work(3, 4, 5, 60, 70)}};
  const ClusterSpec ports = uniform_cluster(2, 0.08);  // 10 bytes per microsecond
  const Timeline timeline = simulate_layers(work, ports, Execution::kOverlapped);
  EXPECT_NEAR(timeline.makespan_us, (1 + 20 + 10 + 10 + 2) + (3 + 6 + 4 + 7 + 5), 1e-9);
  EXPECT_NEAR(timeline.utilisation, 25.0 / timeline.makespan_us, 1e-9);
  EXPECT_EQ(timeline.events.size(), 2u * 2 * 5);
}

TEST(Timeline, HidesOneModelsExchangeUnderTheOthersCompute) {
  // a: G 1, N 20, F 10, C 10, A 2; b: G 3, N 5, F 5, C 4, A 4. Gates of both are ready at 0, a's first.
  const std::vector<std::vector<LayerWork>> work{{even_work(1, 10, 2, 200, 100)},
                                                 {even_work(3, 5, 4, 50, 40)}};
  const ClusterSpec ports = uniform_cluster(2, 0.08);  // 10 bytes per microsecond
  const Timeline together = simulate_layers(work, ports, Execution::kOverlapped);
  // G^a 0-1, N^a 1-21, G^b 1-4, N^b 21-26 (the wire is a's until 21), F^a 21-31, F^b 31-36, C^a 31-41, C^b
  // 41-45, A^a 41-43, A^b 45-49.
  EXPECT_NEAR(together.makespan_us, 49, 1e-9);
  const Timeline serial = simulate_layers(work, ports, Execution::kSerial);
  EXPECT_NEAR(serial.makespan_us, 43 + 21, 1e-9);
}

TEST(Timeline, ShowsThatThePapersTableIsALowerBound) {
  // a: 2 -> 3 and 3 -> 2 of 2 each; b: 1 -> 2 and 1 -> 3 of 2 each (GPUs 1 to 3): the aggregate is 4, but
  // when a has the wire first, b ends at 6 at the earliest, because GPU 1 sends 4 and cannot reach 2 and 3
  // before 2.
  const auto exchange = [](std::vector<double> bytes) {
    const std::vector<double> none(3);
    return LayerWork{none, none, none, std::move(bytes), std::vector<double>(9)};
  };
  const std::vector<std::vector<LayerWork>> work{{exchange({0, 0, 0, 0, 0, 2, 0, 2, 0})},
                                                 {exchange({0, 2, 2, 0, 0, 0, 0, 0, 0})}};
  const ClusterSpec ports = uniform_cluster(3, 0.008);  // 1 byte per microsecond
  EXPECT_NEAR(simulate_layers(work, ports, Execution::kOverlapped).makespan_us, 6, 1e-9);
}

TEST(Timeline, OfOneModelOnEqualBatchesIsNeverAboveTheClosedFormByMuchNorBelowItsPhases) {
  std::mt19937_64 random(51);
  for (int instance = 0; instance < 40; ++instance) {
    const int n = 2 + instance % 5;
    const ModelTraffic model = random_model({.num_experts = 2 * n, .top_k = 2, .num_sources = n}, random);
    const ClusterSpec cluster = test_cluster(n, instance % 2 == 1);
    const LayerPlacement placement = plan_placement(PlacementPolicy::kAuto, model, cluster, {}).layers[0];
    const LayerLoad load = load_of(model, cluster, placement);
    const std::vector<std::vector<LayerWork>> work{{work_of(model, cluster, placement)}};
    const double simulated = simulate_layers(work, cluster, Execution::kOverlapped).makespan_us;
    // Phases cannot overlap on the GPU that has them all; and all maxima one after the other are an upper
    // bound.
    const auto largest = [](const std::vector<double>& values) {
      return *std::max_element(values.begin(), values.end());
    };
    const double upper =
        largest(load.gate_us) + std::max(largest(load.dispatch_send_us), largest(load.dispatch_receive_us)) +
        largest(load.expert_us) + std::max(largest(load.combine_send_us), largest(load.combine_receive_us)) +
        largest(load.aggregate_us);
    EXPECT_LE(simulated, upper * (1 + 1e-9)) << "instance " << instance;
    for (int gpu = 0; gpu < n; ++gpu) {
      EXPECT_GE(simulated * (1 + 1e-9), load.gate_us[gpu] + load.expert_us[gpu] + load.aggregate_us[gpu] +
                                            load.dispatch_send_us[gpu]);
    }
  }
}

TEST(Timeline, OfTwoModelsKeepsGpusAndPortsToOneThingAtATime) {
  std::mt19937_64 random(52);
  for (int instance = 0; instance < 20; ++instance) {
    const int n = 4;
    const ClusterSpec cluster = test_cluster(n, true);
    std::vector<std::vector<LayerWork>> work;
    double longest = 0;
    double total = 0;
    for (const char* name : {"a", "b"}) {
      const ModelTraffic model = random_model({.name = name, .num_experts = 8, .num_sources = n}, random);
      const LayerPlacement placement =
          plan_placement(PlacementPolicy::kContiguous, model, cluster, {}).layers[0];
      work.push_back(std::vector<LayerWork>(3, work_of(model, cluster, placement)));
      const double alone = simulate_layers({&work.back(), 1}, cluster, Execution::kOverlapped).makespan_us;
      longest = std::max(longest, alone);
      total += alone;
    }
    const Timeline timeline = simulate_layers(work, cluster, Execution::kOverlapped);
    EXPECT_GE(timeline.makespan_us, longest * (1 - 1e-9));
    const Timeline serial = simulate_layers(work, cluster, Execution::kSerial);
    EXPECT_LE(timeline.makespan_us, serial.makespan_us * (1 + 1e-9));
    EXPECT_GE(serial.makespan_us, total * (1 - 1e-9));
    std::map<int, std::vector<std::pair<double, double>>> computing;
    for (const TimelineEvent& event : timeline.events) {
      EXPECT_LE(event.start_us, event.end_us + 1e-9);
      if (event.phase == TimelinePhase::kDispatch || event.phase == TimelinePhase::kCombine) continue;
      computing[event.gpu].emplace_back(event.start_us, event.end_us);
    }
    for (auto& [gpu, spans] : computing) {
      std::sort(spans.begin(), spans.end());
      for (std::size_t i = 1; i < spans.size(); ++i) EXPECT_GE(spans[i].first, spans[i - 1].second - 1e-6);
    }
  }
}

TEST(Timeline, OfTwoBatchesOfOneModelOverlapsThem) {
  const std::vector<LayerWork> work(4, even_work(2, 20, 2, 200, 200));
  const ClusterSpec ports = uniform_cluster(2, 0.08);  // 10 bytes per microsecond
  const double whole = simulate_layers({&work, 1}, ports, Execution::kOverlapped).makespan_us;
  const std::vector<std::vector<double>> nothing_fixed(4, {0, 0});
  const auto halves = split_into_two_batches(work, nothing_fixed);
  EXPECT_NEAR(simulate_layers(halves, ports, Execution::kSerial).makespan_us, whole, 1e-6);
  EXPECT_LT(simulate_layers(halves, ports, Execution::kOverlapped).makespan_us, 0.75 * whole);
  const std::vector<std::vector<double>> all_fixed(4, {20, 20});
  EXPECT_NEAR(split_into_two_batches(work, all_fixed)[1][0].expert_us[0], 20, 1e-12);
}

TEST(Timeline, OfTwoNodesSendsInsideANodeOverLinks) {
  // Four GPUs in two nodes; GPU 0 owes its neighbour 1 and the far 2 and 3 a hundred each.
  const std::vector<double> none(4);
  std::vector<double> bytes(16);
  bytes[1] = bytes[2] = bytes[3] = 100;
  const std::vector<std::vector<LayerWork>> work{{{none, none, none, bytes, std::vector<double>(16)}}};
  ClusterSpec cluster = uniform_cluster(4, 0.08);
  cluster.gpus[2].node = cluster.gpus[3].node = 1;
  EXPECT_NEAR(simulate_layers(work, cluster, Execution::kOverlapped).makespan_us, 30, 1e-9);
  cluster.link_gbps = 0.8;
  EXPECT_NEAR(simulate_layers(work, cluster, Execution::kOverlapped).makespan_us, 20, 1e-9);
}

TEST(Links, InsideANodeDrawExpertsToTheTokensThatUseThem) {
  // Sources 0 and 1 use experts 0 and 1, sources 2 and 3 use 2 and 3; contiguous numbering of nodes hides
  // that.
  ModelTraffic model;
  model.model = "a";
  model.num_experts = 4;
  model.top_k = 1;
  model.dispatch_bytes_per_token = model.combine_bytes_per_token = 1000;
  model.layers = {{{{5, 5, 0, 0}, {0, 0, 5, 5}, {5, 5, 0, 0}, {0, 0, 5, 5}}, {}}};
  ClusterSpec cluster = uniform_cluster(4, 10);
  cluster.gpus[1].node = cluster.gpus[3].node = 1;
  cluster.link_gbps = 1000;
  const LayerPlacement placement = plan_placement(PlacementPolicy::kAuto, model, cluster, {}).layers[0];
  for (const int expert : {0, 1}) EXPECT_EQ(placement.experts[expert][0].gpu.value % 2, 0);
  for (const int expert : {2, 3}) EXPECT_EQ(placement.experts[expert][0].gpu.value % 2, 1);
}

TEST(Timeline, WritesATraceOfAllEvents) {
  const std::vector<std::vector<LayerWork>> work{{even_work(1, 10, 2, 200, 100)}};
  const ClusterSpec ports = uniform_cluster(2, 0.08);  // 10 bytes per microsecond
  const std::vector<std::string> names{"a \"quoted\" name"};
  const std::string trace = timeline_trace_json(simulate_layers(work, ports, Execution::kOverlapped), names);
  EXPECT_NE(trace.find("\"name\": \"dispatch\", \"cat\": \"exchange\", \"pid\": 1, \"tid\": 1, \"ts\": "
                       "1.000, \"dur\": 20.000"),
            std::string::npos)
      << trace;
  EXPECT_NE(trace.find("a \\\"quoted\\\" name"), std::string::npos);
}

}  // namespace
}  // namespace aurora
