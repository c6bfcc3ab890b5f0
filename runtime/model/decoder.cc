#include "runtime/model/decoder.h"

#include <cmath>
#include <cstring>
#include <span>

namespace aurora {
namespace {

/// Where the next array of a batch begins, in int32: each at a multiple of 256 bytes.
std::int64_t next_array(std::int64_t end) { return (end + 63) / 64 * 64; }

}  // namespace

Decoder::Decoder(const ModelConfig& config, const SharedTensors& weights, const KvCache& cache,
                 const RopeTable& rope, Backend& backend, Stream& stream)
    : config_(&config),
      weights_(&weights),
      cache_(&cache),
      backend_(&backend),
      stream_(&stream),
      ops_(&backend.ops()),
      dtype_(weights.embedding.dtype()),
      host_batch_space_(backend, MemorySpace::kHost),
      batch_space_(backend),
      residual_space_(backend),
      normalized_space_(backend),
      query_space_(backend),
      key_space_(backend),
      value_space_(backend),
      attended_space_(backend),
      gate_space_(backend),
      up_space_(backend),
      output_space_(backend),
      head_input_space_(backend),
      logits_space_(backend) {
  const std::size_t bytes = rope.cosine.size() * sizeof(float);
  rope_memory_ = backend.allocate(2 * bytes, MemorySpace::kDevice);
  cosine_ = Tensor(rope_memory_.data(), DType::kFloat32, {rope.num_positions, rope.half_width});
  sine_ = Tensor(rope_memory_.data() + bytes, DType::kFloat32, {rope.num_positions, rope.half_width});
  backend.copy(stream, cosine_.bytes(), rope.cosine.data(), bytes);
  backend.copy(stream, sine_.bytes(), rope.sine.data(), bytes);
  stream.synchronize(std::chrono::steady_clock::now() + std::chrono::minutes(1));
}

void Decoder::begin(const StepBatch& batch) {
  batch_ = &batch;
  upload(batch);
  const std::int64_t tokens = batch.num_tokens();
  residual_ = residual_space_.tensor(DType::kFloat32, tokens, config_->hidden);
  normalized_ = normalized_space_.tensor(dtype_, tokens, config_->hidden);
  query_ = query_space_.tensor(dtype_, tokens, config_->num_heads * config_->head_width);
  key_ = key_space_.tensor(dtype_, tokens, config_->num_kv_heads * config_->head_width);
  value_ = value_space_.tensor(dtype_, tokens, config_->num_kv_heads * config_->head_width);
  attended_ = attended_space_.tensor(dtype_, tokens, config_->num_heads * config_->head_width);
  ops_->embed(*stream_, {weights_->embedding, token_ids_, residual_});
}

// Through one block of memory that the device can copy from while the host goes on: one copy a step.
void Decoder::upload(const StepBatch& batch) {
  const std::span<const std::int32_t> arrays[] = {batch.token_ids,    batch.positions,
                                                  batch.slots,        batch.sequence_index,
                                                  batch.block_tables, batch.output_rows};
  Tensor* const views[] = {&token_ids_,      &positions_,    &slots_,
                           &sequence_index_, &block_tables_, &output_rows_};
  std::int64_t size = 0;
  for (const auto& array : arrays) size = next_array(size + static_cast<std::int64_t>(array.size()));
  const Tensor host = host_batch_space_.vector(DType::kInt32, size);
  const Tensor device = batch_space_.vector(DType::kInt32, size);
  std::int64_t at = 0;
  for (std::size_t i = 0; i < std::size(arrays); ++i) {
    const auto count = static_cast<std::int64_t>(arrays[i].size());
    if (count > 0) std::memcpy(host.i32() + at, arrays[i].data(), arrays[i].size_bytes());
    *views[i] = Tensor(device.i32() + at, DType::kInt32, {count});
    at = next_array(at + count);
  }
  block_tables_ = Tensor(block_tables_.bytes(), DType::kInt32, {batch.num_sequences, batch.max_blocks});
  backend_->copy(*stream_, device.bytes(), host.bytes(), host.size_bytes());
}

void Decoder::attend(std::int64_t layer_index) {
  const DecoderLayerWeights& layer = weights_->layers[layer_index];
  const auto epsilon = static_cast<float>(config_->rms_norm_epsilon);
  ops_->rms_norm(*stream_, {residual_, layer.input_norm, epsilon, normalized_});
  project(layer);
  normalize_heads(layer);
  rotate_and_attend(layer_index);
  ops_->linear(*stream_, {attended_, layer.output, layer.output_bias, residual_, /*accumulate=*/true});
  ops_->rms_norm(*stream_, {residual_, layer.post_attention_norm, epsilon, normalized_});
}

void Decoder::project(const DecoderLayerWeights& layer) {
  ops_->linear(*stream_, {normalized_, layer.query, layer.query_bias, query_});
  ops_->linear(*stream_, {normalized_, layer.key, layer.key_bias, key_});
  ops_->linear(*stream_, {normalized_, layer.value, layer.value_bias, value_});
}

void Decoder::normalize_heads(const DecoderLayerWeights& layer) {
  const auto epsilon = static_cast<float>(config_->rms_norm_epsilon);
  if (config_->query_key_norm != QueryKeyNorm::kNone) {
    // A norm over each head is a norm over the rows of [num_tokens * heads, head_width].
    const bool per_head = config_->query_key_norm == QueryKeyNorm::kPerHead;
    const auto rows_of = [&](const Tensor& projected) {
      return per_head ? Tensor(projected.bytes(), dtype_,
                               {projected.num_elements() / config_->head_width, config_->head_width})
                      : projected;
    };
    ops_->rms_norm(*stream_, {rows_of(query_), layer.query_norm, epsilon, rows_of(query_)});
    ops_->rms_norm(*stream_, {rows_of(key_), layer.key_norm, epsilon, rows_of(key_)});
  }
  if (config_->clip_qkv > 0) {
    for (const Tensor& projected : {query_, key_, value_}) {
      ops_->clamp(*stream_, {projected, static_cast<float>(config_->clip_qkv)});
    }
  }
}

void Decoder::rotate_and_attend(std::int64_t layer_index) {
  const auto heads_of = [&](const Tensor& projected, std::int64_t num_heads) {
    return Tensor(projected.bytes(), dtype_, {batch_->num_tokens(), num_heads, config_->head_width});
  };
  const Tensor query = heads_of(query_, config_->num_heads);
  const Tensor key = heads_of(key_, config_->num_kv_heads);
  const Tensor value = heads_of(value_, config_->num_kv_heads);
  ops_->rope(*stream_, {query, key, positions_, cosine_, sine_});
  ops_->append_kv(*stream_, {key, value, slots_, cache_->keys(layer_index), cache_->values(layer_index)});
  ops_->paged_attention(*stream_, {.query = query,
                                   .key_cache = cache_->keys(layer_index),
                                   .value_cache = cache_->values(layer_index),
                                   .block_tables = block_tables_,
                                   .sequence_index = sequence_index_,
                                   .positions = positions_,
                                   .scale = 1.0F / std::sqrt(static_cast<float>(config_->head_width)),
                                   .window = config_->window[layer_index],
                                   .output = heads_of(attended_, config_->num_heads)});
}

void Decoder::dense_ffn(std::int64_t layer_index) {
  const ExpertWeights& ffn = weights_->layers[layer_index].dense;
  const Tensor gate = gate_space_.tensor(dtype_, batch_->num_tokens(), config_->dense_inner);
  const Tensor up = up_space_.tensor(dtype_, batch_->num_tokens(), config_->dense_inner);
  ops_->linear(*stream_, {normalized_, ffn.gate, {}, gate});
  ops_->linear(*stream_, {normalized_, ffn.up, {}, up});
  ops_->silu_multiply(*stream_, {gate, up, gate});
  ops_->linear(*stream_, {gate, ffn.down, {}, residual_, /*accumulate=*/true});
}

Tensor Decoder::head() {
  const std::int64_t outputs = batch_->num_outputs();
  const Tensor rows = output_space_.tensor(DType::kFloat32, outputs, config_->hidden);
  const Tensor logits = logits_space_.tensor(DType::kFloat32, outputs, config_->vocabulary);
  ops_->gather_rows(*stream_, {residual_, output_rows_, rows});
  const Tensor head_input = head_input_space_.tensor(dtype_, outputs, config_->hidden);
  ops_->rms_norm(*stream_,
                 {rows, weights_->final_norm, static_cast<float>(config_->rms_norm_epsilon), head_input});
  ops_->linear(*stream_, {head_input, weights_->head, {}, logits});
  return logits;
}

}  // namespace aurora
