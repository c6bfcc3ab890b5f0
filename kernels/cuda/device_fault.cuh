// The device side of device_fault.h: what kernels call when an index is out of range.
#pragma once

#include "kernels/cuda/device_fault.h"

namespace aurora::cuda {

__device__ inline void report_fault(FaultSink sink, FaultSite site, std::int64_t row, std::int64_t value,
                                    std::int64_t limit, std::int64_t second = 0) {
  if (atomicCAS(sink.claimed, 0, 1) != 0) return;
  volatile FaultRecord* record = sink.record;
  record->row = row;
  record->value = value;
  record->second = second;
  record->limit = limit;
  __threadfence_system();
  *reinterpret_cast<volatile std::int32_t*>(&sink.record->site) = static_cast<std::int32_t>(site);
}

/// Whether 0 <= value < limit; reports when it is not.
__device__ inline bool index_fits(FaultSink sink, FaultSite site, std::int64_t row, std::int64_t value,
                                  std::int64_t limit) {
  if (value >= 0 && value < limit) return true;
  report_fault(sink, site, row, value, limit);
  return false;
}

}  // namespace aurora::cuda
