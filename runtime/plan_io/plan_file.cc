#include "runtime/plan_io/plan_file.h"

#include <stdexcept>

#include "runtime/plan_io/json_fields.h"

namespace aurora {
namespace {

using nlohmann::json;

/// Larger clusters and models than exist; a bound on what a file can make us allocate.
constexpr std::int64_t kMaxGpus = 1 << 16;

json layer_json(const LayerPlacement& layer) {
  json experts = json::array();
  for (const auto& replicas : layer.experts) {
    json list = json::array();
    for (const ExpertReplica& replica : replicas) {
      list.push_back({{"gpu", replica.gpu.value}, {"share", replica.share}});
    }
    experts.push_back(std::move(list));
  }
  return {{"experts", std::move(experts)}};
}

ExpertReplica read_replica(const JsonPlace& place, std::int64_t num_gpus) {
  place.expect_keys({"gpu", "share"});
  const auto gpu = static_cast<std::int32_t>(place.at("gpu").integer(0, num_gpus - 1));
  return {GpuId{gpu}, place.quantity_or("share", 1.0)};
}

LayerPlacement read_layer(const JsonPlace& place, std::int64_t num_gpus) {
  place.expect_keys({"experts"});
  const JsonPlace experts = place.at("experts");
  LayerPlacement layer;
  for (std::size_t expert = 0; expert < experts.size_of_list(); ++expert) {
    const JsonPlace replicas = experts.at(expert);
    auto& list = layer.experts.emplace_back();
    for (std::size_t i = 0; i < replicas.size_of_list(); ++i)
      list.push_back(read_replica(replicas.at(i), num_gpus));
  }
  return layer;
}

ModelPlacement read_model(const JsonPlace& place, std::int64_t num_gpus) {
  place.expect_keys({"model", "layers"});
  ModelPlacement model;
  model.model = place.at("model").text();
  const JsonPlace layers = place.at("layers");
  for (std::size_t layer = 0; layer < layers.size_of_list(); ++layer) {
    model.layers.push_back(read_layer(layers.at(layer), num_gpus));
  }
  return model;
}

}  // namespace

std::string plan_text(const DeploymentPlan& plan) {
  json models = json::array();
  for (const ModelPlacement& model : plan.models) {
    json layers = json::array();
    for (const LayerPlacement& layer : model.layers) layers.push_back(layer_json(layer));
    models.push_back({{"model", model.model}, {"layers", std::move(layers)}});
  }
  const json document = {{"version", 1},
                         {"epoch", plan.epoch},
                         {"num_gpus", plan.num_gpus},
                         {"placement", plan.placement_policy},
                         {"order", order_policy_name(plan.order_policy)},
                         {"models", std::move(models)}};
  return document.dump() + "\n";
}

DeploymentPlan parse_plan(std::string_view text, const std::string& origin) {
  const json document = parse_json_text(text, origin);
  const JsonPlace root(document, origin + ": ");
  root.expect_keys({"version", "epoch", "num_gpus", "placement", "order", "models"});
  root.at("version").integer(1, 1);
  DeploymentPlan plan;
  plan.epoch = static_cast<std::uint64_t>(root.has("epoch") ? root.at("epoch").integer(0, INT64_MAX) : 1);
  plan.num_gpus = static_cast<int>(root.at("num_gpus").integer(1, kMaxGpus));
  plan.placement_policy = root.has("placement") ? root.at("placement").text() : "file";
  if (root.has("order")) {
    const JsonPlace order = root.at("order");
    const auto policy = parse_order_policy(order.text());
    if (!policy) order.refuse("unknown order policy \"" + order.text() + "\"");
    plan.order_policy = *policy;
  }
  const JsonPlace models = root.at("models");
  for (std::size_t model = 0; model < models.size_of_list(); ++model) {
    plan.models.push_back(read_model(models.at(model), plan.num_gpus));
  }
  try {
    validate(plan);
  } catch (const std::invalid_argument& error) {
    throw Error(ErrorKind::kFormat, origin + ": " + error.what());
  }
  return plan;
}

DeploymentPlan read_plan_file(const std::filesystem::path& file) {
  return parse_plan(read_whole_file(file), file.string());
}

}  // namespace aurora
