#include "runtime/rank_memory.h"

#include <algorithm>
#include <utility>

#include "runtime/dispatch/row_layout.h"
#include "runtime/executor/served_model.h"
#include "runtime/moe/moe_context.h"

namespace aurora {
namespace {

/// Workspaces grow by a quarter more than was asked for (runtime/dispatch/workspace.h).
std::int64_t with_slack(std::int64_t bytes) { return bytes + bytes / 4; }

std::int64_t decoder_workspace_bytes(const ModelOptions& options, const ModelConfig& config) {
  const auto element = static_cast<std::int64_t>(dtype_bytes(options.dtype));
  constexpr std::int64_t kWide = sizeof(float);  // of the residual stream and logits
  const std::int64_t heads = 2 * (config.num_heads + config.num_kv_heads) * config.head_width;
  const std::int64_t per_token =
      config.hidden * (kWide + element) + heads * element + 2 * config.dense_inner * element;
  const std::int64_t per_output = config.hidden * (kWide + element) + config.vocabulary * kWide;
  const std::int64_t longest =
      options.max_sequence_tokens > 0 ? options.max_sequence_tokens : config.max_positions;
  const std::int64_t rope = longest * config.head_width * kWide;
  return options.max_batch_tokens * per_token + options.max_batch_requests * per_output + rope;
}

std::int64_t gate_bytes(const ModelOptions& options, const ModelConfig& config) {
  constexpr std::int64_t kWide = sizeof(float);
  return options.max_batch_tokens * (config.num_experts + 2 * config.top_k) * kWide;
}

std::int64_t shared_expert_bytes(const ModelOptions& options, const ModelConfig& config) {
  constexpr std::int64_t kWide = sizeof(float);
  return options.max_batch_tokens * (2 * config.shared_expert_inner + config.hidden) * kWide;
}

/// Inputs, activations and outputs of so many pairs of token and expert.
std::int64_t expert_ffn_bytes(const ModelOptions& options, const ModelConfig& config, std::int64_t pairs) {
  // The CPU gathers inputs and keeps gate and up apart; a GPU needs the activations alone.
  const auto element = static_cast<std::int64_t>(dtype_bytes(options.dtype));
  return pairs * (2 * config.hidden + 2 * config.expert_inner) * element;
}

/// Where the tokens' pairs meet their experts in place (runtime/moe/local_side.h).
std::int64_t local_workspace_bytes(const ModelOptions& options, const ModelConfig& config) {
  const std::int64_t tokens = options.max_batch_tokens;
  const std::int64_t pairs = tokens * config.top_k;
  // Positions and terms, int32 each; the scratch of their counting is no larger.
  const std::int64_t indices = (2 * (2 * pairs + config.num_experts + 1) + tokens + 1) *
                               static_cast<std::int64_t>(sizeof(std::int32_t));
  return indices + expert_ffn_bytes(options, config, pairs);
}

/// Where they are dispatched, and results come back.
std::int64_t dispatch_workspace_bytes(const ModelOptions& options, const ModelConfig& config,
                                      const MemoryTerms& terms) {
  const RowLayout layout(config.hidden, wire_types(terms.wire_dtype, options.dtype),
                         static_cast<int>(config.top_k));
  const std::int64_t tokens = options.max_batch_tokens;
  const std::int64_t sent_rows = tokens * std::min<std::int64_t>(config.top_k, terms.num_ranks);
  const std::int64_t received_rows = tokens * terms.num_ranks;
  const std::int64_t pairs = received_rows * config.top_k;
  const auto row = static_cast<std::int64_t>(layout.row_bytes());
  const auto returned = static_cast<std::int64_t>(layout.return_row_bytes());
  // Headers, positions and terms, int32 each; the scratch of their counting is smaller than these.
  const std::int64_t indices =
      (2 * sent_rows * (2 * config.top_k + 1) + 2 * tokens * config.top_k + received_rows + 4 * pairs) *
      static_cast<std::int64_t>(sizeof(std::int32_t));
  const bool is_dequantized = terms.wire_dtype == DType::kFloat8E4M3;
  const std::int64_t dequantized =
      is_dequantized ? received_rows * config.hidden * std::int64_t{sizeof(float)} : 0;
  // Deterministic runs return a row for each pair, others one for each row.
  const std::int64_t results = (pairs + tokens * config.top_k) * returned;
  return indices + expert_ffn_bytes(options, config, pairs) + (sent_rows + received_rows) * row +
         dequantized + results;
}

std::int64_t moe_workspace_bytes(const ModelOptions& options, const ModelConfig& config,
                                 const MemoryTerms& terms) {
  // In the return mode that dispatches more often, which takes more.
  const bool is_local = stays_on_rank(terms.num_ranks, ReturnMode::kPerPair,
                                      wire_types(terms.wire_dtype, options.dtype), options.dtype);
  return gate_bytes(options, config) + shared_expert_bytes(options, config) +
         (is_local ? local_workspace_bytes(options, config)
                   : dispatch_workspace_bytes(options, config, terms));
}

std::string gibibytes(std::int64_t bytes) {
  const std::int64_t hundredths = (bytes * 100 + (std::int64_t{1} << 29)) >> 30;
  const std::string fraction = std::to_string(hundredths % 100);
  return std::to_string(hundredths / 100) + (fraction.size() == 1 ? ".0" : ".") + fraction + " GiB";
}

/// The largest part of a rank's needs, and what makes it smaller.
std::string largest_part(const RankMemory& rank) {
  std::int64_t most = -1;
  std::string text;
  for (const ModelMemory& model : rank.models) {
    const std::pair<std::int64_t, const char*> parts[] = {
        {model.shared_weight_bytes, "weights that every rank holds; take dtype bfloat16 or a larger GPU"},
        {model.expert_weight_bytes, "expert weights; start more ranks on more GPUs"},
        {model.kv_cache_bytes, "key/value cache; lower kv_cache_mb"},
        {model.workspace_bytes, "workspaces; lower max_batch_tokens"}};
    for (const auto& [bytes, what] : parts) {
      if (bytes <= most) continue;
      most = bytes;
      text = "the largest part is " + gibibytes(bytes) + " of model " + model.model + "'s " + what;
    }
  }
  return text;
}

}  // namespace

ModelMemory model_memory(const ModelOptions& options, const ModelConfig& config,
                         const ModelPlacement& placement, GpuId gpu, const MemoryTerms& terms) {
  std::int64_t num_experts = 0;
  for (const LayerPlacement& layer : placement.layers) {
    num_experts += static_cast<std::int64_t>(layer.experts_on(gpu).size());
  }
  const KvCacheShape cache = planned_cache(options, config);
  return {.model = options.name,
          .shared_weight_bytes =
              num_shared_elements(config) * static_cast<std::int64_t>(dtype_bytes(options.dtype)),
          .expert_weight_bytes = num_experts * expert_bytes(config, options.dtype),
          .kv_cache_bytes = cache.num_blocks * cache.block_bytes(),
          .workspace_bytes = terms.num_lanes * with_slack(decoder_workspace_bytes(options, config) +
                                                          moe_workspace_bytes(options, config, terms))};
}

std::int64_t RankMemory::sum() const {
  std::int64_t bytes = 0;
  for (const ModelMemory& model : models) bytes += model.sum();
  return bytes;
}

std::optional<std::string> memory_shortage(const std::vector<RankMemory>& ranks, int rank) {
  const RankMemory& own = ranks[static_cast<std::size_t>(rank)];
  if (own.device.total_bytes == 0) return std::nullopt;
  std::int64_t needed = 0;
  int num_sharing = 0;
  std::int64_t free = own.device.free_bytes;
  for (const RankMemory& other : ranks) {
    if (other.device.name != own.device.name) continue;
    needed += other.sum() + own.device.overhead_bytes;
    ++num_sharing;
    free = std::min(free, other.device.free_bytes);  // each looked at a moment of its own
  }
  if (needed <= free) return std::nullopt;
  std::string text = own.device.name + " has " + gibibytes(free) + " of " +
                     gibibytes(own.device.total_bytes) + " free, and " + gibibytes(needed) + " are needed";
  if (num_sharing > 1) {
    text += " by the " + std::to_string(num_sharing) + " ranks that share it, " + gibibytes(own.sum()) +
            " by this one";
  }
  return text + "; " + largest_part(own);
}

std::optional<std::string> move_shortage(const std::vector<DeviceMemory>& devices,
                                         const std::vector<std::int64_t>& added) {
  for (const DeviceMemory& device : devices) {
    if (device.total_bytes == 0) continue;
    std::int64_t needed = 0;
    std::int64_t free = device.free_bytes;
    for (std::size_t rank = 0; rank < devices.size(); ++rank) {
      if (devices[rank].name != device.name) continue;
      needed += added[rank];
      free = std::min(free, devices[rank].free_bytes);  // each looked at a moment of its own
    }
    if (needed <= free) continue;
    return device.name + " has " + gibibytes(free) + " of " + gibibytes(device.total_bytes) +
           " free, and experts of " + gibibytes(needed) + " would move there before others leave";
  }
  return std::nullopt;
}

}  // namespace aurora
