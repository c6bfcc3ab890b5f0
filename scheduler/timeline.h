// What happens when: an event simulation of MoE layers on the cluster, with real priorities.
//
// The closed forms of layer_time.h let every phase end at the maximum over GPUs and give every exchange the
// wire that it would have alone; their ends cannot always be met together. Here every GPU runs one
// computation at a time, the ready one that comes first in the order G^b, F^a, F^b, A^a, A^b, G^a of the next
// layer (Li et al., arXiv 2410.17043), and waits only when none is ready. A GPU's part of an exchange starts
// when its computation has ended there; its experts start when all their tokens have come. The wire belongs
// to the exchange that comes first in N^a, N^b, C^a, C^b; the others share what it leaves. Within an
// exchange, transfers advance in proportion to what is left of them, as a good order makes them do: alone on
// the wire an exchange takes its bound.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "scheduler/cluster.h"
#include "scheduler/expert_load.h"
#include "scheduler/plan.h"

namespace aurora {

/// One layer of one model: microseconds of compute on each GPU, and bytes between GPUs, row-major
/// [source][destination], the diagonal free.
struct LayerWork {
  std::vector<double> gate_us;
  std::vector<double> expert_us;
  std::vector<double> aggregate_us;
  std::vector<double> dispatch_bytes;
  std::vector<double> combine_bytes;
};
LayerWork layer_work(const LayerDemand& demand, const LayerPlacement& placement, const ModelTraffic& model,
                     const ClusterSpec& cluster);

/// How the models (or parts of one) take turns.
enum class Execution : std::uint8_t {
  kOverlapped,  // all at once, as above: exclusive for one model, colocated for several
  kSerial,      // layer l of a model starts when the model before it has ended its layer l everywhere
};

enum class TimelinePhase : std::uint8_t { kGate, kDispatch, kExperts, kCombine, kAggregation };
std::string_view timeline_phase_name(TimelinePhase phase);

/// A computation on a GPU, or the time in which a GPU sends its part of an exchange.
struct TimelineEvent {
  int model = 0;
  int layer = 0;
  int gpu = 0;
  TimelinePhase phase = TimelinePhase::kGate;
  double start_us = 0;
  double end_us = 0;
};

struct Timeline {
  std::vector<TimelineEvent> events;  // by end
  double makespan_us = 0;
  double utilisation = 0;  // mean over GPUs of the time spent computing, over the makespan
};

/// work[model][layer]; models may have different numbers of layers. Ports in bytes per microsecond, each way.
/// Throws std::invalid_argument when sizes disagree.
Timeline simulate_layers(std::span<const std::vector<LayerWork>> work, const ClusterSpec& cluster,
                         Execution execution);

/// One model's work cut into two halves that overlap with each other like two models: the two-batch overlap
/// of inference engines. Costs that do not depend on the number of tokens (`expert_us_per_hit`) are paid by
/// both halves.
std::vector<std::vector<LayerWork>> split_into_two_batches(
    const std::vector<LayerWork>& work, std::span<const std::vector<double>> fixed_expert_us);

/// Chrome trace events (chrome://tracing, ui.perfetto.dev): a process per GPU, two threads per model: compute
/// and exchange.
std::string timeline_trace_json(const Timeline& timeline, std::span<const std::string> model_names);

}  // namespace aurora
