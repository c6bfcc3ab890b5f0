// The operations that a Mixture-of-Experts decoder is made of, one method each, implemented once per backend.
//
// Conventions. Tensors are dense and row-major; shapes are given as [rows, columns]. "compute dtype" is
// float32 on the CPU, float32 or bfloat16 on a GPU, where weights and the input of a product agree in it and
// outputs may be float32; sums are float32 everywhere, and so are router logits, sampling logits, cosine and
// sine. Index tensors are int32. All operations accept zero rows and then touch nothing. An
// operation is submitted to a stream and reads its arguments' memory when it runs, so that memory must stay
// alive and unchanged until an event after it is complete. Spans inside an Args struct are host memory and
// are copied at submission.
//
// Reproducibility: every operation but `linear` and `expert_ffn` computes each output row from its own inputs
// alone, in a fixed order; those two do so when the backend was made with `deterministic`.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "kernels/backend.h"
#include "kernels/expert_bank.h"
#include "kernels/float8.h"
#include "kernels/tensor.h"

namespace aurora {

/// output[i, :] = table[token_ids[i], :]
struct EmbedArgs {
  Tensor table;      // [vocabulary, hidden]
  Tensor token_ids;  // [num_tokens] int32, each in [0, vocabulary)
  Tensor output;     // [num_tokens, hidden]
};

/// output = input / sqrt(mean(input^2) + epsilon) * weight, over the last dimension. May run in place.
struct RmsNormArgs {
  Tensor input;   // [num_rows, width]
  Tensor weight;  // [width]
  float epsilon = 1e-5F;
  Tensor output;  // [num_rows, width]
};

/// output = input * weight^T (+ bias) (+ output when `accumulate`)
struct LinearArgs {
  Tensor input;   // [num_rows, in_width]
  Tensor weight;  // [out_width, in_width]
  Tensor bias;    // [out_width], or no data for none
  Tensor output;  // [num_rows, out_width]
  bool accumulate = false;
};

/// Rotary position embedding, rotate-half layout (Su et al., arXiv 2104.09864, as in Hugging Face): element j
/// of the first half of a head pairs with element j of the second. In place; queries and keys at once, which
/// turn by the same angles.
struct RopeArgs {
  Tensor query;      // [num_tokens, num_heads, head_width]
  Tensor key;        // [num_tokens, num_kv_heads, head_width]
  Tensor positions;  // [num_tokens] int32
  Tensor cosine;     // [max_positions, head_width / 2]
  Tensor sine;       // [max_positions, head_width / 2]
};

/// values = min(max(values, -limit), limit). In place.
struct ClampArgs {
  Tensor values;
  float limit = 0;
};

/// Stores keys and values of new tokens into the paged cache. Cache slot s is block s / block_size, offset
/// s % block_size.
struct AppendKvArgs {
  Tensor key;          // [num_tokens, num_kv_heads, head_width]
  Tensor value;        // [num_tokens, num_kv_heads, head_width]
  Tensor slots;        // [num_tokens] int32
  Tensor key_cache;    // [num_blocks, block_size, num_kv_heads, head_width]
  Tensor value_cache;  // same shape
};

/// Causal attention of each token to positions [max(0, position - window + 1), position] of its own sequence,
/// read through the block table. One rule for prefill and decode: a token's result depends on its sequence
/// and position alone, not on how the prompt was cut into chunks.
struct PagedAttentionArgs {
  Tensor query;             // [num_tokens, num_heads, head_width]
  Tensor key_cache;         // [num_blocks, block_size, num_kv_heads, head_width]
  Tensor value_cache;       // same shape
  Tensor block_tables;      // [num_sequences, max_blocks] int32; unused entries are not read
  Tensor sequence_index;    // [num_tokens] int32, row of block_tables
  Tensor positions;         // [num_tokens] int32
  float scale = 1;          // applied to query . key before the softmax
  std::int32_t window = 0;  // 0: no sliding window
  Tensor output;            // [num_tokens, num_heads, head_width]
};

enum class RouterScoring : std::uint8_t { kSoftmax, kSigmoid };

/// Top-k experts of each token and their weights. Ties go to the lower expert id. Ids are ordered by
/// descending score. With `normalize` the k weights are divided by their sum.
struct RouteArgs {
  Tensor logits;  // [num_tokens, num_experts] float32
  RouterScoring scoring = RouterScoring::kSoftmax;
  bool normalize = true;
  /// The ids are inputs (replayed routing): only the weights are computed, from the logits at those ids.
  bool ids_are_given = false;
  Tensor expert_ids;  // [num_tokens, top_k] int32
  Tensor weights;     // [num_tokens, top_k] float32
};

/// output[i, :] = input[indices[i], :], converted when the dtypes differ (float32 <-> bfloat16).
struct GatherRowsArgs {
  Tensor input;    // [num_input_rows, width]
  Tensor indices;  // [num_rows] int32
  Tensor output;   // [num_rows, width]
};

/// One entry of the header that a dispatched row carries: an expert of the receiving rank, and the token's
/// weight for it. Entries in use come first, in the order of the token's top-k.
struct RowEntry {
  std::int32_t expert = -1;  // -1: unused, as all entries after it are
  float weight = 0;
};
static_assert(sizeof(RowEntry) == 8);

/// Where the experts of a layer live, device memory. The replicas of expert e are [offsets[e], offsets[e+1]),
/// by ascending rank. Token t takes the first of them whose bound is above the t-th point of the golden-ratio
/// sequence, (t + 1) * 2654435769 mod 2^32 / 2, or else the last: any run of tokens is spread over the shares
/// almost exactly (discrepancy O(log n / n)), and integers give the same choice on every device.
struct ReplicaTable {
  Tensor offsets;  // [num_experts + 1] int32
  Tensor ranks;    // [num_replicas] int32
  Tensor bounds;   // [num_replicas] int32: share, of this rank's tokens, of the replica and those before it,
                   // in units of 2^-31
  Tensor slots;    // [num_replicas] int32: position of the replica when all are ordered by rank, then expert
};

/// The sender's half of a dispatch: which token goes to which rank in which row. A token takes one row to
/// each rank that hosts at least one of its experts. Rows are ordered by rank, then by token; the pairs
/// (token, expert) by row, then by top-k. The terms of token t, [term_offsets[t], term_offsets[t+1]), say
/// what aggregation sums: its rows by ascending rank, or with `terms_are_pairs` its pairs in the order of
/// top-k, to be weighted with `weights`. Without tokens `counts` and `row_offsets` are still written.
struct AssignRowsArgs {
  Tensor expert_ids;      // [num_tokens, top_k] int32, each in [0, num_experts)
  Tensor weights;         // [num_tokens, top_k] float32
  ReplicaTable replicas;  // ranks in [0, num_ranks)
  std::int32_t num_ranks = 1;
  bool terms_are_pairs = false;
  Tensor scratch;       // at least assign_rows_scratch_bytes(...) bytes, any dtype
  Tensor counts;        // [num_ranks + num_replicas] int32: rows by rank, then pairs by slot
  Tensor row_offsets;   // [num_ranks + 1] int32: rows of rank r are [row_offsets[r], row_offsets[r+1])
  Tensor row_tokens;    // [max_rows] int32, max_rows = num_tokens * min(top_k, num_ranks); as many as rows
  Tensor headers;       // [max_rows, 2 * top_k] int32: top_k RowEntry a row
  Tensor term_offsets;  // [num_tokens + 1] int32
  Tensor term_indices;  // [num_tokens * top_k] int32: positions of rows, or of pairs
};

/// The packing step of a dispatch: row i of `output` is input[indices[i], :] in the wire's dtype, then, from
/// `header_offset` on, the i-th header; the rest of `row_bytes` is left as it is. With `row_offsets` there
/// are only as many rows as it ends with, and those of `left_out_rank` are skipped.
struct PackRowsArgs {
  Tensor input;        // [num_input_rows, width]
  Tensor indices;      // [num_rows] int32
  Tensor headers;      // [num_rows, header_width] int32, or no data
  Tensor row_offsets;  // [num_ranks + 1] int32, rising from 0 to at most num_rows; or no data
  std::int32_t left_out_rank = 0;
  std::size_t header_offset = 0;  // at least wire_bytes(width, wire_dtype); a multiple of 4, as row_bytes
  std::size_t row_bytes = 0;      // stride of the output
  DType wire_dtype = DType::kFloat32;  // or bfloat16, or float8_e4m3 with scales (float8.h)
  std::byte* output = nullptr;         // [num_rows, row_bytes]
};

/// What pack_rows laid out as float8_e4m3, back as ordinary numbers: output[i, :] = numbers of row i times
/// their scales.
struct DequantizeRowsArgs {
  const std::byte* rows = nullptr;  // [num_rows, row_bytes]
  std::size_t row_bytes = 0;        // at least wire_bytes(width, float8_e4m3); a multiple of 4
  Tensor output;                    // [num_rows, width] float32 or bfloat16
};

/// The receiver's half of a dispatch: reads the headers of received rows and orders the pairs (row, entry) by
/// local expert, then by row. The pairs are as many as the senders' counts announce, which is what the
/// outputs have room for; headers that disagree are a broken invariant and an error. No row names an expert
/// twice. The terms of row r, [term_offsets[r], term_offsets[r+1]), are its entries in their order.
struct GroupRowsArgs {
  const std::byte* rows = nullptr;  // [num_rows, row_bytes]; headers of top_k RowEntry at `header_offset`
  std::int64_t num_rows = 0;
  std::size_t row_bytes = 0;
  std::size_t header_offset = 0;
  std::int32_t top_k = 0;
  Tensor local_index;     // [num_experts] int32: among this rank's experts, or -1
  Tensor scratch;         // at least group_rows_scratch_bytes(...) bytes, any dtype
  Tensor expert_offsets;  // [num_local_experts + 1] int32: pairs of local expert e are [e, e + 1) of these
  Tensor row_indices;     // [num_pairs] int32: row of each pair, grouped by local expert
  Tensor term_offsets;    // [num_rows + 1] int32
  Tensor term_indices;    // [num_pairs] int32: position among the grouped pairs
  Tensor term_weights;    // [num_pairs] float32
};

/// What group_rows leaves, for tokens whose experts all live here: orders the pairs (token, expert) by
/// expert, then by token, without rows or headers. The terms of token t, [t * top_k, (t + 1) * top_k), are
/// its pairs in the order of its top-k, so that the router's weights are the terms' as they are.
struct GroupPairsArgs {
  Tensor expert_ids;      // [num_tokens, top_k] int32, each in [0, num_experts)
  Tensor scratch;         // at least group_rows_scratch_bytes(...) bytes, any dtype
  Tensor expert_offsets;  // [num_experts + 1] int32: pairs of expert e are [e, e + 1) of these
  Tensor row_indices;     // [num_tokens * top_k] int32: token of each pair, grouped by expert
  Tensor term_offsets;    // [num_tokens + 1] int32
  Tensor term_indices;    // [num_tokens * top_k] int32: position among the grouped pairs
};

/// output[r, :] = (initial[r, :] or 0) + sum over p in [offsets[r], offsets[r+1]) of
/// weights[p] * input[indices[p], :], added in the order of p in float32. Both halves of a combine: the
/// experts' rank sums its share of a token, the token's rank sums the shares.
struct WeightedSumArgs {
  Tensor input;    // [num_input_rows, width]
  Tensor offsets;  // [num_rows + 1] int32
  Tensor indices;  // [num_terms] int32
  Tensor weights;  // [num_terms] float32, or no data for all ones
  Tensor initial;  // [num_rows, width], or no data for zeros; may be `output` itself
  Tensor output;   // [num_rows, width]; float32 or bfloat16
};

/// For each expert e and each p in [expert_offsets[e], expert_offsets[e+1]):
///   x = input[row_indices[p], :];  output[p, :] = down_e * (silu(gate_e * x) .* (up_e * x))
/// The sizes of the groups are on the device alone; the host knows a bound on their sum, num_rows. Rows of
/// `output` from the last offset on are left as they are.
struct ExpertFfnArgs {
  Tensor input;  // [num_input_rows, at least hidden] compute dtype or bfloat16 (the wire's); only the first
                 // `hidden` columns are read
  Tensor row_indices;     // [num_rows] int32, grouped by expert
  Tensor expert_offsets;  // [num_experts + 1] int32, rising from 0 to at most num_rows
  const ExpertBank* experts = nullptr;
  Tensor scratch;  // at least expert_ffn_scratch_bytes(...) bytes, any dtype
  Tensor output;   // [num_rows, hidden]
};

/// output = silu(gate) .* up, elementwise; output may be gate or up.
struct SiluMultiplyArgs {
  Tensor gate;
  Tensor up;
  Tensor output;
};

/// output += input, elementwise.
struct AddArgs {
  Tensor input;
  Tensor output;
};

/// output[i, :] += sigmoid(gate_logits[i]) * input[i, :]: Qwen2-MoE's gated shared expert.
struct SigmoidGatedAddArgs {
  Tensor input;        // [num_rows, width]
  Tensor gate_logits;  // [num_rows]
  Tensor output;       // [num_rows, width]
};

/// How the next token is chosen from one row of logits. `temperature` 0 is greedy (ties to the lower id);
/// otherwise logits are divided by it, then top-k (0: all), then top-p (1: all) restrict the choice, in that
/// order, as in Hugging Face generation. The draw uses `random`, a uniform number in [0, 1).
struct SamplingRow {
  float temperature = 0;
  std::int32_t top_k = 0;
  float top_p = 1;
  float random = 0;
};

struct SampleArgs {
  Tensor logits;                      // [num_rows, vocabulary] float32
  std::span<const SamplingRow> rows;  // [num_rows], host
  Tensor token_ids;                   // [num_rows] int32, output
};

class Ops {
 public:
  virtual ~Ops() = default;

  virtual void embed(Stream& stream, const EmbedArgs& args) const = 0;
  virtual void rms_norm(Stream& stream, const RmsNormArgs& args) const = 0;
  virtual void linear(Stream& stream, const LinearArgs& args) const = 0;
  virtual void rope(Stream& stream, const RopeArgs& args) const = 0;
  virtual void clamp(Stream& stream, const ClampArgs& args) const = 0;
  virtual void append_kv(Stream& stream, const AppendKvArgs& args) const = 0;
  virtual void paged_attention(Stream& stream, const PagedAttentionArgs& args) const = 0;
  virtual void route(Stream& stream, const RouteArgs& args) const = 0;
  virtual void gather_rows(Stream& stream, const GatherRowsArgs& args) const = 0;
  virtual void assign_rows(Stream& stream, const AssignRowsArgs& args) const = 0;
  virtual std::size_t assign_rows_scratch_bytes(std::int64_t num_tokens, std::int64_t top_k,
                                                std::int32_t num_ranks) const = 0;
  virtual void pack_rows(Stream& stream, const PackRowsArgs& args) const = 0;
  virtual void dequantize_rows(Stream& stream, const DequantizeRowsArgs& args) const = 0;
  virtual void group_rows(Stream& stream, const GroupRowsArgs& args) const = 0;
  virtual void group_pairs(Stream& stream, const GroupPairsArgs& args) const = 0;
  /// Scratch that `group_rows` needs for so many rows, and `group_pairs` for so many tokens.
  virtual std::size_t group_rows_scratch_bytes(std::int64_t num_rows, std::int64_t top_k,
                                               std::int64_t num_local_experts) const = 0;
  virtual void weighted_sum(Stream& stream, const WeightedSumArgs& args) const = 0;
  /// Returns when the bank can be used on any stream.
  virtual std::unique_ptr<ExpertBank> make_expert_bank(std::span<const ExpertWeights> experts) const = 0;
  virtual void expert_ffn(Stream& stream, const ExpertFfnArgs& args) const = 0;
  /// Scratch that `expert_ffn` needs for `num_rows` rows in total.
  virtual std::size_t expert_ffn_scratch_bytes(std::int64_t num_rows, std::int64_t hidden,
                                               std::int64_t inner) const = 0;
  virtual void silu_multiply(Stream& stream, const SiluMultiplyArgs& args) const = 0;
  virtual void add(Stream& stream, const AddArgs& args) const = 0;
  virtual void sigmoid_gated_add(Stream& stream, const SigmoidGatedAddArgs& args) const = 0;
  virtual void sample(Stream& stream, const SampleArgs& args) const = 0;
};

}  // namespace aurora
