// embed, gather_rows.
#include "kernels/cuda/copy_rows.cuh"
#include "kernels/cuda/cuda_ops.h"
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
};

/// One block a row. `kVector` elements at a time; rows must then be aligned to as many.
template <class From, class To, int kVector>
__global__ void copy_rows_kernel(RowCopyShape shape, const From* input, std::byte* output, FaultSite site,
                                 FaultSink faults) {
  const std::int64_t row = blockIdx.x;
  const std::int64_t index = shape.indices[row];
  if (!index_fits(faults, site, row, index, shape.num_input_rows)) return;
  auto* to = reinterpret_cast<To*>(output + row * shape.output_row_bytes);
  copy_row<From, To, kVector>(input + index * shape.input_stride, to, shape.width);
}

template <class From, class To>
void launch_copy(CudaStream& stream, const RowCopy& args) {
  const RowCopyShape shape{args.indices, args.input.dim(0), args.input.dim(1), args.width,
                           args.output_row_bytes};
  const auto* input = data_of<const From>(args.input);
  constexpr int kWide = kWideVector<From, To>;
  const bool is_wide = allows_wide_vectors<From, To>(
      {input, shape.input_stride, args.output, shape.output_row_bytes, shape.width});
  const unsigned threads = threads_for_row(is_wide ? shape.width / kWide : shape.width);
  const auto blocks = static_cast<unsigned>(args.num_rows);
  if (is_wide) {
    copy_rows_kernel<From, To, kWide>
        <<<blocks, threads, 0, stream.handle()>>>(shape, input, args.output, args.site, stream.faults());
  } else {
    copy_rows_kernel<From, To, 1>
        <<<blocks, threads, 0, stream.handle()>>>(shape, input, args.output, args.site, stream.faults());
  }
  check_launch("copy_rows");
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
