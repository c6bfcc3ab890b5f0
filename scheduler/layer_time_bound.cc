#include "scheduler/layer_time_bound.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

#include "scheduler/layer_time.h"

namespace aurora {
namespace {

/// One GPU's value in a maximum: constant + sum over the experts on it of
///     compute * expert_us + total * pairs + local * pairs of the GPU's own tokens,
/// the factors by model.
struct Row {
  struct Factors {
    double compute = 0;
    double total = 0;
    double local = 0;
  };
  std::size_t gpu = 0;
  double constant = 0;
  std::vector<Factors> of_model;
};
using Maximum = std::vector<Row>;

/// Experts of all models as rows use them.
class DividedExperts {
 public:
  explicit DividedExperts(const LayerProblem& problem);
  /// A lower bound of the sum of the maxima over all placements.
  double least_sum(const std::vector<Maximum>& maxima, int num_steps) const;

 private:
  struct Expert {
    std::size_t model;
    int index;
    double expert_us;
    double pairs;
  };

  double value_of(const Expert& expert, const Row::Factors& factors, std::size_t gpu) const {
    return factors.compute * expert.expert_us + factors.total * expert.pairs +
           factors.local * problem_.demands[expert.model].pairs(static_cast<int>(gpu), expert.index);
  }
  bool is_allowed(const Expert& expert, std::size_t gpu) const {
    return problem_.slots[expert.model][gpu] > 0;
  }
  double alone(const std::vector<Maximum>& maxima, const Expert& expert) const;
  double weighted(const std::vector<Maximum>& maxima, const std::vector<std::vector<double>>& weights,
                  double softness, std::vector<std::vector<double>>& values) const;

  const LayerProblem& problem_;
  std::size_t num_gpus_;
  std::vector<Expert> experts_;
};

DividedExperts::DividedExperts(const LayerProblem& problem)
    : problem_(problem), num_gpus_(static_cast<std::size_t>(problem.num_gpus())) {
  for (std::size_t model = 0; model < problem.num_models(); ++model) {
    const ModelTraffic& costs = *problem.models[model];
    for (int index = 0; index < problem.demands[model].num_experts; ++index) {
      const double pairs = problem.demands[model].expert_pairs[index];
      if (pairs > 0) {
        experts_.push_back(
            {model, index, pairs * costs.expert_us_per_token + costs.expert_us_per_hit, pairs});
      }
    }
  }
}

/// The sum of the maxima as far as one expert on its best GPU makes them. What others add to the same row is
/// not negative except for local pairs, which can take away no more than the constant.
double DividedExperts::alone(const std::vector<Maximum>& maxima, const Expert& expert) const {
  double least = std::numeric_limits<double>::infinity();
  for (std::size_t gpu = 0; gpu < num_gpus_; ++gpu) {
    if (!is_allowed(expert, gpu)) continue;
    double sum = 0;
    for (const Maximum& maximum : maxima) {
      double largest = 0;
      for (const Row& row : maximum) {
        const Row::Factors& factors = row.of_model[expert.model];
        // Rows in which local pairs reduce a constant say nothing about one expert.
        if (row.gpu != gpu || factors.total + factors.local < 0) continue;
        largest = std::max(largest, value_of(expert, factors, gpu));
      }
      sum += largest;
    }
    least = std::min(least, sum);
  }
  return least;
}

/// The bound that the weights give. Leaves in `values` what the rows are when the experts go where they are
/// cheapest, divided between GPUs that are nearly so.
double DividedExperts::weighted(const std::vector<Maximum>& maxima,
                                const std::vector<std::vector<double>>& weights, double softness,
                                std::vector<std::vector<double>>& values) const {
  double bound = 0;
  std::vector<std::vector<Row::Factors>> factors(num_gpus_, std::vector<Row::Factors>(problem_.num_models()));
  for (std::size_t index = 0; index < maxima.size(); ++index) {
    for (std::size_t at = 0; at < maxima[index].size(); ++at) {
      const Row& row = maxima[index][at];
      const double weight = weights[index][at];
      values[index][at] = row.constant;
      bound += weight * row.constant;
      for (std::size_t model = 0; model < row.of_model.size(); ++model) {
        Row::Factors& sum = factors[row.gpu][model];
        sum.compute += weight * row.of_model[model].compute;
        sum.total += weight * row.of_model[model].total;
        sum.local += weight * row.of_model[model].local;
      }
    }
  }
  std::vector<double> cost(num_gpus_);
  for (const Expert& expert : experts_) {
    double least = std::numeric_limits<double>::infinity();
    for (std::size_t gpu = 0; gpu < num_gpus_; ++gpu) {
      cost[gpu] = is_allowed(expert, gpu) ? value_of(expert, factors[gpu][expert.model], gpu)
                                          : std::numeric_limits<double>::infinity();
      least = std::min(least, cost[gpu]);
    }
    bound += least;
    double sum = 0;
    for (double& part : cost) {
      part = std::exp(-(part - least) / (softness * (std::abs(least) + 1e-300)));
      sum += part;
    }
    for (std::size_t index = 0; index < maxima.size(); ++index) {
      for (std::size_t at = 0; at < maxima[index].size(); ++at) {
        const Row& row = maxima[index][at];
        if (cost[row.gpu] > 0) {
          values[index][at] += cost[row.gpu] / sum * value_of(expert, row.of_model[expert.model], row.gpu);
        }
      }
    }
  }
  return bound;
}

double DividedExperts::least_sum(const std::vector<Maximum>& maxima, int num_steps) const {
  double best = 0;
  for (const Expert& expert : experts_) best = std::max(best, alone(maxima, expert));
  std::vector<std::vector<double>> weights;
  std::vector<std::vector<double>> values;
  for (const Maximum& maximum : maxima) {
    weights.emplace_back(maximum.size(), 1 / static_cast<double>(maximum.size()));
    values.emplace_back(maximum.size());
  }
  for (int step = 0; step < num_steps; ++step) {
    const double progress = static_cast<double>(step) / num_steps;
    best = std::max(best, weighted(maxima, weights, 0.1 * std::pow(0.01, progress), values));
    for (std::size_t index = 0; index < maxima.size(); ++index) {
      const double largest = *std::max_element(values[index].begin(), values[index].end());
      if (largest <= 0) continue;
      double sum = 0;
      for (std::size_t at = 0; at < values[index].size(); ++at) {
        weights[index][at] *= std::exp(0.5 * std::pow(0.02, progress) * (values[index][at] / largest - 1));
        sum += weights[index][at];
      }
      for (double& weight : weights[index]) weight /= sum;
    }
  }
  return best;
}

/// Rows of one kind on all GPUs, of one model or several.
class RowTable {
 public:
  explicit RowTable(const LayerProblem& problem) : problem_(problem) {
    for (int gpu = 0; gpu < problem.num_gpus(); ++gpu) {
      const ClusterGpu& machine = problem.cluster->gpus[gpu];
      const double gbps = std::max(machine.port_gbps, problem.cluster->link_gbps);
      us_per_byte_.push_back(1 / (gbps * kBytesPerUsOfGbps));
    }
    for (const LayerDemand& demand : problem.demands) {
      // A row carries at most top_k pairs; without samples it is one pair.
      rows_per_pair_.push_back(demand.samples.is_empty() ? 1.0 : 1.0 / demand.samples.top_k);
    }
  }

  struct Bytes {
    std::size_t model;
    double dispatch = 0;
    double combine = 0;
  };
  /// Both sides of every port under the given exchanges; beside `gate`, its time, or `experts`, theirs.
  struct Beside {
    bool has_gate = false;
    bool has_experts = false;
  };
  Maximum sides(const std::vector<Bytes>& exchanges, const Beside& beside) const {
    Maximum rows;
    for (std::size_t gpu = 0; gpu < us_per_byte_.size(); ++gpu) {
      for (const bool is_sending : {true, false}) rows.push_back(side(gpu, is_sending, exchanges, beside));
    }
    return rows;
  }
  Maximum experts(std::size_t model) const {
    Maximum rows;
    for (std::size_t gpu = 0; gpu < us_per_byte_.size(); ++gpu) {
      Row& row = rows.emplace_back(Row{gpu, 0, std::vector<Row::Factors>(problem_.num_models())});
      row.of_model[model].compute = 1 / problem_.cluster->gpus[gpu].compute;
    }
    return rows;
  }

 private:
  Row side(std::size_t gpu, bool is_sending, const std::vector<Bytes>& exchanges, const Beside& beside) const;

  const LayerProblem& problem_;
  std::vector<double> us_per_byte_;    // [gpu]
  std::vector<double> rows_per_pair_;  // [model]
};

Row RowTable::side(std::size_t gpu, bool is_sending, const std::vector<Bytes>& exchanges,
                   const Beside& beside) const {
  Row row{gpu, 0, std::vector<Row::Factors>(problem_.num_models())};
  const double compute = problem_.cluster->gpus[gpu].compute;
  for (const Bytes& bytes : exchanges) {
    const ModelTraffic& costs = *problem_.models[bytes.model];
    const LayerDemand& demand = problem_.demands[bytes.model];
    const double us_per_pair = us_per_byte_[gpu] * rows_per_pair_[bytes.model];
    // The combine sends what the dispatch receives, and the other way round.
    const double sent = us_per_pair * (is_sending ? bytes.dispatch : bytes.combine);
    const double received = us_per_pair * (is_sending ? bytes.combine : bytes.dispatch);
    row.constant += sent * demand.tokens[gpu] * costs.top_k;
    row.of_model[bytes.model].local -= sent + received;
    row.of_model[bytes.model].total += received;
    if (beside.has_experts) row.of_model[bytes.model].compute = 1 / compute;
    if (beside.has_gate) row.constant += demand.tokens[gpu] * (costs.attention_us + costs.gate_us) / compute;
  }
  return row;
}

double largest_us(const LayerProblem& problem, std::size_t model, double us_per_token) {
  double largest = 0;
  for (std::size_t gpu = 0; gpu < problem.cluster->gpus.size(); ++gpu) {
    largest = std::max(largest, problem.demands[model].tokens[gpu] / problem.cluster->gpus[gpu].compute);
  }
  return largest * us_per_token;
}

double exclusive_bound_us(const LayerProblem& problem, int num_steps) {
  const ModelTraffic& costs = *problem.models.front();
  const DividedExperts experts(problem);
  const RowTable table(problem);
  const Maximum before = table.sides({{0, costs.dispatch_bytes_per_token, 0}}, {.has_gate = true});
  const Maximum after = table.sides({{0, 0, costs.combine_bytes_per_token}}, {.has_experts = true});
  const double together = experts.least_sum({before, after}, num_steps);
  const double apart = experts.least_sum({before}, num_steps) + experts.least_sum({after}, num_steps);
  return std::max(together, apart) + largest_us(problem, 0, costs.aggregate_us);
}

double colocated_bound_us(const LayerProblem& problem, int num_steps) {
  const DividedExperts experts(problem);
  const RowTable table(problem);
  std::vector<PhaseMaxima> maxima;
  std::vector<RowTable::Bytes> wire;
  for (std::size_t model = 0; model < problem.num_models(); ++model) {
    const ModelTraffic& costs = *problem.models[model];
    PhaseMaxima& least = maxima.emplace_back();
    least.gate_us = largest_us(problem, model, costs.attention_us + costs.gate_us);
    least.aggregate_us = largest_us(problem, model, costs.aggregate_us);
    least.expert_us = experts.least_sum({table.experts(model)}, num_steps);
    const double dispatch = costs.dispatch_bytes_per_token;
    const double combine = costs.combine_bytes_per_token;
    least.dispatch_us = experts.least_sum({table.sides({{model, dispatch, 0}}, {})}, num_steps);
    least.combine_us = experts.least_sum({table.sides({{model, 0, combine}}, {})}, num_steps);
    wire.push_back({model, dispatch, 0});
    least.dispatch_wire_us = experts.least_sum({table.sides(wire, {})}, num_steps);
  }
  for (std::size_t model = 0; model < problem.num_models(); ++model) {
    wire[model].combine = problem.models[model]->combine_bytes_per_token;
    maxima[model].combine_wire_us = experts.least_sum({table.sides(wire, {})}, num_steps);
  }
  return colocated_layer_time_us(std::span<const PhaseMaxima>(maxima));
}

}  // namespace

double layer_time_bound_us(const LayerProblem& problem, int num_steps) {
  return problem.num_models() == 1 ? exclusive_bound_us(problem, num_steps)
                                   : colocated_bound_us(problem, num_steps);
}

}  // namespace aurora
