// Expert networks: rows gathered into the experts' order and dtype, then three products an expert.
#include "kernels/cuda/activations.cuh"
#include "kernels/cuda/copy_rows.cuh"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/gemm.cuh"

namespace aurora::cuda {
namespace {

// Scratch of all rows, in the weights' dtype, one after the other: gathered inputs, gate, up.
std::size_t scratch_elements(std::int64_t num_rows, std::int64_t hidden, std::int64_t inner) {
  return static_cast<std::size_t>(num_rows) * static_cast<std::size_t>(hidden + 2 * inner);
}

class ExpertRun {
 public:
  ExpertRun(CudaStream& stream, const ExpertFfnArgs& args, GemmOrder order)
      : stream_(&stream),
        args_(&args),
        order_(order),
        hidden_(args.output.dim(1)),
        inner_(widest_inner(args)),
        dtype_(args.experts.front().gate.dtype()),
        element_bytes_(dtype_bytes(dtype_)) {}

  void run() {
    const std::int64_t num_rows = args_->output.dim(0);
    const auto rows = static_cast<std::size_t>(num_rows);
    gathered_ = args_->scratch.bytes();
    gate_ = gathered_ + rows * static_cast<std::size_t>(hidden_) * element_bytes_;
    up_ = gate_ + rows * static_cast<std::size_t>(inner_) * element_bytes_;
    copy_rows(*stream_, {.input = args_->input,
                         .indices = args_->row_indices.i32(),
                         .num_rows = num_rows,
                         .width = hidden_,
                         .output_dtype = dtype_,
                         .output = gathered_,
                         .output_row_bytes = hidden_ * static_cast<std::int64_t>(element_bytes_),
                         .site = FaultSite::kExpertRowIndices});
    for (std::size_t e = 0; e < args_->experts.size(); ++e) {
      const std::int32_t begin = args_->expert_offsets[e];
      const std::int32_t end = args_->expert_offsets[e + 1];
      if (end > begin) run_expert(args_->experts[e], begin, end - begin);
    }
  }

 private:
  void run_expert(const ExpertWeights& expert, std::int64_t begin, std::int64_t num_rows) {
    const std::int64_t inner = expert.gate.dim(0);
    check(expert.gate.dtype() == dtype_ && expert.up.dtype() == dtype_ && expert.down.dtype() == dtype_,
          "expert_ffn: the experts' weights differ in dtype");
    std::byte* gate = at(gate_, begin, inner_);
    std::byte* up = at(up_, begin, inner_);
    Gemm product{.input = at(gathered_, begin, hidden_),
                 .weight = expert.gate.bytes(),
                 .output = gate,
                 .dtype = dtype_,
                 .output_dtype = dtype_,
                 .num_rows = num_rows,
                 .in_width = hidden_,
                 .out_width = inner};
    gemm(*stream_, product, order_);
    product.weight = expert.up.bytes();
    product.output = up;
    gemm(*stream_, product, order_);
    const Tensor activated(gate, dtype_, {num_rows, inner});
    silu_multiply(*stream_, activated, Tensor(up, dtype_, {num_rows, inner}), activated);
    const std::size_t output_row = static_cast<std::size_t>(hidden_) * dtype_bytes(args_->output.dtype());
    gemm(*stream_,
         {.input = gate,
          .weight = expert.down.bytes(),
          .output = args_->output.bytes() + static_cast<std::size_t>(begin) * output_row,
          .dtype = dtype_,
          .output_dtype = args_->output.dtype(),
          .num_rows = num_rows,
          .in_width = inner,
          .out_width = hidden_},
         order_);
  }

  std::byte* at(std::byte* base, std::int64_t row, std::int64_t width) const {
    return base + static_cast<std::size_t>(row * width) * element_bytes_;
  }

  CudaStream* stream_;
  const ExpertFfnArgs* args_;
  GemmOrder order_;
  std::int64_t hidden_;
  std::int64_t inner_;
  DType dtype_;
  std::size_t element_bytes_;
  std::byte* gathered_ = nullptr;
  std::byte* gate_ = nullptr;
  std::byte* up_ = nullptr;
};

}  // namespace

std::size_t CudaOps::expert_ffn_scratch_bytes(std::int64_t num_rows, std::int64_t hidden,
                                              std::int64_t inner) const {
  return scratch_elements(num_rows, hidden, inner) * sizeof(float);
}

void CudaOps::expert_ffn(Stream& stream, const ExpertFfnArgs& args) const {
  if (args.output.dim(0) == 0) return;
  check(!args.experts.empty(), "expert_ffn: rows without experts");
  check_args(args, scratch_elements(1, args.output.dim(1), widest_inner(args)) *
                       dtype_bytes(args.experts.front().gate.dtype()));
  ExpertRun(cuda_stream(stream), args, deterministic_ ? GemmOrder::kFixed : GemmOrder::kAny).run();
}

}  // namespace aurora::cuda
