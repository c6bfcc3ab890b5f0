// Orders for two tiers: every byte is followed hop by hop; times are held against lower bounds, closed forms
// and a second simulation of max-min fair sharing that shares no code with the planner's.
#include "scheduler/two_tier_order.h"

#include <gtest/gtest.h>

#include <array>
#include <map>
#include <stdexcept>

#include "scheduler/fair_sharing.h"
#include "tests/scheduler/traffic_families.h"

namespace aurora {
namespace {

using test::Family;

ClusterSpec even_cluster(int num_nodes, int gpus_per_node, double link_over_port) {
  ClusterSpec cluster = uniform_cluster(num_nodes * gpus_per_node, 100);
  cluster.link_gbps = 100 * link_over_port;
  for (int gpu = 0; gpu < cluster.num_gpus(); ++gpu) cluster.gpus[gpu].node = gpu / gpus_per_node;
  return cluster;
}

/// Up to 12 GPUs on nodes of any sizes, numbered in any order; ports alike or not; links slow, fast or none.
ClusterSpec random_cluster(std::mt19937_64& random) {
  static constexpr std::array kPorts{100.0, 80.0, 50.0, 40.0};
  static constexpr std::array kLinks{0.0, 30.0, 200.0, 900.0};
  ClusterSpec cluster = uniform_cluster(1 + static_cast<int>(random() % 12), 100);
  const auto num_nodes = 1 + random() % 4;
  const bool is_mixed = random() % 2 == 0;
  for (ClusterGpu& gpu : cluster.gpus) {
    gpu.node = 10 * static_cast<int>(random() % num_nodes);
    if (is_mixed) gpu.port_gbps = kPorts[random() % kPorts.size()];
  }
  cluster.link_gbps = kLinks[random() % kLinks.size()];
  return cluster;
}

Family random_family(std::mt19937_64& random) {
  return test::all_families()[random() % test::all_families().size()];
}

/// Where the bytes of one message are: disjoint ranges [begin, end).
struct Whereabouts {
  Bytes end;
  int gpu;
  int num_hops;
};
using MessageMap = std::map<Bytes, Whereabouts>;  // by begin

void split_at(MessageMap& message, Bytes position) {
  auto after = message.upper_bound(position);
  ASSERT_NE(after, message.begin());
  auto range = std::prev(after);
  if (range->first == position || range->second.end <= position) return;
  Whereabouts rest = range->second;
  range->second.end = position;
  message.emplace(position, rest);
}

/// Checks what a hop says of itself and cuts the messages where its ranges begin and end.
void open_hop(const Hop& hop, const TrafficMatrix& traffic, const TwoTierNetwork& network,
              std::map<std::pair<int, int>, MessageMap>& messages) {
  ASSERT_NE(hop.from, hop.to);
  Bytes bytes = 0;
  for (const MessageRange& range : hop.ranges) {
    ASSERT_GT(range.bytes, 0);
    ASSERT_GE(range.offset, 0);
    ASSERT_LE(range.offset + range.bytes, traffic.at(range.source.value, range.destination.value));
    // Bytes cross to the node of their destination or stay in the node where they are.
    ASSERT_TRUE(network.is_local(hop.from, hop.to) ||
                (network.is_local(hop.from, range.source) && network.is_local(hop.to, range.destination)));
    MessageMap& message = messages.at({range.source.value, range.destination.value});
    split_at(message, range.offset);
    split_at(message, range.offset + range.bytes);
    bytes += range.bytes;
  }
  ASSERT_EQ(bytes, hop.bytes);
}

/// All hops of a step at once: each may only move bytes that are at its start when the step begins.
void follow_step(const std::vector<Hop>& hops, std::map<std::pair<int, int>, MessageMap>& messages) {
  std::map<Whereabouts*, int> new_gpu;
  for (const Hop& hop : hops) {
    for (const MessageRange& range : hop.ranges) {
      MessageMap& message = messages.at({range.source.value, range.destination.value});
      for (auto part = message.find(range.offset);
           part != message.end() && part->first < range.offset + range.bytes; ++part) {
        ASSERT_EQ(part->second.gpu, hop.from.value);
        ASSERT_TRUE(new_gpu.emplace(&part->second, hop.to.value).second) << "moved twice in a step";
      }
    }
  }
  for (const auto& [part, gpu] : new_gpu) {
    part->gpu = gpu;
    ++part->num_hops;
  }
}

void expect_delivery(const TwoTierOrder& order, const TrafficMatrix& traffic, const TwoTierNetwork& network) {
  const int n = traffic.num_gpus();
  std::map<std::pair<int, int>, MessageMap> messages;
  for (int i = 0; i < n; ++i) {
    for (int j = 0; j < n; ++j) {
      if (traffic.at(i, j) > 0) messages[{i, j}] = {{0, {traffic.at(i, j), i, 0}}};
    }
  }
  for (int step = 0; step < order.num_steps(); ++step) {
    SCOPED_TRACE("step " + std::to_string(step));
    const std::vector<Hop> hops = step_hops(order, step, network);
    for (const Hop& hop : hops) open_hop(hop, traffic, network, messages);
    if (testing::Test::HasFatalFailure()) return;
    follow_step(hops, messages);
    if (testing::Test::HasFatalFailure()) return;
  }
  for (const auto& [ends, message] : messages) {
    const bool is_local = network.is_local({ends.first}, {ends.second});
    for (const auto& [begin, part] : message) {
      ASSERT_EQ(part.gpu, ends.second) << "byte " << begin << " of " << ends.first << " -> " << ends.second;
      ASSERT_LE(part.num_hops, is_local ? 1 : 3);
    }
  }
}

TEST(TwoTierOrder, BringsEveryByteFromItsSourceToItsDestinationOnce) {
  const std::uint64_t seed = 41;
  std::mt19937_64 random(seed);
  for (int instance = 0; instance < 400; ++instance) {
    SCOPED_TRACE("seed " + std::to_string(seed) + ", instance " + std::to_string(instance));
    const ClusterSpec cluster = random_cluster(random);
    const TwoTierNetwork network = two_tier_network(cluster);
    // From a few bytes, where rounding is everything, to a terabyte.
    const double scale = std::pow(10.0, static_cast<double>(random() % 12));
    const TrafficMatrix traffic =
        test::random_traffic(random_family(random), cluster.num_gpus(), random, scale);
    expect_delivery(relayed_order(traffic, network), traffic, network);
    if (HasFatalFailure()) return;
    TwoTierOptions options;
    options.round_cost_us = static_cast<double>(random() % 3) * 10;
    options.max_steps = static_cast<int>(random() % 2) * 20;
    const TwoTierOrder best = best_two_tier_order(traffic, network, options);
    expect_delivery(best, traffic, network);
    if (HasFatalFailure()) return;
    if (options.max_steps > 0) {
      ASSERT_LE(num_busy_steps(best), options.max_steps);
    }
    ASSERT_EQ(best.port_rounds, best_two_tier_order(traffic, network, options).port_rounds)
        << "not deterministic";
  }
}

TEST(TwoTierOrder, BeatsNoBound) {
  std::mt19937_64 random(42);
  for (int instance = 0; instance < 200; ++instance) {
    SCOPED_TRACE("seed 42, instance " + std::to_string(instance));
    const ClusterSpec cluster = random_cluster(random);
    const TwoTierNetwork network = two_tier_network(cluster);
    const TrafficMatrix traffic = test::random_traffic(random_family(random), cluster.num_gpus(), random);
    const TwoTierBounds bounds = two_tier_bounds(traffic, network);
    ASSERT_GE(bounds.direct_us() * (1 + 1e-12), bounds.relayed_us());
    ASSERT_GE(predicted_two_tier_us(relayed_order(traffic, network), network, 0),
              bounds.relayed_us() * (1 - 1e-9));
    for (const OrderPolicy policy : {OrderPolicy::kGroup, OrderPolicy::kLongestFirst}) {
      OrderOptions options;
      options.ports = network.ports;
      const TransmissionOrder order = plan_order(policy, traffic, options);
      ASSERT_GE(predicted_two_tier_us(order, network, 0), bounds.direct_us() * (1 - 1e-9));
    }
  }
}

TEST(TwoTierOrder, LosesToNoOtherOrderByTheModel) {
  std::mt19937_64 random(43);
  for (int instance = 0; instance < 100; ++instance) {
    SCOPED_TRACE("seed 43, instance " + std::to_string(instance));
    const ClusterSpec cluster = random_cluster(random);
    const TwoTierNetwork network = two_tier_network(cluster);
    const TrafficMatrix traffic = test::random_traffic(random_family(random), cluster.num_gpus(), random);
    const double cost_us = static_cast<double>(random() % 4) * 5;
    const double best_us = predicted_two_tier_us(
        best_two_tier_order(traffic, network, {.round_cost_us = cost_us}), network, cost_us);
    for (const OrderPolicy policy :
         {OrderPolicy::kGroup, OrderPolicy::kExact, OrderPolicy::kRotation, OrderPolicy::kLongestFirst,
          OrderPolicy::kShortestFirst, OrderPolicy::kRandom, OrderPolicy::kAlgorithm1}) {
      OrderOptions options;
      options.ports = network.ports;
      const TransmissionOrder order = plan_order(policy, traffic, options);
      const double direct_us = predicted_two_tier_us(order, network, cost_us);
      ASSERT_LE(best_us, direct_us * (1 + 1e-9)) << order_policy_name(policy);
      // An order without relays is the same thing in steps.
      ASSERT_NEAR(predicted_two_tier_us(without_relays(order, network), network, cost_us), direct_us,
                  1e-9 * direct_us);
    }
  }
}

/// With links so fast that they take no time beside the ports, relaying meets its bound. Link time is bounded
/// as follows: in a step a GPU moves at most what its node sends or receives in the two port rounds next to
/// it, at most P times their length, and sharing at most doubles the time; so all rounds together add at most
/// 4 P / L, and local messages twice their own bound. Rounding moves up to 4 bytes per GPU of the pair
/// between flows of a round.
TEST(TwoTierOrder, MeetsTheRelayedBoundWhenLinksAreFast) {
  std::mt19937_64 random(44);
  for (const auto& [num_nodes, gpus_per_node] : {std::pair{2, 4}, {4, 8}, {7, 3}, {3, 1}}) {
    const TwoTierNetwork network = two_tier_network(even_cluster(num_nodes, gpus_per_node, 1000));
    for (const Family family : test::all_families()) {
      SCOPED_TRACE(std::to_string(num_nodes) + " x " + std::to_string(gpus_per_node) + ", seed 44, " +
                   test::family_name(family));
      const TrafficMatrix traffic = test::random_traffic(family, num_nodes * gpus_per_node, random);
      const TwoTierOrder order = relayed_order(traffic, network);
      const TwoTierBounds bounds = two_tier_bounds(traffic, network);
      const double link_us =
          network.link > 0 ? 4 * network.node_ports[0] / network.link * bounds.nodes_us + 2 * bounds.links_us
                           : 0;
      const double rounding_us = num_busy_steps(order) * 8.0 * gpus_per_node / network.ports[0];
      ASSERT_LE(predicted_two_tier_us(order, network, 0), bounds.nodes_us + link_us + rounding_us);
    }
  }
}

/// Links of NVLink over NIC: what filling and draining costs beside 64 or more port rounds.
TEST(TwoTierOrder, ComesWithinTwoPercentOfTheRelayedBoundWithLinksNineTimesThePort) {
  std::mt19937_64 random(45);
  const TwoTierNetwork network = two_tier_network(even_cluster(4, 8, 9));
  for (int instance = 0; instance < 5; ++instance) {
    for (const Family family : test::all_families()) {
      SCOPED_TRACE("seed 45, instance " + std::to_string(instance) + ", " + test::family_name(family));
      const TrafficMatrix traffic = test::random_traffic(family, 32, random);
      const double bound_us = two_tier_bounds(traffic, network).relayed_us();
      ASSERT_LE(predicted_two_tier_us(relayed_order(traffic, network), network, 0), 1.02 * bound_us);
    }
  }
}

TEST(TwoTierOrder, SpreadsOneBusyGpuOverItsNode) {
  // GPU 0 of each node owes GPU 1 of the next node everything: eight times faster than any direct order.
  const TwoTierNetwork network = two_tier_network(even_cluster(4, 8, 9));
  TrafficMatrix traffic(32);
  for (int node = 0; node < 4; ++node) traffic.set(8 * node, 8 * ((node + 1) % 4) + 1, 8'000'000);
  const TwoTierBounds bounds = two_tier_bounds(traffic, network);
  EXPECT_DOUBLE_EQ(bounds.nodes_us, 8e6 / (8 * 12500.0));
  EXPECT_DOUBLE_EQ(bounds.direct_us(), 8 * bounds.nodes_us);
  const TwoTierOrder order = best_two_tier_order(traffic, network, {.round_cost_us = 0});
  EXPECT_TRUE(is_relaying(order));
  EXPECT_LE(predicted_two_tier_us(order, network, 0), 1.05 * bounds.nodes_us);
}

TEST(TwoTierOrder, GoesStraightWhereRelayingDoesNotPay) {
  TrafficMatrix traffic(8);
  for (int i = 0; i < 8; ++i) {
    for (int j = 0; j < 8; ++j) traffic.set(i, j, 1'000'000);
  }
  // All GPUs alike, links slower than ports.
  const TwoTierNetwork slow = two_tier_network(even_cluster(2, 4, 0.5));
  EXPECT_FALSE(is_relaying(best_two_tier_order(traffic, slow, {.round_cost_us = 0})));
  // A busy GPU, but start-ups beside which its time is nothing.
  traffic.set(0, 4, 10'000'000);
  const TwoTierNetwork fast = two_tier_network(even_cluster(2, 4, 9));
  const TwoTierOrder order = best_two_tier_order(traffic, fast, {.round_cost_us = 1e6});
  EXPECT_FALSE(is_relaying(order));
  EXPECT_EQ(num_busy_steps(order), 1);
}

TEST(TwoTierOrder, WithOneGpuPerNodeIsTheExactOrder) {
  std::mt19937_64 random(46);
  for (int instance = 0; instance < 100; ++instance) {
    SCOPED_TRACE("seed 46, instance " + std::to_string(instance));
    const int n = 1 + static_cast<int>(random() % 12);
    const ClusterSpec cluster = even_cluster(n, 1, 9);
    ASSERT_FALSE(has_two_tiers(cluster));
    const TwoTierNetwork network = two_tier_network(cluster);
    const TrafficMatrix traffic = test::random_traffic(random_family(random), n, random);
    const TwoTierOrder order = relayed_order(traffic, network);
    ASSERT_FALSE(is_relaying(order));
    const double exact_us =
        predicted_makespan_us(plan_order(OrderPolicy::kExact, traffic, {}), network.ports, 0);
    ASSERT_NEAR(predicted_two_tier_us(order, network, 0), exact_us, 1e-9 * exact_us);
  }
}

TEST(TwoTierOrder, WithinOneNodeIsTheExactOrderOfTheLinks) {
  std::mt19937_64 random(47);
  for (int instance = 0; instance < 100; ++instance) {
    SCOPED_TRACE("seed 47, instance " + std::to_string(instance));
    const int n = 2 + static_cast<int>(random() % 8);
    const TwoTierNetwork network = two_tier_network(even_cluster(1, n, 9));
    const TrafficMatrix traffic = test::random_traffic(random_family(random), n, random);
    const TwoTierOrder order = relayed_order(traffic, network);
    ASSERT_TRUE(order.port_rounds.empty());
    double busiest = 0;
    for (int gpu = 0; gpu < n; ++gpu) {
      busiest =
          std::max(busiest, static_cast<double>(std::max(traffic.row_sum(gpu), traffic.column_sum(gpu))) /
                                network.link);
    }
    ASSERT_NEAR(predicted_two_tier_us(order, network, 0), busiest, 1e-9 * busiest);
  }
}

/// Progressive filling by its definition: raise all rates together, freeze what a full side carries.
std::vector<double> naive_rates(const std::vector<std::pair<int, int>>& sides,
                                const std::vector<double>& capacities) {
  std::vector<double> rates(sides.size(), -1);
  std::vector<double> left = capacities;
  for (;;) {
    std::vector<int> num_open(capacities.size());
    for (std::size_t flow = 0; flow < sides.size(); ++flow) {
      if (rates[flow] >= 0) continue;
      ++num_open[sides[flow].first];
      ++num_open[sides[flow].second];
    }
    int tightest = -1;
    for (int side = 0; side < static_cast<int>(left.size()); ++side) {
      if (num_open[side] == 0) continue;
      if (tightest < 0 || left[side] / num_open[side] < left[tightest] / num_open[tightest]) tightest = side;
    }
    if (tightest < 0) return rates;
    const double rate = left[tightest] / num_open[tightest];
    for (std::size_t flow = 0; flow < sides.size(); ++flow) {
      if (rates[flow] >= 0 || (sides[flow].first != tightest && sides[flow].second != tightest)) continue;
      rates[flow] = rate;
      left[sides[flow].first] -= rate;
      left[sides[flow].second] -= rate;
    }
  }
}

double naive_time_us(const std::vector<Transfer>& transfers, const ClusterSpec& cluster) {
  const int n = cluster.num_gpus();
  // Sides: ports out, ports in, links out, links in.
  std::vector<double> capacities(static_cast<std::size_t>(4 * n));
  for (int gpu = 0; gpu < n; ++gpu) {
    capacities[gpu] = capacities[n + gpu] = cluster.gpus[gpu].port_gbps * 125;
    capacities[2 * n + gpu] = capacities[3 * n + gpu] = cluster.link_gbps * 125;
  }
  std::vector<std::pair<int, int>> sides;
  std::vector<double> left;
  for (const Transfer& transfer : transfers) {
    const int i = transfer.source.value;
    const int j = transfer.destination.value;
    const bool is_link = cluster.link_gbps > 0 && cluster.gpus[i].node == cluster.gpus[j].node;
    sides.emplace_back((is_link ? 2 * n : 0) + i, (is_link ? 3 * n : n) + j);
    left.push_back(static_cast<double>(transfer.bytes));
  }
  double elapsed = 0;
  while (!left.empty()) {
    const std::vector<double> rates = naive_rates(sides, capacities);
    double step = left[0] / rates[0];
    for (std::size_t flow = 0; flow < left.size(); ++flow) step = std::min(step, left[flow] / rates[flow]);
    elapsed += step;
    for (std::size_t flow = left.size(); flow-- > 0;) {
      left[flow] -= step * rates[flow];
      if (left[flow] > 1e-6) continue;
      left.erase(left.begin() + static_cast<std::ptrdiff_t>(flow));
      sides.erase(sides.begin() + static_cast<std::ptrdiff_t>(flow));
    }
  }
  return elapsed;
}

TEST(TwoTierNetwork, SharesLinksAndPortsMaxMinFairly) {
  std::mt19937_64 random(48);
  for (int instance = 0; instance < 300; ++instance) {
    SCOPED_TRACE("seed 48, instance " + std::to_string(instance));
    const ClusterSpec cluster = random_cluster(random);
    const int n = cluster.num_gpus();
    std::vector<Transfer> transfers;
    for (int i = 0; i < n; ++i) {
      for (int j = 0; j < n; ++j) {
        if (i == j || random() % 3 != 0) continue;
        transfers.push_back({{i}, {j}, 1 + static_cast<Bytes>(random() % 10'000'000)});
      }
    }
    const double expected_us = naive_time_us(transfers, cluster);
    ASSERT_NEAR(two_tier_time_us(transfers, two_tier_network(cluster)), expected_us, 1e-6 * expected_us);
  }
}

TEST(TwoTierNetwork, KnowsNodesOfUnequalSizes) {
  ClusterSpec cluster = uniform_cluster(5, 100);
  cluster.link_gbps = 400;
  for (const int gpu : {1, 3, 4}) cluster.gpus[gpu].node = 7;
  cluster.gpus[3].port_gbps = 50;
  const TwoTierNetwork network = two_tier_network(cluster);
  EXPECT_EQ(network.gpus, (std::vector<std::vector<int>>{{0, 2}, {1, 3, 4}}));
  EXPECT_EQ(network.node_ports, (std::vector<double>{25000, 31250}));
  EXPECT_EQ(network.place_of, (std::vector<int>{0, 0, 1, 1, 2}));
  TrafficMatrix traffic(5);
  traffic.set(0, 1, 1'000'000);
  traffic.set(2, 4, 250'000);
  traffic.set(0, 2, 500'000);
  const TwoTierBounds bounds = two_tier_bounds(traffic, network);
  EXPECT_DOUBLE_EQ(bounds.nodes_us, 1'250'000 / 25000.0);
  EXPECT_DOUBLE_EQ(bounds.ports_us, 1'000'000 / 12500.0);
  EXPECT_DOUBLE_EQ(bounds.links_us, 500'000 / 50000.0);
  EXPECT_DOUBLE_EQ(bounds.gpus_us, 1'500'000 / 62500.0);
  EXPECT_EQ(node_traffic(traffic, network).at(0, 1), 1'250'000);
}

TEST(TwoTierNetwork, NamesWhatIsWrong) {
  ClusterSpec cluster = even_cluster(2, 2, 9);
  const TwoTierNetwork network = two_tier_network(cluster);
  EXPECT_THROW(node_traffic(TrafficMatrix(3), network), std::invalid_argument);
  EXPECT_THROW(relayed_order(TrafficMatrix(5), network), std::invalid_argument);
  EXPECT_THROW(best_two_tier_order(TrafficMatrix(4), network, {.round_cost_us = -1}), std::invalid_argument);
  EXPECT_THROW(best_two_tier_order(TrafficMatrix(4), network, {.max_steps = -1}), std::invalid_argument);
  EXPECT_THROW(step_hops(TwoTierOrder{}, 0, network), std::invalid_argument);
  TrafficMatrix huge(4);
  huge.set(0, 2, Bytes{1} << 62);
  huge.set(1, 2, 1);
  EXPECT_THROW(relayed_order(huge, network), std::invalid_argument) << "node 0 sends more than 2^62 bytes";
  for (const double port : {0.0, -1.0}) {
    cluster.gpus[1].port_gbps = port;
    EXPECT_THROW(two_tier_network(cluster), std::invalid_argument);
  }
}

TEST(TwoTierOrder, OfNoTrafficHasNoSteps) {
  const TwoTierNetwork network = two_tier_network(even_cluster(2, 4, 9));
  EXPECT_EQ(relayed_order(TrafficMatrix(8), network).num_steps(), 0);
  EXPECT_EQ(num_busy_steps(best_two_tier_order(TrafficMatrix(8), network, {})), 0);
}

TEST(TwoTierOrder, PlansTheLargestMessages) {
  const TwoTierNetwork network = two_tier_network(even_cluster(2, 2, 9));
  TrafficMatrix traffic(4);
  traffic.set(0, 2, (Bytes{1} << 61) + 1);
  traffic.set(1, 3, (Bytes{1} << 61) - 1);
  traffic.set(3, 0, Bytes{1} << 61);
  expect_delivery(relayed_order(traffic, network), traffic, network);
}

}  // namespace
}  // namespace aurora
