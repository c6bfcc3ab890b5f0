#include "launch/plan_table.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/error.h"

namespace aurora {
namespace {

constexpr double kMebibyte = 1 << 20;

std::string share_text(double share) {
  return share < 1 - 1e-9 ? fmt::format("({:.0f}%)", share * 100) : std::string();
}

/// One line of the table below a model's headline.
struct Row {
  std::string experts;
  double load = 1;
  bool operator==(const Row&) const = default;
};

/// Rows of one layer, by rank.
std::vector<Row> layer_rows(const LayerPlacement& placement, int num_ranks,
                            const std::vector<double>& tokens) {
  const std::vector<double> loads = rank_loads(placement, num_ranks, tokens);
  std::vector<Row> rows;
  for (int rank = 0; rank < num_ranks; ++rank) {
    rows.push_back({expert_list(placement, GpuId{rank}), loads[static_cast<std::size_t>(rank)]});
  }
  return rows;
}

void append_layers(std::string& text, std::size_t first, std::size_t last, const std::vector<Row>& rows) {
  const std::string layers = first == last ? std::to_string(first) : fmt::format("{}-{}", first, last);
  std::size_t width = 7;
  for (const Row& row : rows) width = std::max(width, row.experts.size());
  text += fmt::format("  {:>7}  {:>4}  {:<{}}  {:>5}\n", "layer", "rank", "experts", width, "load");
  for (std::size_t rank = 0; rank < rows.size(); ++rank) {
    text += fmt::format("  {:>7}  {:>4}  {:<{}}  {:>4.2f}x\n", rank == 0 ? layers : "", rank,
                        rows[rank].experts, width, rows[rank].load);
  }
}

std::vector<double> tokens_of_layer(const PlannedModel& model, std::size_t layer) {
  return layer < model.expert_tokens.size() ? model.expert_tokens[layer] : std::vector<double>();
}

void append_memory(std::string& text, const PlannedModel& model, const ModelPlacement& placement,
                   const MemoryTerms& terms) {
  text += fmt::format("  {:>4}  {:>14}  {:>14}  {:>12}  {:>12}  {:>10}\n", "rank", "shared weights",
                      "expert weights", "KV cache", "workspaces", "sum (MiB)");
  const auto mebibytes = [](std::int64_t bytes) { return static_cast<double>(bytes) / kMebibyte; };
  for (int rank = 0; rank < terms.num_ranks; ++rank) {
    const ModelMemory memory = model_memory(model.options, model.config, placement, GpuId{rank}, terms);
    text += fmt::format("  {:>4}  {:>14.1f}  {:>14.1f}  {:>12.1f}  {:>12.1f}  {:>10.1f}\n", rank,
                        mebibytes(memory.shared_weight_bytes), mebibytes(memory.expert_weight_bytes),
                        mebibytes(memory.kv_cache_bytes), mebibytes(memory.workspace_bytes),
                        mebibytes(memory.sum()));
  }
}

void append_model(std::string& text, const PlannedModel& model, const ModelPlacement& placement,
                  const MemoryTerms& terms) {
  text += fmt::format("\n{}: {}, {} MoE layers, {} experts, {} per token, {}; load {}\n", model.options.name,
                      architecture_name(model.config.architecture), placement.layers.size(),
                      model.config.num_experts, model.config.top_k, dtype_name(model.options.dtype),
                      model.expert_tokens.empty() ? "if all experts are equally busy"
                                                  : "predicted from " + model.options.traffic.string());
  std::size_t first = 0;
  std::vector<Row> rows;
  for (std::size_t layer = 0; layer < placement.layers.size(); ++layer) {
    std::vector<Row> next =
        layer_rows(placement.layers[layer], terms.num_ranks, tokens_of_layer(model, layer));
    if (layer > 0 && next != rows) {
      append_layers(text, first, layer - 1, rows);
      first = layer;
    }
    rows = std::move(next);
  }
  if (!placement.layers.empty()) append_layers(text, first, placement.layers.size() - 1, rows);
  append_memory(text, model, placement, terms);
}

}  // namespace

std::vector<double> rank_loads(const LayerPlacement& placement, int num_ranks,
                               const std::vector<double>& expert_tokens) {
  std::vector<double> loads(static_cast<std::size_t>(num_ranks), 0.0);
  for (std::size_t expert = 0; expert < placement.experts.size(); ++expert) {
    const double tokens = expert < expert_tokens.size() ? expert_tokens[expert] : 1.0;
    for (const ExpertReplica& replica : placement.experts[expert]) {
      loads[static_cast<std::size_t>(replica.gpu.value)] += tokens * replica.share;
    }
  }
  const double total = std::accumulate(loads.begin(), loads.end(), 0.0);
  for (double& load : loads) load = total > 0 ? load * num_ranks / total : 1.0;
  return loads;
}

std::string expert_list(const LayerPlacement& placement, GpuId gpu) {
  const auto share_of = [&](ExpertId expert) {
    for (const ExpertReplica& replica : placement.experts[static_cast<std::size_t>(expert.value)]) {
      if (replica.gpu == gpu) return replica.share;
    }
    return 0.0;
  };
  const std::vector<ExpertId> experts = placement.experts_on(gpu);
  std::string text;
  for (std::size_t i = 0; i < experts.size();) {
    const std::string share = share_text(share_of(experts[i]));
    std::size_t end = i + 1;
    while (end < experts.size() && experts[end].value == experts[end - 1].value + 1 &&
           share_text(share_of(experts[end])) == share) {
      ++end;
    }
    text += fmt::format("{}{}", text.empty() ? "" : " ", experts[i].value);
    if (end > i + 1) text += fmt::format("-{}", experts[end - 1].value);
    text += share;
    i = end;
  }
  return text.empty() ? "-" : text;
}

std::string plan_table(const DeploymentPlan& plan, const std::vector<PlannedModel>& models,
                       std::optional<DType> wire_dtype) {
  std::string text =
      fmt::format("Deployment plan: {} ranks, placement {}, order {}, epoch {}\n", plan.num_gpus,
                  plan.placement_policy, order_policy_name(plan.order_policy), plan.epoch);
  for (const PlannedModel& model : models) {
    const ModelPlacement* placement = plan.find(model.options.name);
    check(placement != nullptr, "the plan places every model");
    append_model(text, model, *placement, {plan.num_gpus, wire_dtype});
  }
  return text;
}

}  // namespace aurora
