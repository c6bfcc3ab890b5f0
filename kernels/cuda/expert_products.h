// The two products of expert_ffn, and the ways of computing them.
//
// With the rows of each expert side by side, the network is two products over all experts at once:
//   kGateUp   activation[p] = silu(gate_e * x) .* (up_e * x),  x = input[row_indices[p]]
//   kDown     output[p]     = down_e * activation[p]
// Each is one launch, whatever the number of experts. Three ways:
//   wgmma   Hopper's tensor cores and copy engine: bfloat16, widths in multiples of 8, rows aligned to 16
//   bytes mma     the tensor cores of every GPU since Ampere: bfloat16, any width scalar  any dtype and
//   width; every element is one sum over the inner dimension in ascending order
#pragma once

#include <cstdint>
#include <span>

#include "kernels/cuda/cuda_stream.h"
#include "kernels/cuda/tensor_map.h"
#include "kernels/expert_bank.h"

namespace aurora::cuda {

enum class ExpertStage : std::uint8_t { kGateUp, kDown };

/// One expert's weights as a kernel finds them.
struct ExpertPointers {
  const std::byte* gate = nullptr;
  const std::byte* up = nullptr;
  const std::byte* down = nullptr;
};

/// The same for the copy engine: 64 rows by 64 columns at a time.
struct ExpertMaps {
  TensorMap gate;
  TensorMap up;
  TensorMap down;
};

class CudaExpertBank final : public ExpertBank {
 public:
  explicit CudaExpertBank(std::span<const ExpertWeights> experts);
  ~CudaExpertBank() override;

  /// Device memory, [size()].
  const ExpertPointers* pointers() const { return pointers_; }
  /// Device memory, [size()]; null where the wgmma way cannot be gone.
  const ExpertMaps* maps() const { return maps_; }

 private:
  ExpertPointers* pointers_ = nullptr;
  ExpertMaps* maps_ = nullptr;
};

struct ExpertProduct {
  ExpertStage stage = ExpertStage::kGateUp;
  const CudaExpertBank* experts = nullptr;
  const std::int32_t* expert_offsets = nullptr;  // [num_experts + 1], device
  Tensor input;                                  // [num_input_rows, at least in_width]
  const std::int32_t* row_indices = nullptr;     // [num_rows], device; null: row p is the p-th
  std::int64_t in_width = 0;
  Tensor output;  // [num_rows, out_width]
};

/// Whether the current device has Hopper's units and this build the code for them (architecture 90a).
bool has_wgmma();
/// Whether this way can be gone for this product.
bool fits_wgmma(const ExpertProduct& product);
bool fits_mma(const ExpertProduct& product);

void submit_wgmma(CudaStream& stream, const ExpertProduct& product);
void submit_mma(CudaStream& stream, const ExpertProduct& product);
void submit_scalar(CudaStream& stream, const ExpertProduct& product);

}  // namespace aurora::cuda
