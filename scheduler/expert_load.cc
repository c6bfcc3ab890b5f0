#include "scheduler/expert_load.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

#include "scheduler/replica_shares.h"

namespace aurora {
namespace {

/// Counts may be means over steps, so they need not be whole; sums are compared with this tolerance.
constexpr double kRelativeTolerance = 1e-6;

[[noreturn]] void refuse(const std::string& where, const std::string& text) {
  throw std::invalid_argument(where + ": " + text);
}

void validate_number(double value, const std::string& where, const std::string& name) {
  if (std::isfinite(value) && value >= 0) return;
  refuse(where, name + " is " + std::to_string(value) + "; it must be finite and not negative");
}

void validate_counts(const std::vector<double>& counts, const ModelTraffic& model, const std::string& where) {
  if (counts.size() != static_cast<std::size_t>(model.num_experts)) {
    refuse(where, "it has " + std::to_string(counts.size()) + " counts, the model has " +
                      std::to_string(model.num_experts) + " experts");
  }
  double sum = 0;
  bool is_whole = !model.is_mean;
  for (std::size_t expert = 0; expert < counts.size(); ++expert) {
    validate_number(counts[expert], where + ", expert " + std::to_string(expert), "the count");
    sum += counts[expert];
    is_whole = is_whole && counts[expert] == std::floor(counts[expert]);
  }
  validate_number(sum, where, "the sum of all counts");
  const double tokens = sum / model.top_k;
  if (is_whole && sum < 0x1p53 && std::fmod(sum, model.top_k) != 0) {
    refuse(where, "its counts sum to " + std::to_string(sum) + ", which is not a multiple of top_k = " +
                      std::to_string(model.top_k) + "; every token has top_k experts");
  }
  for (std::size_t expert = 0; expert < counts.size(); ++expert) {
    if (counts[expert] <= tokens * (1 + kRelativeTolerance)) continue;
    refuse(where, "expert " + std::to_string(expert) + " has " + std::to_string(counts[expert]) + " of " +
                      std::to_string(tokens) +
                      " tokens (sum of counts / top_k); a token goes to an expert once");
  }
}

void validate_sample(const std::vector<ExpertId>& sample, const ModelTraffic& model,
                     const std::string& where) {
  if (sample.size() != static_cast<std::size_t>(model.top_k)) {
    refuse(where,
           "it has " + std::to_string(sample.size()) + " experts, top_k is " + std::to_string(model.top_k));
  }
  for (std::size_t index = 0; index < sample.size(); ++index) {
    if (sample[index].value < 0 || sample[index].value >= model.num_experts) {
      refuse(where, "expert " + std::to_string(sample[index].value) + "; the model has experts 0 to " +
                        std::to_string(model.num_experts - 1));
    }
    for (std::size_t before = 0; before < index; ++before) {
      if (sample[before] == sample[index]) {
        refuse(where, "expert " + std::to_string(sample[index].value) + " appears twice");
      }
    }
  }
}

void validate_layer(const LayerTraffic& layer, const ModelTraffic& model, const std::string& where) {
  if (layer.dispatch.empty()) refuse(where, "it has no source");
  for (std::size_t source = 0; source < layer.dispatch.size(); ++source) {
    validate_counts(layer.dispatch[source], model, where + ", source " + std::to_string(source));
  }
  if (!layer.samples.empty() && layer.samples.size() != layer.dispatch.size()) {
    refuse(where, "it has samples of " + std::to_string(layer.samples.size()) + " sources and counts of " +
                      std::to_string(layer.dispatch.size()));
  }
  for (std::size_t source = 0; source < layer.samples.size(); ++source) {
    for (std::size_t index = 0; index < layer.samples[source].size(); ++index) {
      validate_sample(layer.samples[source][index], model,
                      where + ", source " + std::to_string(source) + ", sample " + std::to_string(index));
    }
  }
}

}  // namespace

void validate(const ModelTraffic& traffic) {
  const std::string where = "traffic of model \"" + traffic.model + "\"";
  if (traffic.num_experts < 1) {
    refuse(where, "number of experts is " + std::to_string(traffic.num_experts) + "; at least 1 is needed");
  }
  if (traffic.top_k < 1 || traffic.top_k > traffic.num_experts) {
    refuse(where, "top_k is " + std::to_string(traffic.top_k) +
                      "; it lies between 1 and the number of experts, " +
                      std::to_string(traffic.num_experts));
  }
  validate_number(traffic.dispatch_bytes_per_token, where, "dispatch_bytes_per_token");
  validate_number(traffic.combine_bytes_per_token, where, "combine_bytes_per_token");
  validate_number(traffic.expert_bytes, where, "expert_bytes");
  validate_number(traffic.attention_us, where, "attention_us");
  validate_number(traffic.gate_us, where, "gate_us");
  validate_number(traffic.expert_us_per_token, where, "expert_us_per_token");
  validate_number(traffic.expert_us_per_hit, where, "expert_us_per_hit");
  validate_number(traffic.aggregate_us, where, "aggregate_us");
  for (std::size_t layer = 0; layer < traffic.layers.size(); ++layer) {
    validate_layer(traffic.layers[layer], traffic, where + ", layer " + std::to_string(layer));
  }
}

ModelTraffic uniform_traffic(const UniformTrafficArgs& args) {
  if (args.num_layers < 0 || args.num_gpus < 1) {
    throw std::invalid_argument("uniform traffic: " + std::to_string(args.num_layers) + " layers on " +
                                std::to_string(args.num_gpus) + " GPUs");
  }
  ModelTraffic traffic;
  traffic.model = args.model;
  traffic.num_experts = args.num_experts;
  traffic.top_k = args.top_k;
  traffic.dispatch_bytes_per_token = 1;
  traffic.combine_bytes_per_token = 1;
  validate(traffic);
  const double count = args.tokens_per_gpu * args.top_k / args.num_experts;
  LayerTraffic layer;
  layer.dispatch.assign(static_cast<std::size_t>(args.num_gpus),
                        std::vector<double>(static_cast<std::size_t>(args.num_experts), count));
  traffic.layers.assign(static_cast<std::size_t>(args.num_layers), layer);
  return traffic;
}

namespace {

/// The samples as the cluster's GPUs have them. Those of another number of sources are dealt out in turns.
SampledTokens sampled_tokens(const LayerTraffic& traffic, const ModelTraffic& model, std::size_t num_gpus) {
  SampledTokens tokens;
  tokens.top_k = model.top_k;
  const bool is_dealt = traffic.samples.size() != num_gpus;
  std::size_t num_tokens = 0;
  for (const auto& of_source : traffic.samples) num_tokens += of_source.size();
  tokens.experts.reserve(num_tokens * static_cast<std::size_t>(model.top_k));
  tokens.first_of_source.push_back(0);
  for (std::size_t gpu = 0; gpu < num_gpus && !traffic.samples.empty(); ++gpu) {
    const std::size_t first = is_dealt ? 0 : gpu;
    const std::size_t last = is_dealt ? traffic.samples.size() : gpu + 1;
    std::size_t dealt = 0;
    for (std::size_t source = first; source < last; ++source) {
      for (const std::vector<ExpertId>& experts : traffic.samples[source]) {
        if (is_dealt && dealt++ % num_gpus != gpu) continue;
        for (const ExpertId expert : experts) tokens.experts.push_back(expert.value);
      }
    }
    tokens.first_of_source.push_back(tokens.experts.size() / static_cast<std::size_t>(model.top_k));
  }
  return tokens;
}

}  // namespace

LayerDemand::LayerDemand(const LayerTraffic& traffic, const ModelTraffic& model, int gpus)
    : num_gpus(gpus),
      num_experts(model.num_experts),
      samples(sampled_tokens(traffic, model, static_cast<std::size_t>(gpus))) {
  const auto n = static_cast<std::size_t>(num_gpus);
  const auto num_sources = traffic.dispatch.size();
  pairs_by_expert.assign(static_cast<std::size_t>(num_experts) * n, 0);
  expert_pairs.assign(static_cast<std::size_t>(num_experts), 0);
  tokens.assign(n, 0);
  for (std::size_t source = 0; source < num_sources; ++source) {
    for (std::size_t expert = 0; expert < traffic.dispatch[source].size(); ++expert) {
      const double count = traffic.dispatch[source][expert];
      expert_pairs[expert] += count;
      if (num_sources == n) pairs_by_expert[expert * n + source] += count;
    }
  }
  for (std::size_t expert = 0; expert < expert_pairs.size(); ++expert) {
    for (std::size_t gpu = 0; gpu < n; ++gpu) {
      double& here = pairs_by_expert[expert * n + gpu];
      if (num_sources != n) here = expert_pairs[expert] / num_gpus;
      tokens[gpu] += here / model.top_k;
    }
  }
}

namespace {

/// [expert][replica]; empty for the experts of one copy, which are most of them and take all.
std::vector<std::vector<double>> all_shares_from(std::size_t source, const LayerPlacement& placement,
                                                 int num_gpus) {
  std::vector<std::vector<double>> shares(placement.experts.size());
  for (std::size_t expert = 0; expert < shares.size(); ++expert) {
    const std::vector<ExpertReplica>& replicas = placement.experts[expert];
    if (replicas.size() == 1) continue;
    shares[expert] = shares_from(replicas, GpuId{static_cast<std::int32_t>(source)}, num_gpus);
  }
  return shares;
}

/// Sampled pairs and rows between GPUs, row-major [source][destination].
struct SampledRows {
  std::vector<double> pairs;
  std::vector<double> rows;
};

/// A pair of a replicated expert goes to each replica with the source's share; a row goes to a GPU with the
/// probability that at least one of the token's pairs does.
SampledRows count_samples(const LayerDemand& demand, const LayerPlacement& placement) {
  const auto n = static_cast<std::size_t>(demand.num_gpus);
  SampledRows sampled{std::vector<double>(n * n), std::vector<double>(n * n)};
  std::vector<double> miss(n, 1.0);  // probability that none of the token's pairs goes to the GPU
  std::vector<std::size_t> touched;
  for (std::size_t source = 0; source + 1 < demand.samples.first_of_source.size(); ++source) {
    const std::vector<std::vector<double>> shares = all_shares_from(source, placement, demand.num_gpus);
    for (std::size_t token = demand.samples.first_of_source[source];
         token < demand.samples.first_of_source[source + 1]; ++token) {
      for (const std::int32_t expert : demand.samples.experts_of(token)) {
        const std::vector<ExpertReplica>& replicas = placement.experts[expert];
        for (std::size_t index = 0; index < replicas.size(); ++index) {
          const auto gpu = static_cast<std::size_t>(replicas[index].gpu.value);
          const double share = shares[expert].empty() ? 1 : shares[expert][index];
          sampled.pairs[source * n + gpu] += share;
          miss[gpu] *= 1 - share;
          touched.push_back(gpu);
        }
      }
      for (const std::size_t gpu : touched) {
        sampled.rows[source * n + gpu] += 1 - miss[gpu];
        miss[gpu] = 1;  // a GPU that was touched twice adds nothing the second time
      }
      touched.clear();
    }
  }
  return sampled;
}

}  // namespace

std::vector<double> exchange_rows(const LayerDemand& demand, const LayerPlacement& placement) {
  const auto n = static_cast<std::size_t>(demand.num_gpus);
  std::vector<double> rows(n * n);
  const auto add = [&](int source, GpuId gpu, double pairs) {
    rows[static_cast<std::size_t>(source) * n + static_cast<std::size_t>(gpu.value)] += pairs;
  };
  for (int expert = 0; expert < demand.num_experts; ++expert) {
    const std::vector<ExpertReplica>& replicas = placement.experts[expert];
    for (int source = 0; source < demand.num_gpus; ++source) {
      const double pairs = demand.pairs(source, expert);
      if (replicas.size() == 1) {
        add(source, replicas.front().gpu, pairs);
        continue;
      }
      const std::vector<double> shares = shares_from(replicas, GpuId{source}, demand.num_gpus);
      for (std::size_t index = 0; index < replicas.size(); ++index) {
        add(source, replicas[index].gpu, pairs * shares[index]);
      }
    }
  }
  if (demand.samples.is_empty()) return rows;
  const SampledRows sampled = count_samples(demand, placement);
  for (std::size_t index = 0; index < rows.size(); ++index) {
    if (sampled.pairs[index] > 0) rows[index] *= sampled.rows[index] / sampled.pairs[index];
  }
  return rows;
}

std::vector<double> pairs_of_replicas(const LayerDemand& demand, const LayerPlacement& placement,
                                      int expert) {
  const std::vector<ExpertReplica>& replicas = placement.experts[expert];
  if (replicas.size() == 1) return {demand.expert_pairs[expert]};
  std::vector<double> pairs(replicas.size(), 0.0);
  for (int source = 0; source < demand.num_gpus; ++source) {
    const std::vector<double> shares = shares_from(replicas, GpuId{source}, demand.num_gpus);
    for (std::size_t index = 0; index < replicas.size(); ++index) {
      pairs[index] += demand.pairs(source, expert) * shares[index];
    }
  }
  return pairs;
}

TrafficMatrix dispatch_bytes(const ModelTraffic& model, int layer, const LayerPlacement& placement,
                             int num_gpus) {
  const std::vector<double> rows =
      exchange_rows(LayerDemand(model.layers.at(layer), model, num_gpus), placement);
  std::vector<Bytes> bytes;
  for (const double count : rows) bytes.push_back(std::llround(count * model.dispatch_bytes_per_token));
  return {num_gpus, bytes};
}

TrafficMatrix combine_bytes(const ModelTraffic& model, int layer, const LayerPlacement& placement,
                            int num_gpus) {
  const std::vector<double> rows =
      exchange_rows(LayerDemand(model.layers.at(layer), model, num_gpus), placement);
  std::vector<Bytes> bytes;
  for (const double count : rows) bytes.push_back(std::llround(count * model.combine_bytes_per_token));
  return TrafficMatrix(num_gpus, bytes).transposed();
}

}  // namespace aurora
