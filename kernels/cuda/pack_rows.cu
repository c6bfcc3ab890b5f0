#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/dependent_launch.cuh"
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
  unsigned blocks_per_row = 1;
};

__device__ bool is_packed(const Packing& packing, std::int64_t row) {
  if (packing.row_offsets == nullptr) return true;
  // Read side by side: none waits for what another says.
  const std::int32_t num_rows = packing.row_offsets[packing.num_ranks];
  const std::int32_t begin = packing.row_offsets[packing.left_out_rank];
  const std::int32_t end = packing.row_offsets[packing.left_out_rank + 1];
  return row < num_rows && (row < begin || row >= end);
}

/// `write(source, place, share)` writes the share of the payload.
template <class From, class Write>
__device__ void pack_row(const Packing& packing, const From* input, std::byte* output, FaultSink faults,
                         const Write& write) {
  const RowShare share = row_share(packing.blocks_per_row);
  wait_for_kernel_before();
  let_next_kernel_begin();
  const std::int64_t index = packing.indices[share.row];
  if (!is_packed(packing, share.row)) return;
  if (!index_fits(faults, FaultSite::kPackIndices, share.row, index, packing.num_input_rows)) return;
  std::byte* place = output + share.row * packing.row_bytes;
  auto* header = reinterpret_cast<std::uint32_t*>(place + packing.header_offset);
  for (std::int64_t word = share.first; word < packing.header_words; word += share.stride) {
    header[word] = packing.headers[share.row * packing.header_words + word];
  }
  write(input + index * packing.width, place, share);
}

template <class From, class To, int kVector>
__global__ void pack_rows_kernel(Packing packing, const From* input, std::byte* output, FaultSink faults) {
  pack_row(packing, input, output, faults, [&](const From* source, std::byte* place, const RowShare& share) {
    copy_row<From, To, kVector>(source, reinterpret_cast<To*>(place), packing.width, share);
  });
}

template <class From, int kVector>
__global__ void pack_float8_kernel(Packing packing, Float8RowShape shape, const From* input,
                                   std::byte* output, FaultSink faults) {
  pack_row(packing, input, output, faults, [&](const From* source, std::byte* place, const RowShare& share) {
    quantize_part<kVector>(source, place, shape, share.first);
  });
}

template <class From>
void launch_float8_packing(CudaStream& stream, const PackRowsArgs& args, Packing packing) {
  constexpr int kWide = kWideFloat8Vector;
  const std::int64_t num_rows = args.indices.dim(0);
  const auto* input = data_of<const From>(args.input);
  const bool is_wide = allows_vectors<kWide, From, std::uint8_t>(
      {input, packing.width, args.output, packing.row_bytes, packing.width});
  const int vector = is_wide ? kWide : kNarrowFloat8Vector;
  const std::int64_t num_parts = float8_groups(packing.width) * (kFloat8Group / vector);
  const RowBlocks blocks = blocks_of_rows(num_rows, num_parts);
  packing.blocks_per_row = blocks.blocks_per_row;
  launch_dependent(is_wide ? pack_float8_kernel<From, kWide> : pack_float8_kernel<From, kNarrowFloat8Vector>,
                   static_cast<unsigned>(num_rows) * blocks.blocks_per_row, blocks.threads, 0,
                   stream.handle(), "pack_rows", packing, float8_row_shape(packing.width), input, args.output,
                   stream.faults());
}

template <class From, class To>
void launch_packing(CudaStream& stream, const PackRowsArgs& args, Packing packing) {
  constexpr int kWide = kWideVector<From, To>;
  const std::int64_t num_rows = args.indices.dim(0);
  const auto* input = data_of<const From>(args.input);
  const bool is_wide =
      allows_vectors<kWide, From, To>({input, packing.width, args.output, packing.row_bytes, packing.width});
  const RowBlocks blocks =
      blocks_of_rows(num_rows, is_wide ? packing.width / kWide : packing.width, kPartsInFlight);
  packing.blocks_per_row = blocks.blocks_per_row;
  launch_dependent(is_wide ? pack_rows_kernel<From, To, kWide> : pack_rows_kernel<From, To, 1>,
                   static_cast<unsigned>(num_rows) * blocks.blocks_per_row, blocks.threads, 0,
                   stream.handle(), "pack_rows", packing, input, args.output, stream.faults());
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
