// How long one MoE layer takes under a placement: closed forms, the objectives that placement minimises.
//
// A layer alone on its GPUs (gate G, dispatch N, experts F, combine C, aggregation A; a GPU's exchange takes
// what its port needs, which an exact order attains):
//     max_i (G_i + N_i) + max_j (F_j + C_j) + max_k A_k
// Several models' layers together: compute is serialised on a GPU, exchanges share the wire in the order of
// their start and overlap compute (Li et al., arXiv 2410.17043, table 2). For two models a and b:
//     N^a: 0 .. |N^a|          N^b: |G^b| .. [N^a + N^b]        F^a from max(|G^b|, N^a end)
//     F^b from max(F^a end, N^b end)   C^a: F^a end .. [N^a + N^b + C^a]   A^a from max(F^b end, C^a end)
//     C^b: F^b end .. [all four]       A^b from max(A^a end, C^b end), then G^a
// where |X| is the maximum over GPUs, [X + Y] the time of the sum on the wire; no exchange ends before its
// start plus its own time. The same recurrence continues for more models. It is a lower bound: not all its
// ends can always be met together.
#pragma once

#include <span>
#include <vector>

#include "scheduler/cluster.h"
#include "scheduler/expert_load.h"
#include "scheduler/plan.h"

namespace aurora {

/// Microseconds that one model's layer keeps each GPU and each side of its port busy; one element per GPU.
struct LayerLoad {
  std::vector<double> gate_us;  // attention and gate: what comes before the dispatch
  std::vector<double> expert_us;
  std::vector<double> aggregate_us;
  std::vector<double> dispatch_send_us;
  std::vector<double> dispatch_receive_us;
  std::vector<double> combine_send_us;
  std::vector<double> combine_receive_us;
};

/// Costs of one model in the units of its traffic file. Where nodes have links, what a GPU exchanges over
/// them and over its port is added up, as if it had one interface with two speeds: an upper bound, since both
/// can run at once.
LayerLoad layer_load(const LayerDemand& demand, const LayerPlacement& placement, const ModelTraffic& model,
                     const ClusterSpec& cluster);

/// Maxima over GPUs of one model's phases: all that decides the time of a colocated layer.
struct PhaseMaxima {
  double gate_us = 0;
  double expert_us = 0;
  double aggregate_us = 0;
  double dispatch_us = 0;  // by itself on the wire
  double combine_us = 0;
  double dispatch_wire_us = 0;  // together with all that is on the wire before it: N^a, N^b, C^a, C^b
  double combine_wire_us = 0;
};

/// The recurrence above; one element per model in the order in which they take turns. Monotone in every
/// maximum, which is what bounds over partial placements rest on.
double colocated_layer_time_us(std::span<const PhaseMaxima> models);

double exclusive_layer_time_us(const LayerLoad& load);

/// One load per model, in the order in which the models take turns. One model alone takes its phases in
/// series.
double colocated_layer_time_us(std::span<const LayerLoad> loads);

/// Exclusive for one model, colocated for more.
double layer_time_us(std::span<const LayerLoad> loads);

/// Mean over GPUs of the time spent computing, divided by `layer_time`.
double utilisation(std::span<const LayerLoad> loads, double layer_time);

}  // namespace aurora
