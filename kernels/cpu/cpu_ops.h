// The operations of ops.h on the host's processor, float32. One file per operation or small family.
//
// Every operation first checks its arguments' shapes in the submitting call (kInternal: a wrong shape is a
// bug of ours) and then submits its work. Indices that live in tensors are checked when the work runs.
#pragma once

#include <string_view>

#include "kernels/check_args.h"
#include "kernels/cpu/cpu_stream.h"
#include "kernels/ops.h"

namespace aurora::cpu {

class CpuOps final : public Ops {
 public:
  explicit CpuOps(bool deterministic) : deterministic_(deterministic) {}

  void embed(Stream& stream, const EmbedArgs& args) const override;
  void rms_norm(Stream& stream, const RmsNormArgs& args) const override;
  void linear(Stream& stream, const LinearArgs& args) const override;
  void rope(Stream& stream, const RopeArgs& args) const override;
  void clamp(Stream& stream, const ClampArgs& args) const override;
  void append_kv(Stream& stream, const AppendKvArgs& args) const override;
  void paged_attention(Stream& stream, const PagedAttentionArgs& args) const override;
  void route(Stream& stream, const RouteArgs& args) const override;
  void gather_rows(Stream& stream, const GatherRowsArgs& args) const override;
  void assign_rows(Stream& stream, const AssignRowsArgs& args) const override;
  std::size_t assign_rows_scratch_bytes(std::int64_t num_tokens, std::int64_t top_k,
                                        std::int32_t num_ranks) const override;
  void pack_rows(Stream& stream, const PackRowsArgs& args) const override;
  void dequantize_rows(Stream& stream, const DequantizeRowsArgs& args) const override;
  void group_rows(Stream& stream, const GroupRowsArgs& args) const override;
  void group_pairs(Stream& stream, const GroupPairsArgs& args) const override;
  std::size_t group_rows_scratch_bytes(std::int64_t num_rows, std::int64_t top_k,
                                       std::int64_t num_local_experts) const override;
  void weighted_sum(Stream& stream, const WeightedSumArgs& args) const override;
  std::unique_ptr<ExpertBank> make_expert_bank(std::span<const ExpertWeights> experts) const override;
  void expert_ffn(Stream& stream, const ExpertFfnArgs& args) const override;
  std::size_t expert_ffn_scratch_bytes(std::int64_t num_rows, std::int64_t hidden,
                                       std::int64_t inner) const override;
  void silu_multiply(Stream& stream, const SiluMultiplyArgs& args) const override;
  void add(Stream& stream, const AddArgs& args) const override;
  void sigmoid_gated_add(Stream& stream, const SigmoidGatedAddArgs& args) const override;
  void sample(Stream& stream, const SampleArgs& args) const override;

 private:
  const bool deterministic_;
};

/// Throws kInternal when the stream belongs to another backend.
CpuStream& cpu_stream(Stream& stream);

/// Throws kInternal naming the index, its row and the limit unless 0 <= value < limit.
inline void check_index(std::int64_t value, std::int64_t limit, std::int64_t row, std::string_view name);

// Implementation.

[[noreturn]] void throw_index_out_of_range(std::int64_t value, std::int64_t limit, std::int64_t row,
                                           std::string_view name);

inline void check_index(std::int64_t value, std::int64_t limit, std::int64_t row, std::string_view name) {
  if (value < 0 || value >= limit) throw_index_out_of_range(value, limit, row, name);
}

}  // namespace aurora::cpu
