// Expert networks as two products over all experts, each computed in the fastest way that fits it.
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/expert_products.h"

namespace aurora::cuda {
namespace {

const CudaExpertBank& cuda_bank(const ExpertBank* bank) {
  const auto* own = dynamic_cast<const CudaExpertBank*>(bank);
  check(own != nullptr, "expert_ffn: the experts' bank was made by another backend");
  return *own;
}

void submit(CudaStream& stream, const ExpertProduct& product, bool is_deterministic) {
  if (is_deterministic) return submit_scalar(stream, product);
  if (fits_wgmma(product)) return submit_wgmma(stream, product);
  if (fits_mma(product)) return submit_mma(stream, product);
  submit_scalar(stream, product);
}

}  // namespace

// The activations of all rows, in the weights' dtype.
std::size_t CudaOps::expert_ffn_scratch_bytes(std::int64_t num_rows, std::int64_t, std::int64_t inner) const {
  return static_cast<std::size_t>(num_rows * inner) * sizeof(float);
}

std::unique_ptr<ExpertBank> CudaOps::make_expert_bank(std::span<const ExpertWeights> experts) const {
  return std::make_unique<CudaExpertBank>(experts);
}

void CudaOps::expert_ffn(Stream& stream, const ExpertFfnArgs& args) const {
  const std::int64_t num_rows = args.output.dim(0);
  if (num_rows == 0) return;
  const CudaExpertBank& experts = cuda_bank(args.experts);
  const std::int64_t hidden = args.output.dim(1);
  check_args(args, static_cast<std::size_t>(num_rows * experts.inner()) * dtype_bytes(experts.dtype()));
  CudaStream& own = cuda_stream(stream);
  const Tensor activation(args.scratch.bytes(), experts.dtype(), {num_rows, experts.inner()});
  submit(own,
         {.stage = ExpertStage::kGateUp,
          .experts = &experts,
          .expert_offsets = args.expert_offsets.i32(),
          .input = args.input,
          .row_indices = args.row_indices.i32(),
          .in_width = hidden,
          .output = activation},
         deterministic_);
  submit(own,
         {.stage = ExpertStage::kDown,
          .experts = &experts,
          .expert_offsets = args.expert_offsets.i32(),
          .input = activation,
          .row_indices = nullptr,
          .in_width = experts.inner(),
          .output = args.output},
         deterministic_);
}

}  // namespace aurora::cuda
