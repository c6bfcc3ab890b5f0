#include <cuda_runtime.h>

#include <vector>

#include "kernels/cuda/check_cuda.h"
#include "kernels/cuda/expert_products.h"

namespace aurora::cuda {
namespace {

// Rows of a box of the copy engine: what one warpgroup multiplies.
constexpr std::uint32_t kBoxRows = 64;

/// Copies a table to new device memory and returns when it is there.
template <class T>
T* upload(const std::vector<T>& table) {
  void* memory = nullptr;
  check_cuda(cudaMalloc(&memory, table.size() * sizeof(T)), "table of experts");
  check_cuda(cudaMemcpy(memory, table.data(), table.size() * sizeof(T), cudaMemcpyHostToDevice),
             "table of experts");
  return static_cast<T*>(memory);
}

TensorMap map_of(const Tensor& weight) {
  return make_tensor_map(weight.bytes(), weight.dim(0), weight.dim(1), weight.dim(1), kBoxRows);
}

bool is_aligned(const Tensor& weight) {
  constexpr std::uintptr_t kAlignment = 16;
  return reinterpret_cast<std::uintptr_t>(weight.bytes()) % kAlignment == 0 && weight.dim(1) % 8 == 0;
}

bool can_be_mapped(std::span<const ExpertWeights> experts) {
  for (const ExpertWeights& expert : experts) {
    if (expert.gate.dtype() != DType::kBFloat16) return false;
    if (!is_aligned(expert.gate) || !is_aligned(expert.up) || !is_aligned(expert.down)) return false;
  }
  return has_wgmma();
}

}  // namespace

CudaExpertBank::CudaExpertBank(std::span<const ExpertWeights> experts) : ExpertBank(experts) {
  if (experts.empty()) return;
  std::vector<ExpertPointers> pointers;
  for (const ExpertWeights& expert : experts) {
    pointers.push_back({expert.gate.bytes(), expert.up.bytes(), expert.down.bytes()});
  }
  pointers_ = upload(pointers);
  if (inner() == 0 || hidden() == 0 || !can_be_mapped(experts)) return;
  std::vector<ExpertMaps> maps;
  for (const ExpertWeights& expert : experts) {
    maps.push_back({map_of(expert.gate), map_of(expert.up), map_of(expert.down)});
  }
  maps_ = upload(maps);
}

CudaExpertBank::~CudaExpertBank() {
  cudaFree(pointers_);
  cudaFree(maps_);
}

}  // namespace aurora::cuda
