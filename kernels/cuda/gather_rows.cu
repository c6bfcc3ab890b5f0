// embed, gather_rows.
#include "kernels/cuda/copy_rows.cuh"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/dependent_launch.cuh"
#include "kernels/cuda/device_fault.cuh"
#include "kernels/cuda/row_copy.cuh"

namespace aurora::cuda {
namespace {

struct RowCopyShape {
  const std::int32_t* indices;
  std::int64_t num_input_rows;
  std::int64_t input_stride;  // elements
  std::int64_t width;
  std::int64_t output_row_bytes;
  unsigned blocks_per_row;
};

/// `kVector` elements at a time; rows must then be aligned to as many.
template <class From, class To, int kVector>
__global__ void copy_rows_kernel(RowCopyShape shape, const From* input, std::byte* output, FaultSite site,
                                 FaultSink faults) {
  const RowShare share = row_share(shape.blocks_per_row);
  wait_for_kernel_before();
  let_next_kernel_begin();
  const std::int64_t index = shape.indices[share.row];
  if (!index_fits(faults, site, share.row, index, shape.num_input_rows)) return;
  auto* to = reinterpret_cast<To*>(output + share.row * shape.output_row_bytes);
  copy_row<From, To, kVector>(input + index * shape.input_stride, to, shape.width, share);
}

template <class From, class To>
void launch_copy(CudaStream& stream, const RowCopy& args) {
  constexpr int kWide = kWideVector<From, To>;
  const auto* input = data_of<const From>(args.input);
  const bool is_wide = allows_vectors<kWide, From, To>(
      {input, args.input.dim(1), args.output, args.output_row_bytes, args.width});
  const RowBlocks blocks =
      blocks_of_rows(args.num_rows, is_wide ? args.width / kWide : args.width, kPartsInFlight);
  const RowCopyShape shape{args.indices, args.input.dim(0),     args.input.dim(1),
                           args.width,   args.output_row_bytes, blocks.blocks_per_row};
  launch_dependent(is_wide ? copy_rows_kernel<From, To, kWide> : copy_rows_kernel<From, To, 1>,
                   static_cast<unsigned>(args.num_rows) * blocks.blocks_per_row, blocks.threads, 0,
                   stream.handle(), "copy_rows", shape, input, args.output, args.site, stream.faults());
}

}  // namespace

void copy_rows(CudaStream& stream, const RowCopy& args) {
  if (args.num_rows == 0 || args.width == 0) return;
  with_element(args.input.dtype(), "copy_rows", [&]<class From>(From*) {
    with_element(args.output_dtype, "copy_rows", [&]<class To>(To*) { launch_copy<From, To>(stream, args); });
  });
}

void CudaOps::embed(Stream& stream, const EmbedArgs& args) const {
  check_args(args);
  const std::int64_t width = args.output.dim(1);
  copy_rows(cuda_stream(stream),
            {.input = args.table,
             .indices = args.token_ids.i32(),
             .num_rows = args.output.dim(0),
             .width = width,
             .output_dtype = args.output.dtype(),
             .output = args.output.bytes(),
             .output_row_bytes = width * static_cast<std::int64_t>(dtype_bytes(args.output.dtype())),
             .site = FaultSite::kEmbedTokenIds});
}

void CudaOps::gather_rows(Stream& stream, const GatherRowsArgs& args) const {
  check_args(args);
  const std::int64_t width = args.output.dim(1);
  copy_rows(cuda_stream(stream),
            {.input = args.input,
             .indices = args.indices.i32(),
             .num_rows = args.output.dim(0),
             .width = width,
             .output_dtype = args.output.dtype(),
             .output = args.output.bytes(),
             .output_row_bytes = width * static_cast<std::int64_t>(dtype_bytes(args.output.dtype())),
             .site = FaultSite::kGatherIndices});
}

}  // namespace aurora::cuda
