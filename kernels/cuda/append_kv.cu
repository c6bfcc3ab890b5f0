#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/dependent_launch.cuh"
#include "kernels/cuda/device_fault.cuh"
#include "kernels/cuda/row_copy.cuh"

namespace aurora::cuda {
namespace {

/// Rows of new tokens and the cache that takes them.
template <class From, class To>
struct NewRows {
  const From* rows;  // [num_tokens, width]
  To* cache;         // [num_slots, width]
};

/// `kVector` elements at a time. Blocks of y 0 store keys, those of y 1 values; a row and its slot are read
/// at the same time.
template <class From, class To, int kVector>
__global__ void append_kv_kernel(NewRows<From, To> keys, NewRows<From, To> values, const std::int32_t* slots,
                                 std::int64_t num_slots, std::int64_t width, unsigned blocks_per_row,
                                 FaultSink faults) {
  const RowShare share = row_share(blocks_per_row);
  const NewRows<From, To> from = blockIdx.y == 0 ? keys : values;
  wait_for_kernel_before();
  let_next_kernel_begin();
  const RowParts<From, kVector> row = load_row<kVector>(from.rows + share.row * width, width, share);
  const std::int64_t slot = slots[share.row];
  if (!index_fits(faults, FaultSite::kAppendKvSlots, share.row, slot, num_slots)) return;
  store_row(row, from.cache + slot * width, width, share);
}

template <class From, class To>
void launch(CudaStream& stream, const AppendKvArgs& args) {
  constexpr int kWide = kWideVector<From, To>;
  const std::int64_t num_tokens = args.key.dim(0);
  const std::int64_t width = args.key.dim(1) * args.key.dim(2);
  const NewRows<From, To> keys{data_of<const From>(args.key), data_of<To>(args.key_cache)};
  const NewRows<From, To> values{data_of<const From>(args.value), data_of<To>(args.value_cache)};
  const auto is_wide = [&](const NewRows<From, To>& from) {
    return allows_vectors<kWide, From, To>(
        {from.rows, width, from.cache, width * static_cast<std::int64_t>(sizeof(To)), width});
  };
  const bool are_wide = is_wide(keys) && is_wide(values);
  const RowBlocks blocks = blocks_of_rows(num_tokens, are_wide ? width / kWide : width, kPartsInFlight);
  launch_dependent(are_wide ? append_kv_kernel<From, To, kWide> : append_kv_kernel<From, To, 1>,
                   dim3(static_cast<unsigned>(num_tokens) * blocks.blocks_per_row, 2), blocks.threads, 0,
                   stream.handle(), "append_kv", keys, values, args.slots.i32(),
                   args.key_cache.dim(0) * args.key_cache.dim(1), width, blocks.blocks_per_row,
                   stream.faults());
}

}  // namespace

void CudaOps::append_kv(Stream& stream, const AppendKvArgs& args) const {
  check_args(args);
  if (args.key.is_empty()) return;
  with_element(args.key.dtype(), "append_kv", [&]<class From>(From*) {
    with_element(args.key_cache.dtype(), "append_kv",
                 [&]<class To>(To*) { launch<From, To>(cuda_stream(stream), args); });
  });
}

}  // namespace aurora::cuda
