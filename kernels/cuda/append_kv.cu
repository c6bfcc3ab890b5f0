#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/dependent_launch.cuh"
#include "kernels/cuda/device_fault.cuh"
#include "kernels/cuda/device_math.cuh"

namespace aurora::cuda {
namespace {

/// One block a token: its keys and values, converted to the cache's dtype.
template <class From, class To>
__global__ void append_kv_kernel(const From* key, const From* value, const std::int32_t* slots, To* key_cache,
                                 To* value_cache, std::int64_t num_slots, std::int64_t row_width,
                                 FaultSink faults) {
  const std::int64_t token = blockIdx.x;
  wait_for_kernel_before();
  let_next_kernel_begin();
  const std::int64_t slot = slots[token];
  if (!index_fits(faults, FaultSite::kAppendKvSlots, token, slot, num_slots)) return;
  for (std::int64_t i = threadIdx.x; i < row_width; i += blockDim.x) {
    key_cache[slot * row_width + i] = convert<To>(key[token * row_width + i]);
    value_cache[slot * row_width + i] = convert<To>(value[token * row_width + i]);
  }
}

}  // namespace

void CudaOps::append_kv(Stream& stream, const AppendKvArgs& args) const {
  check_args(args);
  if (args.key.is_empty()) return;
  CudaStream& own = cuda_stream(stream);
  with_element(args.key.dtype(), "append_kv", [&]<class From>(From*) {
    with_element(args.key_cache.dtype(), "append_kv", [&]<class To>(To*) {
      launch_dependent(append_kv_kernel<From, To>, static_cast<unsigned>(args.key.dim(0)), 128, 0,
                       own.handle(), "append_kv", data_of<const From>(args.key),
                       data_of<const From>(args.value), args.slots.i32(), data_of<To>(args.key_cache),
                       data_of<To>(args.value_cache), args.key_cache.dim(0) * args.key_cache.dim(1),
                       args.key.dim(1) * args.key.dim(2), own.faults());
    });
  });
}

}  // namespace aurora::cuda
