#include "kernels/check_args.h"

#include <algorithm>
#include <array>

namespace aurora {
namespace {

bool is_float32_or_bfloat16(DType dtype) { return dtype == DType::kFloat32 || dtype == DType::kBFloat16; }

void check_conversion(DType from, DType to, std::string_view text) {
  check(from == to || (is_float32_or_bfloat16(from) && is_float32_or_bfloat16(to)), text);
}

}  // namespace

void check_shape(const Tensor& tensor, std::initializer_list<std::int64_t> shape, std::string_view name) {
  std::array<std::int64_t, Tensor::kMaxDims> expected;
  expected.fill(1);
  std::copy(shape.begin(), shape.end(), expected.begin());
  bool fits = true;
  for (int i = 0; i < Tensor::kMaxDims; ++i) fits &= tensor.dim(i) == expected[static_cast<std::size_t>(i)];
  if (fits) return;
  std::string text = std::string(name) + " is [";
  for (int i = 0; i < tensor.num_dims(); ++i) text += (i > 0 ? ", " : "") + std::to_string(tensor.dim(i));
  text += "], expected [";
  int index = 0;
  for (const std::int64_t extent : shape) text += (index++ > 0 ? ", " : "") + std::to_string(extent);
  check(false, text + "]");
}

std::string index_text(std::int64_t value, std::int64_t limit, std::int64_t row, std::string_view name) {
  return "internal error: " + std::string(name) + "[" + std::to_string(row) + "] is " +
         std::to_string(value) + ", must be in [0, " + std::to_string(limit) + ")";
}

void check_args(const EmbedArgs& args) {
  const std::int64_t num_tokens = args.output.dim(0);
  if (num_tokens == 0) return;
  check_shape(args.table, {args.table.dim(0), args.output.dim(1)}, "embed: table");
  check_shape(args.output, {num_tokens, args.output.dim(1)}, "embed: output");
  check_shape(args.token_ids, {num_tokens}, "embed: token_ids");
  const bool widens = args.table.dtype() == DType::kBFloat16 && args.output.dtype() == DType::kFloat32;
  check(args.table.dtype() == args.output.dtype() || widens,
        "embed: the table is neither of the output's dtype nor bfloat16 for float32");
}

void check_args(const RmsNormArgs& args) {
  const std::int64_t num_rows = args.input.dim(0);
  const std::int64_t width = args.input.dim(1);
  if (num_rows == 0) return;
  check_shape(args.input, {num_rows, width}, "rms_norm: input");
  check_shape(args.output, {num_rows, width}, "rms_norm: output");
  check_shape(args.weight, {width}, "rms_norm: weight");
}

void check_args(const LinearArgs& args) {
  const std::int64_t num_rows = args.input.dim(0);
  const std::int64_t in_width = args.input.dim(1);
  const std::int64_t out_width = args.weight.dim(0);
  if (num_rows == 0) return;
  check_shape(args.input, {num_rows, in_width}, "linear: input");
  check_shape(args.weight, {out_width, in_width}, "linear: weight");
  check_shape(args.output, {num_rows, out_width}, "linear: output");
  if (args.bias.has_data()) check_shape(args.bias, {out_width}, "linear: bias");
}

void check_args(const RopeArgs& args) {
  const std::int64_t num_tokens = args.query.dim(0);
  const std::int64_t width = args.query.dim(2);
  if (num_tokens == 0) return;
  check(width % 2 == 0, "rope: head_width is odd");
  check_shape(args.query, {num_tokens, args.query.dim(1), width}, "rope: query");
  check_shape(args.key, {num_tokens, args.key.dim(1), width}, "rope: key");
  check(args.key.dtype() == args.query.dtype(), "rope: query and key differ in dtype");
  check_shape(args.positions, {num_tokens}, "rope: positions");
  check_shape(args.cosine, {args.cosine.dim(0), width / 2}, "rope: cosine");
  check_shape(args.sine, {args.cosine.dim(0), width / 2}, "rope: sine");
}

void check_args(const ClampArgs& args) {
  if (args.values.is_empty()) return;
  check(args.limit >= 0, "clamp: limit is negative");
}

void check_args(const AppendKvArgs& args) {
  const std::int64_t num_tokens = args.key.dim(0);
  const std::int64_t num_heads = args.key.dim(1);
  const std::int64_t width = args.key.dim(2);
  if (num_tokens == 0) return;
  const std::int64_t num_blocks = args.key_cache.dim(0);
  const std::int64_t block_size = args.key_cache.dim(1);
  check_shape(args.key, {num_tokens, num_heads, width}, "append_kv: key");
  check_shape(args.value, {num_tokens, num_heads, width}, "append_kv: value");
  check_shape(args.slots, {num_tokens}, "append_kv: slots");
  check_shape(args.key_cache, {num_blocks, block_size, num_heads, width}, "append_kv: key_cache");
  check_shape(args.value_cache, {num_blocks, block_size, num_heads, width}, "append_kv: value_cache");
}

void check_args(const PagedAttentionArgs& args) {
  const std::int64_t num_tokens = args.query.dim(0);
  if (num_tokens == 0) return;
  const std::int64_t num_heads = args.query.dim(1);
  const std::int64_t width = args.query.dim(2);
  const std::int64_t num_kv_heads = args.key_cache.dim(2);
  check_shape(args.query, {num_tokens, num_heads, width}, "paged_attention: query");
  check_shape(args.output, {num_tokens, num_heads, width}, "paged_attention: output");
  check_shape(args.sequence_index, {num_tokens}, "paged_attention: sequence_index");
  check_shape(args.positions, {num_tokens}, "paged_attention: positions");
  const std::int64_t num_blocks = args.key_cache.dim(0);
  const std::int64_t block_size = args.key_cache.dim(1);
  check_shape(args.key_cache, {num_blocks, block_size, num_kv_heads, width}, "paged_attention: key_cache");
  check_shape(args.value_cache, {num_blocks, block_size, num_kv_heads, width},
              "paged_attention: value_cache");
  check(args.block_tables.num_dims() == 2,
        "paged_attention: block_tables is not [num_sequences, max_blocks]");
  check(block_size > 0 && num_kv_heads > 0 && num_heads % num_kv_heads == 0,
        "paged_attention: num_heads is no multiple of num_kv_heads, or a block is empty");
  check(args.window >= 0, "paged_attention: window is negative");
}

void check_args(const RouteArgs& args) {
  const std::int64_t num_tokens = args.logits.dim(0);
  const std::int64_t top_k = args.expert_ids.dim(1);
  if (num_tokens == 0) return;
  check_shape(args.logits, {num_tokens, args.logits.dim(1)}, "route: logits");
  check_shape(args.expert_ids, {num_tokens, top_k}, "route: expert_ids");
  check_shape(args.weights, {num_tokens, top_k}, "route: weights");
  check(top_k <= args.logits.dim(1) || args.ids_are_given, "route: top_k exceeds the number of experts");
}

void check_args(const GatherRowsArgs& args) {
  const std::int64_t num_rows = args.output.dim(0);
  const std::int64_t width = args.output.dim(1);
  if (num_rows == 0) return;
  check_shape(args.input, {args.input.dim(0), width}, "gather_rows: input");
  check_shape(args.output, {num_rows, width}, "gather_rows: output");
  check_shape(args.indices, {num_rows}, "gather_rows: indices");
  check_conversion(args.input.dtype(), args.output.dtype(),
                   "gather_rows: no conversion between these dtypes");
}

void check_args(const AssignRowsArgs& args, std::size_t scratch_bytes) {
  const std::int64_t num_tokens = args.expert_ids.dim(0);
  const std::int64_t top_k = args.expert_ids.dim(1);
  const std::int64_t num_replicas = args.replicas.ranks.dim(0);
  const std::int64_t max_rows = num_tokens * std::min<std::int64_t>(top_k, args.num_ranks);
  check(args.num_ranks >= 1, "assign_rows: num_ranks is not positive");
  check_shape(args.replicas.offsets, {args.replicas.offsets.dim(0)}, "assign_rows: replica offsets");
  check_shape(args.replicas.bounds, {num_replicas}, "assign_rows: replica bounds");
  check_shape(args.replicas.slots, {num_replicas}, "assign_rows: replica slots");
  check_shape(args.counts, {args.num_ranks + num_replicas}, "assign_rows: counts");
  check_shape(args.row_offsets, {args.num_ranks + 1}, "assign_rows: row_offsets");
  check(args.scratch.size_bytes() >= scratch_bytes,
        "assign_rows: scratch is smaller than assign_rows_scratch_bytes()");
  if (num_tokens == 0) return;
  check_shape(args.expert_ids, {num_tokens, top_k}, "assign_rows: expert_ids");
  check_shape(args.weights, {num_tokens, top_k}, "assign_rows: weights");
  check_shape(args.row_tokens, {max_rows}, "assign_rows: row_tokens");
  check_shape(args.headers, {max_rows, 2 * top_k}, "assign_rows: headers");
  check_shape(args.term_offsets, {num_tokens + 1}, "assign_rows: term_offsets");
  check_shape(args.term_indices, {num_tokens * top_k}, "assign_rows: term_indices");
}

void check_args(const PackRowsArgs& args) {
  if (args.indices.is_empty()) return;
  const std::int64_t num_rows = args.indices.dim(0);
  const std::size_t header = args.headers.has_data() ? args.headers.size_bytes() / num_rows : 0;
  check_shape(args.input, {args.input.dim(0), args.input.dim(1)}, "pack_rows: input");
  check_shape(args.indices, {num_rows}, "pack_rows: indices");
  if (header > 0) check_shape(args.headers, {num_rows, args.headers.dim(1)}, "pack_rows: headers");
  const bool is_float8 = args.wire_dtype == DType::kFloat8E4M3;
  check_conversion(args.input.dtype(), is_float8 ? DType::kFloat32 : args.wire_dtype,
                   "pack_rows: no conversion to the wire's dtype");
  const std::size_t payload = wire_bytes(args.input.dim(1), args.wire_dtype);
  check(header == 0 || payload <= args.header_offset, "pack_rows: the header overlaps the payload");
  check(payload <= args.row_bytes && (header == 0 || args.header_offset + header <= args.row_bytes),
        "pack_rows: row_bytes is too small");
  const std::size_t alignment = is_float8 ? sizeof(float) : dtype_bytes(args.wire_dtype);
  check(args.row_bytes % alignment == 0, "pack_rows: rows start between elements");
  check(header == 0 || (args.header_offset % 4 == 0 && args.row_bytes % 4 == 0),
        "pack_rows: headers are not aligned to 4 bytes");
  if (!args.row_offsets.has_data()) return;
  check_shape(args.row_offsets, {args.row_offsets.dim(0)}, "pack_rows: row_offsets");
  check(args.left_out_rank >= 0 && args.left_out_rank + 1 < args.row_offsets.dim(0),
        "pack_rows: left_out_rank is none of the ranks");
}

void check_args(const DequantizeRowsArgs& args) {
  const std::int64_t num_rows = args.output.dim(0);
  const std::int64_t width = args.output.dim(1);
  if (num_rows == 0) return;
  check_shape(args.output, {num_rows, width}, "dequantize_rows: output");
  check(is_float32_or_bfloat16(args.output.dtype()),
        "dequantize_rows: the output is neither float32 nor bfloat16");
  check(args.row_bytes >= wire_bytes(width, DType::kFloat8E4M3), "dequantize_rows: row_bytes is too small");
  check(args.row_bytes % sizeof(float) == 0, "dequantize_rows: scales are not aligned to 4 bytes");
}

void check_args(const GroupRowsArgs& args, std::size_t scratch_bytes) {
  const std::int64_t num_pairs = args.row_indices.dim(0);
  check_shape(args.expert_offsets, {args.expert_offsets.dim(0)}, "group_rows: expert_offsets");
  check(args.expert_offsets.dim(0) > 0, "group_rows: expert_offsets has no place for the first 0");
  check(args.num_rows > 0 || num_pairs == 0, "group_rows: there are pairs but no rows");
  if (args.num_rows == 0) return;
  check(args.top_k > 0, "group_rows: top_k is not positive");
  check(args.row_bytes % 4 == 0 && args.header_offset % 4 == 0 &&
            args.header_offset + static_cast<std::size_t>(args.top_k) * sizeof(RowEntry) <= args.row_bytes,
        "group_rows: the header does not fit into the row, or is not aligned to 4 bytes");
  check(args.scratch.size_bytes() >= scratch_bytes,
        "group_rows: scratch is smaller than group_rows_scratch_bytes()");
  check_shape(args.local_index, {args.local_index.dim(0)}, "group_rows: local_index");
  check_shape(args.row_indices, {num_pairs}, "group_rows: row_indices");
  check_shape(args.term_offsets, {args.num_rows + 1}, "group_rows: term_offsets");
  check_shape(args.term_indices, {num_pairs}, "group_rows: term_indices");
  check_shape(args.term_weights, {num_pairs}, "group_rows: term_weights");
}

void check_args(const GroupPairsArgs& args, std::size_t scratch_bytes) {
  const std::int64_t num_tokens = args.expert_ids.dim(0);
  const std::int64_t top_k = args.expert_ids.dim(1);
  if (num_tokens == 0) return;
  check(top_k > 0, "group_pairs: top_k is not positive");
  check_shape(args.expert_ids, {num_tokens, top_k}, "group_pairs: expert_ids");
  check_shape(args.expert_offsets, {args.expert_offsets.dim(0)}, "group_pairs: expert_offsets");
  check(args.expert_offsets.dim(0) > 0, "group_pairs: expert_offsets has no place for the first 0");
  check(args.scratch.size_bytes() >= scratch_bytes,
        "group_pairs: scratch is smaller than group_rows_scratch_bytes()");
  check_shape(args.row_indices, {num_tokens * top_k}, "group_pairs: row_indices");
  check_shape(args.term_offsets, {num_tokens + 1}, "group_pairs: term_offsets");
  check_shape(args.term_indices, {num_tokens * top_k}, "group_pairs: term_indices");
}

void check_args(const WeightedSumArgs& args) {
  const std::int64_t num_rows = args.output.dim(0);
  const std::int64_t width = args.output.dim(1);
  if (num_rows == 0) return;
  check_shape(args.output, {num_rows, width}, "weighted_sum: output");
  if (!args.input.is_empty()) check_shape(args.input, {args.input.dim(0), width}, "weighted_sum: input");
  check_shape(args.offsets, {num_rows + 1}, "weighted_sum: offsets");
  if (args.weights.has_data()) check_shape(args.weights, {args.indices.dim(0)}, "weighted_sum: weights");
  if (args.initial.has_data()) check_shape(args.initial, {num_rows, width}, "weighted_sum: initial");
  for (const Tensor* rows : {&args.input, &args.initial, &args.output}) {
    check(is_float32_or_bfloat16(rows->dtype()), "weighted_sum: rows are float32 or bfloat16");
  }
}

void check_args(const ExpertFfnArgs& args, std::size_t scratch_bytes) {
  const std::int64_t num_rows = args.output.dim(0);
  const std::int64_t hidden = args.output.dim(1);
  if (num_rows == 0) return;
  check_shape(args.output, {num_rows, hidden}, "expert_ffn: output");
  check_shape(args.row_indices, {num_rows}, "expert_ffn: row_indices");
  check_shape(args.input, {args.input.dim(0), args.input.dim(1)}, "expert_ffn: input");
  check(args.input.dim(1) >= hidden, "expert_ffn: input rows are narrower than hidden");
  check(is_float32_or_bfloat16(args.input.dtype()), "expert_ffn: input is neither float32 nor bfloat16");
  check(args.experts != nullptr && args.experts->size() > 0, "expert_ffn: rows without experts");
  check(args.experts->hidden() == hidden, "expert_ffn: the experts' hidden width is not the output's");
  check_shape(args.expert_offsets, {args.experts->size() + 1}, "expert_ffn: expert_offsets");
  check(args.scratch.size_bytes() >= scratch_bytes,
        "expert_ffn: scratch is smaller than expert_ffn_scratch_bytes()");
}

void check_args(const SiluMultiplyArgs& args) {
  const std::int64_t count = args.output.num_elements();
  check(args.gate.num_elements() == count && args.up.num_elements() == count,
        "silu_multiply: gate, up and output differ in size");
}

void check_args(const AddArgs& args) {
  check(args.input.num_elements() == args.output.num_elements(), "add: input and output differ in size");
}

void check_args(const SigmoidGatedAddArgs& args) {
  const std::int64_t num_rows = args.output.dim(0);
  const std::int64_t width = args.output.dim(1);
  if (num_rows == 0) return;
  check_shape(args.input, {num_rows, width}, "sigmoid_gated_add: input");
  check_shape(args.gate_logits, {num_rows}, "sigmoid_gated_add: gate_logits");
  check_shape(args.output, {num_rows, width}, "sigmoid_gated_add: output");
}

void check_args(const SampleArgs& args) {
  const std::int64_t num_rows = args.logits.dim(0);
  if (num_rows == 0) return;
  check_shape(args.logits, {num_rows, args.logits.dim(1)}, "sample: logits");
  check_shape(args.token_ids, {num_rows}, "sample: token_ids");
  check(static_cast<std::int64_t>(args.rows.size()) == num_rows, "sample: rows and logits differ in number");
}

}  // namespace aurora
