#include "runtime/model/model_weights.h"

#include <functional>

namespace aurora {
namespace {

/// Upper bound on waiting for one host-to-device copy while loading.
constexpr std::chrono::minutes kCopyTimeout{5};

/// Where a checkpoint keeps the parts of a layer.
class TensorNames {
 public:
  TensorNames(const ModelConfig& config, std::int64_t layer)
      : is_mixtral_(config.architecture == Architecture::kMixtral),
        prefix_("model.layers." + std::to_string(layer) + ".") {}

  std::string in_layer(const std::string& rest) const { return prefix_ + rest; }
  std::string router() const { return block() + "gate.weight"; }
  std::string expert(std::int64_t expert, const std::string& part) const {
    return block() + "experts." + std::to_string(expert) + "." + expert_part(part) + ".weight";
  }
  std::string in_ffn(const std::string& rest) const { return prefix_ + "mlp." + rest; }

 private:
  std::string block() const { return prefix_ + (is_mixtral_ ? "block_sparse_moe." : "mlp."); }
  /// Mixtral calls gate, up and down w1, w3 and w2.
  std::string expert_part(const std::string& part) const {
    if (!is_mixtral_) return part + "_proj";
    return part == "gate" ? "w1" : part == "up" ? "w3" : "w2";
  }

  bool is_mixtral_;
  std::string prefix_;
};

using Visitor =
    std::function<void(const std::string& name, Tensor& slot, std::int64_t rows, std::int64_t columns)>;

/// Visits a SwiGLU network's three matrices.
void visit_ffn(const std::function<std::string(const std::string&)>& name, std::int64_t inner,
               std::int64_t hidden, ExpertWeights& weights, const Visitor& visit) {
  visit(name("gate"), weights.gate, inner, hidden);
  visit(name("up"), weights.up, inner, hidden);
  visit(name("down"), weights.down, hidden, inner);
}

void visit_attention(const ModelConfig& config, const TensorNames& names, DecoderLayerWeights& layer,
                     const Visitor& visit) {
  const std::int64_t query_width = config.num_heads * config.head_width;
  const std::int64_t kv_width = config.num_kv_heads * config.head_width;
  const auto attention = [&](const std::string& rest) { return names.in_layer("self_attn." + rest); };
  visit(names.in_layer("input_layernorm.weight"), layer.input_norm, config.hidden, 0);
  visit(attention("q_proj.weight"), layer.query, query_width, config.hidden);
  visit(attention("k_proj.weight"), layer.key, kv_width, config.hidden);
  visit(attention("v_proj.weight"), layer.value, kv_width, config.hidden);
  visit(attention("o_proj.weight"), layer.output, config.hidden, query_width);
  if (config.attention_bias) {
    visit(attention("q_proj.bias"), layer.query_bias, query_width, 0);
    visit(attention("k_proj.bias"), layer.key_bias, kv_width, 0);
    visit(attention("v_proj.bias"), layer.value_bias, kv_width, 0);
  }
  if (config.output_projection_bias) visit(attention("o_proj.bias"), layer.output_bias, config.hidden, 0);
  if (config.query_key_norm != QueryKeyNorm::kNone) {
    const bool per_head = config.query_key_norm == QueryKeyNorm::kPerHead;
    visit(attention("q_norm.weight"), layer.query_norm, per_head ? config.head_width : query_width, 0);
    visit(attention("k_norm.weight"), layer.key_norm, per_head ? config.head_width : kv_width, 0);
  }
  visit(names.in_layer("post_attention_layernorm.weight"), layer.post_attention_norm, config.hidden, 0);
}

/// Visits every tensor of the model but the routed experts; columns 0 marks a vector.
void visit_shared_tensors(const ModelConfig& config, SharedTensors& weights, const Visitor& visit) {
  visit("model.embed_tokens.weight", weights.embedding, config.vocabulary, config.hidden);
  visit("model.norm.weight", weights.final_norm, config.hidden, 0);
  if (!config.tie_word_embeddings) visit("lm_head.weight", weights.head, config.vocabulary, config.hidden);
  for (std::int64_t index = 0; index < config.num_layers; ++index) {
    const TensorNames names(config, index);
    DecoderLayerWeights& layer = weights.layers[index];
    visit_attention(config, names, layer, visit);
    if (!config.is_moe_layer[index]) {
      visit_ffn([&](const std::string& part) { return names.in_ffn(part + "_proj.weight"); },
                config.dense_inner, config.hidden, layer.dense, visit);
      continue;
    }
    visit(names.router(), layer.moe.router, config.num_experts, config.hidden);
    if (config.shared_expert_inner > 0) {
      visit_ffn(
          [&](const std::string& part) { return names.in_ffn("shared_expert." + part + "_proj.weight"); },
          config.shared_expert_inner, config.hidden, layer.moe.shared, visit);
      visit(names.in_ffn("shared_expert_gate.weight"), layer.moe.shared_expert_gate, 1, config.hidden);
    }
  }
}

std::vector<std::int64_t> shape_of(std::int64_t rows, std::int64_t columns) {
  return columns == 0 ? std::vector<std::int64_t>{rows} : std::vector<std::int64_t>{rows, columns};
}

std::string shape_text(const std::vector<std::int64_t>& shape) {
  std::string text = "[";
  for (const std::int64_t extent : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(extent);
  return text + "]";
}

void check_tensor(const Checkpoint& checkpoint, const std::string& name,
                  const std::vector<std::int64_t>& expected) {
  const StoredTensor& stored = checkpoint.find(name);
  if (stored.shape == expected) return;
  throw Error(ErrorKind::kFormat, stored.file.string() + ": tensor " + name + " has shape " +
                                      shape_text(stored.shape) + " where config.json implies " +
                                      shape_text(expected));
}

/// Reads tensors into device memory through one host staging buffer.
class TensorLoader {
 public:
  TensorLoader(const Checkpoint& checkpoint, DType dtype, Backend& backend)
      : checkpoint_(&checkpoint), dtype_(dtype), backend_(&backend), stream_(backend.create_stream()) {}

  void load(const std::string& name, std::int64_t rows, std::int64_t columns, std::byte* destination,
            Tensor& view) {
    view = columns == 0 ? Tensor(destination, dtype_, {rows}) : Tensor(destination, dtype_, {rows, columns});
    if (staging_.size_bytes() < view.size_bytes()) {
      staging_ = backend_->allocate(view.size_bytes(), MemorySpace::kHost);
    }
    const Tensor host = columns == 0 ? Tensor(staging_.data(), dtype_, {rows})
                                     : Tensor(staging_.data(), dtype_, {rows, columns});
    checkpoint_->read(name, host);
    backend_->copy(*stream_, destination, host.bytes(), host.size_bytes());
    stream_->synchronize(std::chrono::steady_clock::now() + kCopyTimeout);
  }

 private:
  const Checkpoint* checkpoint_;
  DType dtype_;
  Backend* backend_;
  std::unique_ptr<Stream> stream_;
  Buffer staging_;
};

/// Index among all decoder layers of the MoE layer with index `moe_layer` among MoE layers.
std::int64_t decoder_layer_of(const ModelConfig& config, std::int64_t moe_layer) {
  for (std::int64_t layer = 0; layer < config.num_layers; ++layer) {
    if (config.is_moe_layer[layer] && moe_layer-- == 0) return layer;
  }
  check(false, "MoE layer index is in range");
  return -1;
}

}  // namespace

ModelWeights::ModelWeights(const ModelConfig& config, const Checkpoint& checkpoint, DType dtype,
                           Backend& backend) {
  layers.resize(static_cast<std::size_t>(config.num_layers));
  TensorLoader loader(checkpoint, dtype, backend);
  visit_shared_tensors(
      config, *this, [&](const std::string& name, Tensor& slot, std::int64_t rows, std::int64_t columns) {
        const std::int64_t elements = rows * (columns == 0 ? 1 : columns);
        memory_.push_back(
            backend.allocate(static_cast<std::size_t>(elements) * dtype_bytes(dtype), MemorySpace::kDevice));
        loader.load(name, rows, columns, memory_.back().data(), slot);
      });
  if (config.tie_word_embeddings) head = embedding;
}

std::size_t ModelWeights::resident_bytes() const {
  std::size_t bytes = 0;
  for (const Buffer& buffer : memory_) bytes += buffer.size_bytes();
  return bytes;
}

void check_checkpoint(const ModelConfig& config, const Checkpoint& checkpoint) {
  const Visitor visit = [&](const std::string& name, Tensor&, std::int64_t rows, std::int64_t columns) {
    check_tensor(checkpoint, name, shape_of(rows, columns));
  };
  SharedTensors names_only;
  names_only.layers.resize(static_cast<std::size_t>(config.num_layers));
  visit_shared_tensors(config, names_only, visit);
  for (std::int64_t layer = 0; layer < config.num_layers; ++layer) {
    if (!config.is_moe_layer[layer]) continue;
    const TensorNames names(config, layer);
    ExpertWeights unused;
    for (std::int64_t expert = 0; expert < config.num_experts; ++expert) {
      visit_ffn([&](const std::string& part) { return names.expert(expert, part); }, config.expert_inner,
                config.hidden, unused, visit);
    }
  }
}

ExpertLoader make_expert_loader(const ModelConfig& config, const Checkpoint& checkpoint, DType dtype,
                                Backend& backend) {
  return [&config, &checkpoint, dtype, &backend](int moe_layer, ExpertId expert, Buffer& memory) {
    const TensorNames names(config, decoder_layer_of(config, moe_layer));
    memory = backend.allocate(static_cast<std::size_t>(expert_bytes(config, dtype)), MemorySpace::kDevice);
    TensorLoader loader(checkpoint, dtype, backend);
    ExpertWeights weights;
    std::byte* next = memory.data();
    visit_ffn([&](const std::string& part) { return names.expert(expert.value, part); }, config.expert_inner,
              config.hidden, weights,
              [&](const std::string& name, Tensor& slot, std::int64_t rows, std::int64_t columns) {
                loader.load(name, rows, columns, next, slot);
                next += slot.size_bytes();
              });
    return weights;
  };
}

ExpertAllocator make_expert_allocator(const ModelConfig& config, DType dtype, Backend& backend) {
  return [&config, dtype, &backend](Buffer& memory) {
    memory = backend.allocate(static_cast<std::size_t>(expert_bytes(config, dtype)), MemorySpace::kDevice);
    ExpertWeights weights;
    std::byte* next = memory.data();
    visit_ffn([](const std::string& part) { return part; }, config.expert_inner, config.hidden, weights,
              [&](const std::string&, Tensor& slot, std::int64_t rows, std::int64_t columns) {
                slot = Tensor(next, dtype, {rows, columns});
                next += slot.size_bytes();
              });
    return weights;
  };
}

std::int64_t num_shared_elements(const ModelConfig& config) {
  std::int64_t elements = 0;
  SharedTensors names_only;
  names_only.layers.resize(static_cast<std::size_t>(config.num_layers));
  visit_shared_tensors(config, names_only,
                       [&](const std::string&, Tensor&, std::int64_t rows, std::int64_t columns) {
                         elements += rows * (columns == 0 ? 1 : columns);
                       });
  return elements;
}

std::int64_t expert_bytes(const ModelConfig& config, DType dtype) {
  return 3 * config.expert_inner * config.hidden * static_cast<std::int64_t>(dtype_bytes(dtype));
}

}  // namespace aurora
