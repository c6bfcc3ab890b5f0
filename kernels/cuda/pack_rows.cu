#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/device_fault.cuh"
#include "kernels/cuda/float8_rows.cuh"
#include "kernels/cuda/row_copy.cuh"

namespace aurora::cuda {
namespace {

struct Packing {
  const std::int32_t* indices;
  const std::uint32_t* headers;     // [num_rows, header_words]
  const std::int32_t* row_offsets;  // [num_ranks + 1], or null
  std::int32_t num_ranks;
  std::int32_t left_out_rank;
  std::int64_t num_input_rows;
  std::int64_t width;
  std::int64_t header_words;
  std::int64_t header_offset;
  std::int64_t row_bytes;
};

__device__ bool is_packed(const Packing& packing, std::int64_t row) {
  if (packing.row_offsets == nullptr) return true;
  if (row >= packing.row_offsets[packing.num_ranks]) return false;
  return row < packing.row_offsets[packing.left_out_rank] ||
         row >= packing.row_offsets[packing.left_out_rank + 1];
}

/// One block a row that there may be. `write(source, place)` writes the payload with all threads.
template <class From, class Write>
__device__ void pack_row(const Packing& packing, const From* input, std::byte* output, FaultSink faults,
                         const Write& write) {
  const std::int64_t row = blockIdx.x;
  if (!is_packed(packing, row)) return;
  const std::int64_t index = packing.indices[row];
  if (!index_fits(faults, FaultSite::kPackIndices, row, index, packing.num_input_rows)) return;
  std::byte* place = output + row * packing.row_bytes;
  write(input + index * packing.width, place);
  auto* header = reinterpret_cast<std::uint32_t*>(place + packing.header_offset);
  for (std::int64_t word = threadIdx.x; word < packing.header_words; word += blockDim.x) {
    header[word] = packing.headers[row * packing.header_words + word];
  }
}

template <class From, class To, int kVector>
__global__ void pack_rows_kernel(Packing packing, const From* input, std::byte* output, FaultSink faults) {
  pack_row(packing, input, output, faults, [&](const From* source, std::byte* place) {
    copy_row<From, To, kVector>(source, reinterpret_cast<To*>(place), packing.width);
  });
}

template <class From>
__global__ void pack_float8_kernel(Packing packing, Float8RowShape shape, const From* input,
                                   std::byte* output, FaultSink faults) {
  pack_row(packing, input, output, faults,
           [&](const From* source, std::byte* place) { quantize_row(source, place, shape); });
}

template <class From>
void launch_float8_packing(CudaStream& stream, const PackRowsArgs& args, const Packing& packing) {
  const unsigned threads = threads_for_row(float8_groups(packing.width) * kWarp);  // a warp a group
  pack_float8_kernel<From><<<static_cast<unsigned>(args.indices.dim(0)), threads, 0, stream.handle()>>>(
      packing, float8_row_shape(packing.width), data_of<const From>(args.input), args.output,
      stream.faults());
  check_launch("pack_rows");
}

template <class From, class To>
void launch_packing(CudaStream& stream, const PackRowsArgs& args, const Packing& packing) {
  const auto* input = data_of<const From>(args.input);
  constexpr int kWide = kWideVector<From, To>;
  const bool is_wide =
      allows_wide_vectors<From, To>({input, packing.width, args.output, packing.row_bytes, packing.width});
  const unsigned threads = threads_for_row(is_wide ? packing.width / kWide : packing.width);
  const auto kernel = is_wide ? pack_rows_kernel<From, To, kWide> : pack_rows_kernel<From, To, 1>;
  kernel<<<static_cast<unsigned>(args.indices.dim(0)), threads, 0, stream.handle()>>>(
      packing, input, args.output, stream.faults());
  check_launch("pack_rows");
}

}  // namespace

void CudaOps::pack_rows(Stream& stream, const PackRowsArgs& args) const {
  check_args(args);
  if (args.indices.is_empty()) return;
  const bool has_headers = args.headers.has_data();
  const bool has_offsets = args.row_offsets.has_data();
  const Packing packing{.indices = args.indices.i32(),
                        .headers = data_of<const std::uint32_t>(args.headers),
                        .row_offsets = has_offsets ? args.row_offsets.i32() : nullptr,
                        .num_ranks = has_offsets ? static_cast<std::int32_t>(args.row_offsets.dim(0)) - 1 : 0,
                        .left_out_rank = args.left_out_rank,
                        .num_input_rows = args.input.dim(0),
                        .width = args.input.dim(1),
                        .header_words = has_headers ? args.headers.dim(1) : 0,
                        .header_offset = static_cast<std::int64_t>(args.header_offset),
                        .row_bytes = static_cast<std::int64_t>(args.row_bytes)};
  with_element(args.input.dtype(), "pack_rows", [&]<class From>(From*) {
    if (args.wire_dtype == DType::kFloat8E4M3) {
      return launch_float8_packing<From>(cuda_stream(stream), args, packing);
    }
    with_element(args.wire_dtype, "pack_rows",
                 [&]<class To>(To*) { launch_packing<From, To>(cuda_stream(stream), args, packing); });
  });
}

}  // namespace aurora::cuda
