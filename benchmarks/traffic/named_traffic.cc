#include "benchmarks/traffic/named_traffic.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <random>
#include <string_view>

#include "kernels/error.h"
#include "runtime/plan_io/import_traffic.h"
#include "runtime/plan_io/nearest_name.h"
#include "scheduler/makespan_bound.h"
#include "scheduler/placement.h"
#include "tests/scheduler/traffic_families.h"

namespace aurora::bench {
namespace {

using test::Family;

struct FamilyRow {
  std::string_view name;
  Family family;
};
constexpr std::array kFamilies{
    FamilyRow{"uniform", Family::kUniform},
    FamilyRow{"uneven-sources", Family::kZipfRows},
    FamilyRow{"zipf-receivers", Family::kZipfColumns},
    FamilyRow{"zipf", Family::kZipfBoth},
    FamilyRow{"hot-pair", Family::kOneHotPair},
    FamilyRow{"sparse", Family::kSparse},
    FamilyRow{"permutation", Family::kPermutation},
    FamilyRow{"balanced-mild", Family::kBalancedMild},
    FamilyRow{"balanced-uneven", Family::kBalancedUneven},
};
constexpr std::string_view kHotReceiver = "hot-receiver";
constexpr std::string_view kHotSender = "hot-sender";
constexpr std::string_view kRouting = "routing-";
constexpr std::string_view kMixedRouting = "mixed-routing-";
constexpr std::array kWorkloads{"law.json", "summary.json"};
constexpr int kNumRoutedLayers = 26;

/// Drawn again while it is empty, as a sparse matrix or a permutation of two or three GPUs may come out.
TrafficMatrix drawn_traffic(Family family, int num_gpus, std::mt19937_64& random) {
  TrafficMatrix traffic = test::random_traffic(family, num_gpus, random);
  while (num_gpus > 1 && traffic.total() == 0) traffic = test::random_traffic(family, num_gpus, random);
  return traffic;
}

/// Random entries; what one GPU receives is raised to half of everything.
TrafficMatrix hot_receiver(int num_gpus, std::mt19937_64& random) {
  TrafficMatrix traffic = test::random_traffic(Family::kUniform, num_gpus, random);
  const int hot = static_cast<int>(random() % static_cast<std::uint64_t>(num_gpus));
  const Bytes received = std::max<Bytes>(traffic.column_sum(hot), 1);
  const Bytes others = traffic.total() - received;
  for (int source = 0; source < num_gpus; ++source) {
    traffic.set(source, hot, traffic.at(source, hot) * others / received);
  }
  return traffic;
}

/// Which GPU a token came from is not recorded: tokens are dealt to the GPUs in blocks (import_traffic.h).
TrafficMatrix routed_traffic(const std::filesystem::path& file, int layer, int num_gpus) {
  ModelTraffic model = import_routing_record(file, {.num_sources = num_gpus});
  constexpr double kBytesPerToken = 4096;  // hidden 2048 in bfloat16
  model.dispatch_bytes_per_token = model.combine_bytes_per_token = kBytesPerToken;
  const ModelPlacement placement =
      plan_placement(PlacementPolicy::kContiguous, model, uniform_cluster(num_gpus, 100), {});
  return dispatch_bytes(model, layer, placement.layers.at(static_cast<std::size_t>(layer)), num_gpus);
}

/// The layer when `name` is `prefix` and a layer's number.
std::optional<int> layer_in(std::string_view name, std::string_view prefix) {
  if (!name.starts_with(prefix)) return std::nullopt;
  name.remove_prefix(prefix.size());
  int layer = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), layer);
  const bool is_number = error == std::errc() && end == name.data() + name.size();
  if (!is_number || layer < 0 || layer >= kNumRoutedLayers) return std::nullopt;
  return layer;
}

TrafficMatrix mixed_traffic(int layer, const NamedTrafficArgs& args) {
  std::vector<TrafficMatrix> workloads;
  for (const char* file : kWorkloads) {
    workloads.push_back(routed_traffic(args.routing_folder / file, layer, args.num_gpus));
  }
  TrafficMatrix mixed(args.num_gpus);
  for (int source = 0; source < args.num_gpus; ++source) {
    const TrafficMatrix& workload = workloads[static_cast<std::size_t>(source) % workloads.size()];
    for (int destination = 0; destination < args.num_gpus; ++destination) {
      mixed.set(source, destination, workload.at(source, destination));
    }
  }
  return mixed;
}

}  // namespace

std::vector<std::string> traffic_names() {
  std::vector<std::string> names;
  for (const FamilyRow& row : kFamilies) names.emplace_back(row.name);
  names.emplace_back(kHotReceiver);
  names.emplace_back(kHotSender);
  for (const std::string_view prefix : {kRouting, kMixedRouting}) {
    for (const int layer : {0, kNumRoutedLayers / 2, kNumRoutedLayers - 1}) {
      names.push_back(std::string(prefix) + std::to_string(layer));
    }
  }
  return names;
}

TrafficMatrix named_traffic(const std::string& name, const NamedTrafficArgs& args) {
  std::mt19937_64 random(args.seed);
  for (const FamilyRow& row : kFamilies) {
    if (row.name == name) return drawn_traffic(row.family, args.num_gpus, random);
  }
  if (name == kHotReceiver) return hot_receiver(args.num_gpus, random);
  if (name == kHotSender) return hot_receiver(args.num_gpus, random).transposed();
  if (const auto layer = layer_in(name, kRouting)) {
    return routed_traffic(args.routing_folder / kWorkloads.front(), *layer, args.num_gpus);
  }
  if (const auto layer = layer_in(name, kMixedRouting)) return mixed_traffic(*layer, args);
  throw Error(ErrorKind::kInvalidArgument, "no traffic family \"" + name + "\" (routing has layers 0 to " +
                                               std::to_string(kNumRoutedLayers - 1) + ")" +
                                               suggest_name(name, traffic_names()));
}

TrafficMatrix scaled_traffic(const TrafficMatrix& traffic, Bytes most_loaded_bytes) {
  const Bytes most = makespan_bound_bytes(traffic);
  if (most == 0) throw Error(ErrorKind::kInvalidArgument, "a matrix without traffic cannot be scaled");
  constexpr double kWordBytes = 8;
  const double words = static_cast<double>(most_loaded_bytes) / kWordBytes / static_cast<double>(most);
  TrafficMatrix scaled(traffic.num_gpus());
  for (int source = 0; source < traffic.num_gpus(); ++source) {
    for (int destination = 0; destination < traffic.num_gpus(); ++destination) {
      const auto count = static_cast<Bytes>(static_cast<double>(traffic.at(source, destination)) * words);
      scaled.set(source, destination, count * static_cast<Bytes>(kWordBytes));
    }
  }
  return scaled;
}

}  // namespace aurora::bench
