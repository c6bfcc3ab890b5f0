#include "kernels/cuda/profiler_ranges.h"

namespace aurora::cuda {
namespace {

/// Category 0 means "none".
std::uint32_t category_of(std::size_t group) { return static_cast<std::uint32_t>(group) + 1; }

}  // namespace

ProfilerRanges::ProfilerRanges() : domain_(nvtxDomainCreateA("aurora")) {}

ProfilerRanges::~ProfilerRanges() {
  if (domain_ != nullptr) nvtxDomainDestroy(domain_);
}

void ProfilerRanges::open(const RangeLabel& label) {
  if (domain_ == nullptr) return;
  nvtxEventAttributes_t attributes{};
  attributes.version = NVTX_VERSION;
  attributes.size = NVTX_EVENT_ATTRIB_STRUCT_SIZE;
  attributes.category = category_of(label.group);
  attributes.messageType = NVTX_MESSAGE_TYPE_ASCII;
  attributes.message.ascii = label.name;
  attributes.payloadType = NVTX_PAYLOAD_TYPE_INT64;
  attributes.payload.llValue = label.number;
  nvtxDomainRangePushEx(domain_, &attributes);
}

void ProfilerRanges::close() {
  if (domain_ != nullptr) nvtxDomainRangePop(domain_);
}

void ProfilerRanges::name_group(std::size_t group, const std::string& name) {
  if (domain_ != nullptr) nvtxDomainNameCategoryA(domain_, category_of(group), name.c_str());
}

}  // namespace aurora::cuda
