#include "scheduler/layer_time.h"

#include <algorithm>
#include <cstddef>

namespace aurora {
namespace {

double maximum(const std::vector<double>& values) {
  double largest = 0;
  for (const double value : values) largest = std::max(largest, value);
  return largest;
}

/// Both sides of all ports while exchanges are added to the wire one after the other.
class Wire {
 public:
  explicit Wire(std::size_t num_gpus) : send_(num_gpus), receive_(num_gpus) {}

  /// Adds an exchange; returns the time that everything added so far takes.
  double add(const std::vector<double>& send_us, const std::vector<double>& receive_us) {
    for (std::size_t gpu = 0; gpu < send_.size(); ++gpu) {
      send_[gpu] += send_us[gpu];
      receive_[gpu] += receive_us[gpu];
      busiest_ = std::max({busiest_, send_[gpu], receive_[gpu]});
    }
    return busiest_;
  }

 private:
  std::vector<double> send_;
  std::vector<double> receive_;
  double busiest_ = 0;
};

}  // namespace

LayerLoad layer_load(const LayerDemand& demand, const LayerPlacement& placement, const ModelTraffic& model,
                     const ClusterSpec& cluster) {
  const auto n = static_cast<std::size_t>(demand.num_gpus);
  LayerLoad load;
  for (auto* values : {&load.gate_us, &load.expert_us, &load.aggregate_us, &load.dispatch_send_us,
                       &load.dispatch_receive_us, &load.combine_send_us, &load.combine_receive_us}) {
    values->assign(n, 0);
  }
  for (std::size_t gpu = 0; gpu < n; ++gpu) {
    const double speed = cluster.gpus[gpu].compute;
    load.gate_us[gpu] = demand.tokens[gpu] * (model.attention_us + model.gate_us) / speed;
    load.aggregate_us[gpu] = demand.tokens[gpu] * model.aggregate_us / speed;
  }
  for (int expert = 0; expert < placement.num_experts(); ++expert) {
    const std::vector<double> pairs = pairs_of_replicas(demand, placement, expert);
    for (std::size_t index = 0; index < pairs.size(); ++index) {
      if (pairs[index] <= 0) continue;
      const auto gpu = static_cast<std::size_t>(placement.experts[expert][index].gpu.value);
      load.expert_us[gpu] +=
          (pairs[index] * model.expert_us_per_token + model.expert_us_per_hit) / cluster.gpus[gpu].compute;
    }
  }
  const std::vector<double> rows = exchange_rows(demand, placement);
  for (int source = 0; source < demand.num_gpus; ++source) {
    for (int destination = 0; destination < demand.num_gpus; ++destination) {
      if (source == destination) continue;
      const double count = rows[static_cast<std::size_t>(source) * n + static_cast<std::size_t>(destination)];
      const double source_side = bandwidth_towards(cluster, source, destination);
      const double destination_side = bandwidth_towards(cluster, destination, source);
      load.dispatch_send_us[source] += count * model.dispatch_bytes_per_token / source_side;
      load.dispatch_receive_us[destination] += count * model.dispatch_bytes_per_token / destination_side;
      load.combine_send_us[destination] += count * model.combine_bytes_per_token / destination_side;
      load.combine_receive_us[source] += count * model.combine_bytes_per_token / source_side;
    }
  }
  return load;
}

double exclusive_layer_time_us(const LayerLoad& load) {
  double before = 0;
  double after = 0;
  for (std::size_t gpu = 0; gpu < load.gate_us.size(); ++gpu) {
    before = std::max(
        before, load.gate_us[gpu] + std::max(load.dispatch_send_us[gpu], load.dispatch_receive_us[gpu]));
    after = std::max(after,
                     load.expert_us[gpu] + std::max(load.combine_send_us[gpu], load.combine_receive_us[gpu]));
  }
  return before + after + maximum(load.aggregate_us);
}

double colocated_layer_time_us(std::span<const PhaseMaxima> models) {
  if (models.empty()) return 0;
  // The first model's gate ran at the end of the layer before; the others' run now, one after the other.
  double all_gates = 0;
  double all_aggregations = 0;
  for (const PhaseMaxima& model : models) all_aggregations += model.aggregate_us;
  for (const PhaseMaxima& model : models.subspan(1)) all_gates += model.gate_us;
  double gates_end = 0;
  double experts_end = all_gates;
  double aggregations_end = 0;  // as far as they wait for combines; they also wait for all experts
  for (std::size_t index = 0; index < models.size(); ++index) {
    const PhaseMaxima& model = models[index];
    if (index > 0) gates_end += model.gate_us;
    const double dispatch_end = std::max(model.dispatch_wire_us, gates_end + model.dispatch_us);
    experts_end = std::max(experts_end, dispatch_end) + model.expert_us;
    const double combine_end = std::max(model.combine_wire_us, experts_end + model.combine_us);
    aggregations_end = std::max(aggregations_end, combine_end) + model.aggregate_us;
  }
  return std::max(experts_end + all_aggregations, aggregations_end) + models.front().gate_us;
}

double colocated_layer_time_us(std::span<const LayerLoad> loads) {
  if (loads.empty()) return 0;
  Wire wire(loads.front().gate_us.size());
  std::vector<PhaseMaxima> maxima;
  for (const LayerLoad& load : loads) {
    PhaseMaxima& model = maxima.emplace_back();
    model.gate_us = maximum(load.gate_us);
    model.expert_us = maximum(load.expert_us);
    model.aggregate_us = maximum(load.aggregate_us);
    model.dispatch_us = std::max(maximum(load.dispatch_send_us), maximum(load.dispatch_receive_us));
    model.combine_us = std::max(maximum(load.combine_send_us), maximum(load.combine_receive_us));
    model.dispatch_wire_us = wire.add(load.dispatch_send_us, load.dispatch_receive_us);
  }
  for (std::size_t model = 0; model < loads.size(); ++model) {
    maxima[model].combine_wire_us = wire.add(loads[model].combine_send_us, loads[model].combine_receive_us);
  }
  return colocated_layer_time_us(maxima);
}

double layer_time_us(std::span<const LayerLoad> loads) {
  return loads.size() == 1 ? exclusive_layer_time_us(loads.front()) : colocated_layer_time_us(loads);
}

double utilisation(std::span<const LayerLoad> loads, double layer_time) {
  if (loads.empty() || layer_time <= 0) return 0;
  double computing = 0;
  const std::size_t num_gpus = loads.front().gate_us.size();
  for (const LayerLoad& load : loads) {
    for (std::size_t gpu = 0; gpu < num_gpus; ++gpu) {
      computing += load.gate_us[gpu] + load.expert_us[gpu] + load.aggregate_us[gpu];
    }
  }
  return computing / static_cast<double>(num_gpus) / layer_time;
}

}  // namespace aurora
