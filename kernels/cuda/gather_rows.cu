// embed, gather_rows, pack_rows.
#include <algorithm>

#include "kernels/cuda/copy_rows.cuh"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/device_fault.cuh"

namespace aurora::cuda {
namespace {

constexpr int kMaxThreads = 256;

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
  struct alignas(sizeof(From) * kVector) FromVector {
    From part[kVector];
  };
  struct alignas(sizeof(To) * kVector) ToVector {
    To part[kVector];
  };
  const auto* from = reinterpret_cast<const FromVector*>(input + index * shape.input_stride);
  auto* to = reinterpret_cast<ToVector*>(output + row * shape.output_row_bytes);
  for (std::int64_t i = threadIdx.x; i < shape.width / kVector; i += blockDim.x) {
    const FromVector values = from[i];
    ToVector converted;
    for (int v = 0; v < kVector; ++v) converted.part[v] = convert<To>(values.part[v]);
    to[i] = converted;
  }
}

/// Header i, of `num_words` words, to row i.
template <class Word>
__global__ void write_headers_kernel(const Word* headers, std::int64_t num_rows, std::int64_t num_words,
                                     std::byte* output, std::int64_t row_bytes) {
  const std::int64_t at = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (at >= num_rows * num_words) return;
  const std::int64_t row = at / num_words;
  reinterpret_cast<Word*>(output + row * row_bytes)[at % num_words] = headers[at];
}

template <class Word>
void launch_headers(CudaStream& stream, const PackRowsArgs& args) {
  const std::int64_t num_rows = args.indices.dim(0);
  const auto num_words = static_cast<std::int64_t>(header_bytes(args) / sizeof(Word));
  const StagedArray headers(stream, args.headers);
  write_headers_kernel<<<blocks_for(num_rows * num_words, kMaxThreads), kMaxThreads, 0, stream.handle()>>>(
      headers.as<Word>(), num_rows, num_words, args.output + args.header_offset,
      static_cast<std::int64_t>(args.row_bytes));
  check_launch("pack_rows headers");
}

template <class From, class To>
void launch_copy(CudaStream& stream, const RowCopy& args) {
  const RowCopyShape shape{args.indices, args.input.dim(0), args.input.dim(1), args.width,
                           args.output_row_bytes};
  const auto* input = data_of<const From>(args.input);
  constexpr int kWide = 16 / static_cast<int>(std::max(sizeof(From), sizeof(To)));
  const auto is_aligned = [&](std::int64_t elements) { return elements % kWide == 0; };
  const bool is_wide = is_aligned(shape.width) && is_aligned(shape.input_stride) &&
                       shape.output_row_bytes % static_cast<std::int64_t>(sizeof(To) * kWide) == 0 &&
                       reinterpret_cast<std::uintptr_t>(input) % (sizeof(From) * kWide) == 0 &&
                       reinterpret_cast<std::uintptr_t>(args.output) % (sizeof(To) * kWide) == 0;
  const std::int64_t num_parts = is_wide ? shape.width / kWide : shape.width;
  const int threads = static_cast<int>(std::clamp<std::int64_t>((num_parts + 31) / 32 * 32, 32, kMaxThreads));
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

void CudaOps::pack_rows(Stream& stream, const PackRowsArgs& args) const {
  check_args(args);
  if (args.indices.is_empty()) return;
  CudaStream& own = cuda_stream(stream);
  const std::int64_t num_rows = args.indices.dim(0);
  copy_rows(own, {.input = args.input,
                  .indices = args.indices.i32(),
                  .num_rows = num_rows,
                  .width = args.input.dim(1),
                  .output_dtype = args.wire_dtype,
                  .output = args.output,
                  .output_row_bytes = static_cast<std::int64_t>(args.row_bytes),
                  .site = FaultSite::kPackIndices});
  if (header_bytes(args) == 0) return;
  const bool in_words = (header_bytes(args) | args.header_offset | args.row_bytes |
                         reinterpret_cast<std::uintptr_t>(args.output)) %
                            sizeof(std::uint32_t) ==
                        0;
  if (in_words) {
    launch_headers<std::uint32_t>(own, args);
  } else {
    launch_headers<std::byte>(own, args);
  }
}

}  // namespace aurora::cuda
