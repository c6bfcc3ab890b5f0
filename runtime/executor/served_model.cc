#include "runtime/executor/served_model.h"

#include <algorithm>
#include <exception>

namespace aurora {
namespace {

std::optional<Tokenizer> load_tokenizer(const std::filesystem::path& folder) {
  if (!std::filesystem::exists(folder / "tokenizer.json")) return std::nullopt;
  return Tokenizer::load(folder);
}

}  // namespace

KvCacheShape planned_cache(const ModelOptions& options, const ModelConfig& config) {
  KvCacheShape shape{.num_layers = config.num_layers,
                     .num_blocks = 0,
                     .block_tokens = options.kv_block_tokens,
                     .num_kv_heads = config.num_kv_heads,
                     .head_width = config.head_width,
                     .dtype = options.dtype};
  // More blocks than all running requests can fill would never be used.
  const std::int64_t longest = options.max_sequence_tokens > 0
                                   ? std::min(options.max_sequence_tokens, config.max_positions)
                                   : config.max_positions;
  const std::int64_t useful =
      options.max_batch_requests * ((longest + shape.block_tokens - 1) / shape.block_tokens);
  shape.num_blocks = std::min(options.kv_cache_bytes / shape.block_bytes(), useful);
  return shape;
}

ServedModel::ServedModel(const ModelOptions& options)
    : options_(options),
      config_(read_model_config(options.checkpoint)),
      checkpoint_(Checkpoint::open(options.checkpoint)),
      tokenizer_(load_tokenizer(options.checkpoint)) {
  check_checkpoint(config_, checkpoint_);
  check_limits();
  if (!options_.replay_routing.empty()) {
    replay_.emplace(read_routing_record(options_.replay_routing), options_.name, config_.num_moe_layers(),
                    config_.num_experts, config_.top_k);
  }
  traffic_.emplace(num_moe_layers(), static_cast<int>(config_.num_experts), static_cast<int>(config_.top_k));
}

ServedModel::~ServedModel() = default;

void ServedModel::finish_work(Deadline deadline) noexcept {
  try {
    if (stream_ != nullptr) stream_->synchronize(deadline);
  } catch (const std::exception&) {
  }
}

std::int64_t ServedModel::num_cache_blocks() const { return planned_cache(options_, config_).num_blocks; }

std::int64_t ServedModel::max_sequence_tokens() const {
  std::int64_t limit = std::min(config_.max_positions, num_cache_blocks() * options_.kv_block_tokens);
  if (options_.max_sequence_tokens > 0) limit = std::min(limit, options_.max_sequence_tokens);
  return limit;
}

void ServedModel::check_limits() const {
  const auto refuse = [&](const std::string& text) {
    throw Error(ErrorKind::kInvalidArgument, "model " + options_.name + ": " + text);
  };
  const auto require_positive = [&](const char* name, std::int64_t value) {
    if (value < 1) refuse(std::string(name) + " is " + std::to_string(value) + "; it must be at least 1");
  };
  require_positive("max_batch_tokens", options_.max_batch_tokens);
  require_positive("max_batch_requests", options_.max_batch_requests);
  require_positive("kv_block_tokens", options_.kv_block_tokens);
  if (options_.max_batch_requests > options_.max_batch_tokens) {
    refuse("max_batch_requests (" + std::to_string(options_.max_batch_requests) +
           ") exceeds max_batch_tokens (" + std::to_string(options_.max_batch_tokens) +
           "): every running request takes at least one token a step");
  }
  if (options_.max_sequence_tokens > config_.max_positions) {
    refuse("max_sequence_tokens is " + std::to_string(options_.max_sequence_tokens) + ", the model allows " +
           std::to_string(config_.max_positions));
  }
  const KvCacheShape shape = planned_cache(options_, config_);
  if (shape.num_blocks < 1) {
    refuse("the key/value cache of " + std::to_string(options_.kv_cache_bytes) +
           " bytes holds no block; one block of " + std::to_string(shape.block_tokens) + " tokens takes " +
           std::to_string(shape.block_bytes()) + " bytes: raise kv_cache_mb");
  }
}

void ServedModel::reserve_experts(const ModelPlacement& placement, RankOf self) {
  experts_->reserve(placement, self, make_expert_allocator(config_, options_.dtype, *backend_));
}

void ServedModel::record_windows() {
  // Windows are short and travel: a fourth of the tokens of a whole run's record.
  window_.emplace(num_moe_layers(), static_cast<int>(config_.num_experts), static_cast<int>(config_.top_k),
                  TrafficRecorder::kMaxSamples / 4);
}

ModelLane ServedModel::make_lane(const MoeSettings& settings, const LoadArgs& args) {
  const MoeShape shape{.hidden = config_.hidden,
                       .num_experts = config_.num_experts,
                       .top_k = config_.top_k,
                       .expert_inner = config_.expert_inner,
                       .shared_inner = config_.shared_expert_inner,
                       .normalize_top_k = config_.normalize_top_k,
                       .dtype = options_.dtype};
  ModelLane lane;
  lane.decoder = std::make_unique<Decoder>(
      config_, *weights_, *cache_, make_rope_table(config_.rope, config_.head_width, max_sequence_tokens()),
      *args.backend, *args.stream);
  lane.moe_block = std::make_unique<MoeBlock>(shape, settings, *args.transport, *args.backend, *args.stream);
  return lane;
}

void ServedModel::load(const LoadArgs& args) {
  Backend& backend = *args.backend;
  backend_ = &backend;
  stream_ = args.stream;
  weights_ = std::make_unique<ModelWeights>(config_, checkpoint_, options_.dtype, backend);
  experts_ = std::make_unique<ExpertStore>(num_moe_layers(), static_cast<int>(config_.num_experts),
                                           make_expert_loader(config_, checkpoint_, options_.dtype, backend),
                                           backend);
  experts_->prepare(*args.placement, {args.transport->rank(), args.transport->num_ranks()});
  experts_->commit();
  cache_ = std::make_unique<KvCache>(planned_cache(options_, config_), backend);
  for (const MoeSettings& settings : args.lanes) lanes_.push_back(make_lane(settings, args));
  backend.name_range_group(args.lanes.front().model_index, options_.name);
  batcher_ =
      std::make_unique<RequestBatcher>(BatchLimits{options_.max_batch_tokens, options_.max_batch_requests},
                                       config_.eos_token_ids, tokenizer(), *cache_);
}

}  // namespace aurora
