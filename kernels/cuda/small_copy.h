// Copies of a few kilobytes between memory of the device and pinned memory of the host, by a kernel.
//
// Every layer copies its counts to the host, which waits for them. cudaMemcpyAsync would hand them to a copy
// engine, behind what is copied there, and back.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>

namespace aurora::cuda {

/// Whether it did: not where there is much to copy, or where a place is of another device or not pinned.
/// Capturable. The host may read the destination once an event recorded behind it is complete, and must leave
/// the source alone until then.
bool copy_small(cudaStream_t stream, void* destination, const void* source, std::size_t size_bytes);

}  // namespace aurora::cuda
