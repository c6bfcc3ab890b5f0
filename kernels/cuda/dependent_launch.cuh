// Kernels that begin before the kernel in front of them in the stream has ended.
//
// "Programmatic dependent launch" of the CUDA C++ Programming Guide, on GPUs since Hopper: the blocks of a
// kernel launched by `launch_dependent` may start as soon as every block of the kernel in front has called
// `let_next_kernel_begin` or ended, so that the gap between two small kernels, and what a kernel does before
// it needs its input, disappear. What the kernel in front has written is there when `wait_for_kernel_before`
// returns, and with it all that was written before, as long as every kernel in between waits too: each kernel
// that is launched so calls it, in all threads, before it reads what another kernel wrote and before it
// writes anything that one may still read. On older GPUs these are ordinary launches, and the two functions
// nothing.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <nv/target>
#include <utility>

#include "kernels/cuda/check_cuda.h"
#include "kernels/cuda/device_properties.h"

namespace aurora::cuda {

__device__ inline void wait_for_kernel_before() {
  NV_IF_TARGET(NV_PROVIDES_SM_90, (asm volatile("griddepcontrol.wait;" ::: "memory");))
}

__device__ inline void let_next_kernel_begin() {
  NV_IF_TARGET(NV_PROVIDES_SM_90, (asm volatile("griddepcontrol.launch_dependents;" ::: "memory");))
}

template <class... Parameters, class... Arguments>
void launch_dependent(void (*kernel)(Parameters...), dim3 blocks, unsigned threads, std::size_t shared_bytes,
                      cudaStream_t stream, const char* name, Arguments&&... arguments) {
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = blocks;
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = current_device().capability_major >= 9 ? 1 : 0;
  check_cuda(cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...), name);
}

}  // namespace aurora::cuda
