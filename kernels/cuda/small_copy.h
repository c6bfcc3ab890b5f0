// Copies of a few kilobytes between memory of the device and pinned memory of the host, by a kernel.
//
// cudaMemcpyAsync gives them to a copy engine: some microseconds more, in every layer. And between processes
// that share a GPU through MPS a copy engine was seen to wait for kernels of *others*: when those are
// exchanges that wait for this process, all of them wait for good.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>

namespace aurora::cuda {

/// Whether it did: not where there is much to copy, or where a place is of another device or not pinned.
/// Capturable. The host may read the destination once an event recorded behind it is complete, and must leave
/// the source alone until then.
bool copy_small(cudaStream_t stream, void* destination, const void* source, std::size_t size_bytes);

}  // namespace aurora::cuda
