// The operations of ops.h on a GPU. One .cu file per operation or small family, named as in cpu/.
#pragma once

#include "kernels/check_args.h"
#include "kernels/ops.h"

namespace aurora::cuda {

class CudaOps final : public Ops {
 public:
  explicit CudaOps(bool deterministic) : deterministic_(deterministic) {}

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
  bool deterministic_;
};

}  // namespace aurora::cuda
