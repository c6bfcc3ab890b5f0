#include <cstdint>

#include "kernels/cuda/check_cuda.h"
#include "kernels/cuda/dependent_launch.cuh"
#include "kernels/cuda/small_copy.h"

namespace aurora::cuda {
namespace {

constexpr std::size_t kMostBytes = std::size_t{64} << 10;
constexpr unsigned kThreads = 256;

template <class Word>
__global__ void __launch_bounds__(kThreads)
    small_copy_kernel(const Word* source, Word* destination, unsigned num_words) {
  wait_for_kernel_before();
  const unsigned word = blockIdx.x * kThreads + threadIdx.x;
  if (word < num_words) destination[word] = source[word];
}

template <class Word>
void launch(cudaStream_t stream, void* destination, const void* source, std::size_t size_bytes) {
  const auto num_words = static_cast<unsigned>(size_bytes / sizeof(Word));
  launch_dependent(small_copy_kernel<Word>, (num_words + kThreads - 1) / kThreads, kThreads, 0, stream,
                   "copy_small", static_cast<const Word*>(source), static_cast<Word*>(destination),
                   num_words);
}

bool is_reached_by_kernels(const void* place) {
  cudaPointerAttributes attributes{};
  if (cudaPointerGetAttributes(&attributes, place) != cudaSuccess) {
    cudaGetLastError();
    return false;
  }
  if (attributes.type == cudaMemoryTypeHost) return attributes.devicePointer == place;
  int device = 0;
  check_cuda(cudaGetDevice(&device), "cudaGetDevice");
  return attributes.type == cudaMemoryTypeDevice && attributes.device == device;
}

}  // namespace

bool copy_small(cudaStream_t stream, void* destination, const void* source, std::size_t size_bytes) {
  if (size_bytes > kMostBytes || !is_reached_by_kernels(destination) || !is_reached_by_kernels(source)) {
    return false;
  }
  const auto places =
      reinterpret_cast<std::uintptr_t>(destination) | reinterpret_cast<std::uintptr_t>(source);
  if (((places | size_bytes) & (sizeof(std::uint32_t) - 1)) == 0) {
    launch<std::uint32_t>(stream, destination, source, size_bytes);
  } else {
    launch<std::uint8_t>(stream, destination, source, size_bytes);
  }
  return true;
}

}  // namespace aurora::cuda
