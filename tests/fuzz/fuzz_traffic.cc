// Traffic files of any bytes: the reader gives valid traffic or throws Error naming the file, nothing else.
// What it accepts is read back as written, and a plan can be judged by it: times are finite.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "kernels/error.h"
#include "runtime/plan_io/traffic_file.h"
#include "scheduler/expert_load.h"
#include "scheduler/placement.h"
#include "scheduler/plan_evaluation.h"

namespace {

void demand(bool holds) {
  if (!holds) std::abort();
}

void demand_judgeable(const aurora::ModelTraffic& traffic) {
  const aurora::ClusterSpec cluster = aurora::uniform_cluster(2, 100);
  const auto plan = aurora::plan_deployment({&traffic, 1}, cluster, aurora::PlacementPolicy::kContiguous, {});
  const aurora::PlanEvaluation evaluation = aurora::evaluate_plan(plan, {&traffic, 1}, cluster);
  for (const double time : evaluation.layer_time_us) demand(std::isfinite(time) && time >= 0);
  demand(evaluation.utilisation >= 0 && evaluation.utilisation <= 1 + 1e-9);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const aurora::ModelTraffic traffic = aurora::parse_traffic(text, "fuzz");
    aurora::validate(traffic);
    const aurora::ModelTraffic again = aurora::parse_traffic(aurora::traffic_text(traffic), "again");
    demand(again.model == traffic.model && again.expert_us_per_hit == traffic.expert_us_per_hit);
    demand(again.layers.size() == traffic.layers.size());
    for (std::size_t layer = 0; layer < traffic.layers.size(); ++layer) {
      demand(again.layers[layer].dispatch == traffic.layers[layer].dispatch);
      demand(again.layers[layer].samples == traffic.layers[layer].samples);
    }
    constexpr int kMostExpertsPlaced = 64;
    if (traffic.num_experts <= kMostExpertsPlaced) demand_judgeable(traffic);
  } catch (const aurora::Error& error) {
    demand(error.kind() == aurora::ErrorKind::kFormat);
    demand(std::string_view(error.what()).starts_with("fuzz: "));
  }
  return 0;
}
