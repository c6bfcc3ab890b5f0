#include "kernels/cuda/device_fault.h"

#include <string>

#include "kernels/check_args.h"
#include "kernels/cuda/check_cuda.h"

namespace aurora::cuda {
namespace {

/// The tensor whose index was bad, as the CPU backend names it; null for faults with words of their own.
const char* tensor_name(FaultSite site) {
  switch (site) {
    case FaultSite::kEmbedTokenIds:
      return "embed: token_ids";
    case FaultSite::kRopePositions:
      return "rope: positions";
    case FaultSite::kAppendKvSlots:
      return "append_kv: slots";
    case FaultSite::kAttentionSequence:
      return "paged_attention: sequence_index";
    case FaultSite::kAttentionBlock:
      return "paged_attention: block_tables";
    case FaultSite::kAttentionLastBlock:
      return "paged_attention: block of the last position";
    case FaultSite::kRouteExpertIds:
      return "route: expert_ids";
    case FaultSite::kAssignExpertIds:
      return "assign_rows: expert_ids";
    case FaultSite::kGatherIndices:
      return "gather_rows: indices";
    case FaultSite::kPackIndices:
      return "pack_rows: indices";
    case FaultSite::kGroupPairsExpertIds:
      return "group_pairs: expert_ids";
    case FaultSite::kWeightedSumIndices:
      return "weighted_sum: indices";
    case FaultSite::kExpertRowIndices:
      return "expert_ffn: row_indices";
    default:
      return nullptr;
  }
}

[[noreturn]] void throw_fault(const FaultRecord& fault) {
  if (fault.site == FaultSite::kSampleNoLogit) {
    throw Error(ErrorKind::kInvalidArgument,
                "sample: no logit of row " + std::to_string(fault.row) +
                    " is a number above minus infinity; the model's weights or inputs are broken");
  }
  if (const char* name = tensor_name(fault.site)) {
    throw Error(ErrorKind::kInternal, index_text(fault.value, fault.limit, fault.row, name));
  }
  if (fault.site == FaultSite::kGroupExpert) {
    throw Error(ErrorKind::kInternal, "internal error: group_rows: row " + std::to_string(fault.row) +
                                          " names expert " + std::to_string(fault.value) +
                                          ", which does not live on this rank");
  }
  if (fault.site == FaultSite::kGroupPairs) {
    throw Error(ErrorKind::kInternal, "internal error: group_rows: the rows hold " +
                                          std::to_string(fault.value) + " pairs, the counts announced " +
                                          std::to_string(fault.limit));
  }
  if (fault.site == FaultSite::kExpertOffsets) {
    throw Error(ErrorKind::kInternal,
                "internal error: expert_ffn: expert_offsets: expert " + std::to_string(fault.row) +
                    " has rows " + std::to_string(fault.value) + " to " + std::to_string(fault.second) +
                    " of " + std::to_string(fault.limit));
  }
  const std::string what = fault.site == FaultSite::kAttentionPosition
                               ? "paged_attention: a position is negative"
                               : "weighted_sum: offsets decrease or point beyond the terms";
  throw Error(ErrorKind::kInternal, "internal error: " + what + " (row " + std::to_string(fault.row) + ")");
}

}  // namespace

DeviceFault::DeviceFault() {
  void* memory = nullptr;
  check_cuda(cudaHostAlloc(&memory, sizeof(FaultRecord), cudaHostAllocMapped), "fault record");
  record_ = new (memory) FaultRecord();
  check_cuda(cudaMalloc(&memory, sizeof(std::int32_t)), "fault claim word");
  claimed_ = static_cast<std::int32_t*>(memory);
  clear_claim();
}

DeviceFault::~DeviceFault() {
  cudaFreeHost(record_);
  cudaFree(claimed_);
}

// Done when it returns: the streams that use the word do not wait for the default stream.
void DeviceFault::clear_claim() {
  check_cuda(cudaMemset(claimed_, 0, sizeof(std::int32_t)), "fault claim word");
  check_cuda(cudaStreamSynchronize(nullptr), "fault claim word");
}

void DeviceFault::rethrow() {
  const volatile std::int32_t* site = reinterpret_cast<const volatile std::int32_t*>(&record_->site);
  if (*site == static_cast<std::int32_t>(FaultSite::kNone)) return;
  const FaultRecord fault = *record_;
  *record_ = FaultRecord();
  clear_claim();
  throw_fault(fault);
}

}  // namespace aurora::cuda
