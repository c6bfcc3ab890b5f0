// How a kernel says that an index in its inputs is out of range.
//
// A kernel cannot throw. The first thread that meets a bad index writes it down, the kernel skips the row,
// and the host throws at the next `Event::is_complete`, `Event::wait` or `Stream::synchronize`, with the
// words that the CPU backend uses. One record per stream; it is cleared when it is reported.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace aurora::cuda {

enum class FaultSite : std::int32_t {
  kNone,
  kEmbedTokenIds,
  kRopePositions,
  kAppendKvSlots,
  kAttentionSequence,
  kAttentionBlock,
  kAttentionLastBlock,
  kAttentionPosition,
  kRouteExpertIds,
  kAssignExpertIds,
  kGatherIndices,
  kPackIndices,
  kGroupExpert,
  kGroupPairs,
  kGroupPairsExpertIds,
  kWeightedSumIndices,
  kWeightedSumOffsets,
  kExpertRowIndices,
  kExpertOffsets,
  kSampleNoLogit,
};

/// In pinned host memory that the device can write.
struct FaultRecord {
  FaultSite site = FaultSite::kNone;
  std::int64_t row = 0;
  std::int64_t value = 0;
  std::int64_t second = 0;  // of a pair that does not fit together
  std::int64_t limit = 0;
};

/// What kernels get: the record, and a word in device memory that the first fault claims.
struct FaultSink {
  FaultRecord* record = nullptr;
  std::int32_t* claimed = nullptr;
};

/// Owns a record and its claim word.
class DeviceFault {
 public:
  DeviceFault();
  ~DeviceFault();
  DeviceFault(const DeviceFault&) = delete;
  DeviceFault& operator=(const DeviceFault&) = delete;

  FaultSink sink() const { return {record_, claimed_}; }
  /// Throws what a kernel has written down, and clears it. Call when the work that may have written is done.
  void rethrow();

 private:
  void clear_claim();

  FaultRecord* record_ = nullptr;
  std::int32_t* claimed_ = nullptr;
};

}  // namespace aurora::cuda
