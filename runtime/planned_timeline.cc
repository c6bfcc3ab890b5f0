#include "runtime/planned_timeline.h"

#include <algorithm>

#include "kernels/error.h"
#include "scheduler/makespan_bound.h"
#include "scheduler/timeline.h"

namespace aurora {
namespace {

using Layers = std::vector<LayerWork>;

Phase phase_of(TimelinePhase phase) {
  switch (phase) {
    case TimelinePhase::kGate:
      return Phase::kGate;
    case TimelinePhase::kDispatch:
      return Phase::kDispatch;
    case TimelinePhase::kExperts:
      return Phase::kExperts;
    case TimelinePhase::kCombine:
      return Phase::kCombine;
    case TimelinePhase::kAggregation:
      break;
  }
  return Phase::kAggregation;
}

/// The exchange as one that takes at the ports what the fabric is predicted to take.
void stretch(std::vector<double>& bytes, const ClusterSpec& cluster, const FabricModel& fabric) {
  const int num_gpus = cluster.num_gpus();
  TrafficMatrix traffic(num_gpus);
  for (int source = 0; source < num_gpus; ++source) {
    for (int destination = 0; destination < num_gpus; ++destination) {
      if (source == destination) continue;
      traffic.set(source, destination,
                  static_cast<Bytes>(bytes[static_cast<std::size_t>(source * num_gpus + destination)]));
    }
  }
  const OrderOptions options{.ports = port_bandwidths(cluster)};
  const double bound_us = makespan_bound_us(traffic, options);
  if (!(bound_us > 0)) return;
  const double factor = choose_order(traffic, options, fabric).predicted_us / bound_us;
  for (double& each : bytes) each *= factor;
}

/// What one mean step of a model asks of every GPU.
Layers work_of_step(const ModelTraffic& traffic, const ModelPlacement& placement, double num_steps,
                    const ClusterSpec& cluster, const FabricModel* fabric) {
  Layers work;
  for (std::size_t layer = 0; layer < traffic.layers.size(); ++layer) {
    LayerTraffic of_step = traffic.layers[layer];
    for (auto& tokens_of_source : of_step.dispatch) {
      for (double& tokens : tokens_of_source) tokens /= num_steps;
    }
    const LayerDemand demand(of_step, traffic, cluster.num_gpus());
    LayerWork& added = work.emplace_back(layer_work(demand, placement.layers[layer], traffic, cluster));
    if (fabric == nullptr) continue;
    stretch(added.dispatch_bytes, cluster, *fabric);
    stretch(added.combine_bytes, cluster, *fabric);
  }
  return work;
}

/// Appends `timeline`, whose models are `models`, from `start_us` on.
void append(std::vector<PlannedSpan>& spans, const Timeline& timeline, std::span<const std::int32_t> models,
            double start_us) {
  for (const TimelineEvent& event : timeline.events) {
    if (event.end_us <= event.start_us) continue;  // a GPU that has no part in it
    spans.push_back({.rank = event.gpu,
                     .model_index = models[static_cast<std::size_t>(event.model)],
                     .layer = event.layer,
                     .phase = phase_of(event.phase),
                     .start_us = start_us + event.start_us,
                     .end_us = start_us + event.end_us});
  }
}

}  // namespace

std::vector<PlannedSpan> planned_timeline(const PlannedTimelineArgs& args) {
  std::vector<Layers> work;
  std::vector<std::int32_t> models;
  for (std::size_t model = 0; model < args.traffic.size(); ++model) {
    if (args.num_steps[model] == 0) continue;
    const ModelPlacement* placement = args.plan->find(args.traffic[model].model);
    check(placement != nullptr, "the plan places every model");
    work.push_back(work_of_step(args.traffic[model], *placement, static_cast<double>(args.num_steps[model]),
                                args.cluster, args.fabric));
    models.push_back(static_cast<std::int32_t>(model));
  }
  std::vector<PlannedSpan> spans;
  if (args.schedule == Schedule::kColocated || args.schedule == Schedule::kExclusive) {
    append(spans, simulate_layers(work, args.cluster, Execution::kOverlapped), models, 0);
    return spans;
  }
  double start_us = 0;
  for (std::size_t index = 0; index < work.size(); ++index) {
    std::vector<Layers> alone = {work[index]};
    if (args.schedule == Schedule::kTwoBatch) {
      // Costs per expert that is hit are not measured apart, so nothing is fixed.
      const std::vector<std::vector<double>> nothing_fixed(work[index].size(),
                                                           std::vector<double>(args.cluster.gpus.size(), 0));
      alone = split_into_two_batches(work[index], nothing_fixed);
    }
    const std::vector<std::int32_t> halves(alone.size(), models[index]);
    const Timeline timeline = simulate_layers(alone, args.cluster, Execution::kOverlapped);
    append(spans, timeline, halves, start_us);
    start_us += timeline.makespan_us;
  }
  return spans;
}

}  // namespace aurora
