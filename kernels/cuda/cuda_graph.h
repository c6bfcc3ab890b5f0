// CUDA graphs: what one stream would have been given launch by launch, given as one.
#pragma once

#include <functional>

#include "kernels/backend.h"
#include "kernels/cuda/cuda_stream.h"

namespace aurora::cuda {

class CudaGraph final : public Graph {
 public:
  /// Records what `submit` submits to `stream`, and makes it ready to launch. Throws what `submit` throws,
  /// and kDevice when CUDA refuses something of it.
  CudaGraph(CudaStream& stream, const std::function<void()>& submit);
  ~CudaGraph() override;
  CudaGraph(const CudaGraph&) = delete;
  CudaGraph& operator=(const CudaGraph&) = delete;

  bool is_current() const override;
  void launch(Stream& stream) override;

 private:
  CudaStream* stream_;
  std::uint64_t generation_ = 0;
  const std::byte* scratch_ = nullptr;
  cudaGraphExec_t executable_ = nullptr;
};

}  // namespace aurora::cuda
